"""Count FLOPs and bytes, and predict the time of a kernel from two ceilings; pure.

The roofline model: a kernel takes at least FLOPs ÷ peak FLOP/s and at least bytes ÷ bandwidth, and the larger
of the two is the prediction. Source: S. Williams, A. Waterman, D. Patterson, "Roofline: An Insightful Visual
Performance Model for Multicore Architectures", Communications of the ACM 52(4), 2009.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from smml.errors import UserError

Bound = Literal["compute", "memory", "launch"]


@dataclass(frozen=True)
class Work:
    """What a kernel must do at least: each operand read once, each result written once.

    `bytes_allocated` is the part of `bytes_written` whose cache lines the kernel did not read before. A CPU
    fetches such a line from memory before it changes it (write-allocate); a GPU does not.
    """

    flops: float
    bytes_read: float
    bytes_written: float
    bytes_allocated: float
    launches: int = 1

    @property
    def bytes(self) -> float:
        """Bytes that the kernel asks for: read + written."""
        return self.bytes_read + self.bytes_written

    @property
    def arithmetic_intensity(self) -> float:
        """FLOPs per byte asked for."""
        return self.flops / self.bytes

    def traffic(self, write_allocate: float) -> float:
        """Bytes that the memory moves: asked for, plus `write_allocate` (0..1) of those written unread."""
        return self.bytes + write_allocate * self.bytes_allocated

    def __add__(self, other: "Work") -> "Work":
        """One kernel after the other, nothing kept in between."""
        return Work(
            self.flops + other.flops,
            self.bytes_read + other.bytes_read,
            self.bytes_written + other.bytes_written,
            self.bytes_allocated + other.bytes_allocated,
            self.launches + other.launches,
        )

    def __mul__(self, times: int) -> "Work":
        """The same kernel `times` times over."""
        return Work(
            self.flops * times,
            self.bytes_read * times,
            self.bytes_written * times,
            self.bytes_allocated * times,
            self.launches * times,
        )


def gemm(m: int, n: int, k: int, bytes_per_element: int) -> Work:
    """C[m,n] = A[m,k] · B[k,n]: 2·m·n·k FLOPs; reads m·k + k·n elements, writes m·n."""
    _positive(m=m, n=n, k=k, bytes_per_element=bytes_per_element)
    written = m * n * bytes_per_element
    return Work(2 * m * n * k, (m * k + k * n) * bytes_per_element, written, written)


def elementwise(
    elements: int,
    bytes_per_element: int,
    *,
    inputs: int = 1,
    flops_per_element: float = 1,
    in_place: bool = False,
) -> Work:
    """y[i] = f(x1[i], …): reads `inputs` arrays, writes one; `in_place` writes over one that it read."""
    _positive(elements=elements, bytes_per_element=bytes_per_element)
    size = elements * bytes_per_element
    return Work(elements * flops_per_element, inputs * size, size, 0 if in_place else size)


def chain(elements: int, bytes_per_element: int, length: int, *, fused: bool = False) -> Work:
    """y = a·x, then `length` − 1 times y = a·y: each step goes through memory, or, fused, only the first and last."""
    _positive(length=length)
    first = elementwise(elements, bytes_per_element)
    if fused:
        return Work(elements * length, first.bytes_read, first.bytes_written, first.bytes_allocated)
    rest = elementwise(elements, bytes_per_element, in_place=True)
    return first if length == 1 else first + rest * (length - 1)


@dataclass(frozen=True)
class Prediction:
    """Seconds by each term; `seconds` is the largest and `bound` names it."""

    compute_s: float
    memory_s: float
    launch_s: float = 0.0

    @property
    def seconds(self) -> float:
        """Predicted time: the largest term, seconds."""
        return max(self.compute_s, self.memory_s, self.launch_s)

    @property
    def bound(self) -> Bound:
        """The resource that sets the time."""
        terms: dict[Bound, float] = {
            "compute": self.compute_s,
            "memory": self.memory_s,
            "launch": self.launch_s,
        }
        return max(terms, key=terms.__getitem__)


class Measured(Protocol):
    """What a roof needs of measured ceilings (see `smml.hardware.Ceilings`)."""

    bandwidth_bytes_per_s: float
    write_allocate: float
    launch_s: float

    def flops_per_s(self, dtype: str) -> float: ...


class Recorded(Protocol):
    """What a roof needs of a record (see `smml.measure.Record`)."""

    name: str
    value: float
    machine: Any
    date: datetime


class Catalogued(Protocol):
    """What a roof needs of a catalogue entry (see `smml.data.catalogue`)."""

    name: str

    @property
    def bandwidth(self): ...

    def peak_flops(self, dtype: str): ...


@dataclass(frozen=True)
class Roof:
    """Two ceilings of one device: peak FLOP/s and bytes/s. `kind` says whether measured or from a datasheet."""

    name: str
    peak_flops: float
    bandwidth_bytes_per_s: float
    kind: Literal["measured", "physical"] = "measured"
    write_allocate: float = 0.0
    launch_s: float = 0.0

    def __post_init__(self) -> None:
        _positive(peak_flops=self.peak_flops, bandwidth_bytes_per_s=self.bandwidth_bytes_per_s)

    @classmethod
    def measured(cls, ceilings: Measured, dtype: str, name: str) -> "Roof":
        """The roof that was measured on this machine for one dtype."""
        return cls(
            name,
            ceilings.flops_per_s(dtype),
            ceilings.bandwidth_bytes_per_s,
            "measured",
            ceilings.write_allocate,
            ceilings.launch_s,
        )

    @classmethod
    def physical(cls, accelerator: Catalogued | None, dtype: str) -> "Roof | None":
        """The datasheet's roof (dense peak); None where the catalogue holds no peak for device and dtype."""
        peak = accelerator.peak_flops(dtype) if accelerator else None
        if accelerator is None or peak is None:
            return None
        return cls(accelerator.name, peak.value, accelerator.bandwidth.value, "physical")

    @classmethod
    def recorded(cls, records: Iterable[Recorded], dtype: str) -> "Roof | None":
        """The roof that a machine's records of its ceilings hold for `dtype`; None where they hold none."""
        known = {record.name: record for record in records}
        peak, stream = known.get(f"ceiling/gemm/{dtype}"), known.get("ceiling/bandwidth")
        if peak is None or stream is None:
            return None
        name = f"{peak.machine.device}, {dtype}, {peak.date:%Y-%m-%d}"
        return cls(name, peak.value, stream.value, "measured")

    @property
    def ridge(self) -> float:
        """FLOPs per byte at which both ceilings take the same time; below it a kernel is memory-bound."""
        return self.peak_flops / self.bandwidth_bytes_per_s

    def attainable(self, arithmetic_intensity: float) -> float:
        """FLOP/s that the roof allows at this intensity: min(peak, intensity × bandwidth)."""
        return min(self.peak_flops, arithmetic_intensity * self.bandwidth_bytes_per_s)

    def least_seconds(self, work: Work) -> float:
        """Seconds that `work` takes on the roof itself: its FLOPs at the peak or its bytes at the bandwidth."""
        prediction = self.predict(work)
        return max(prediction.compute_s, prediction.memory_s)

    def predict(self, work: Work) -> Prediction:
        """Time of `work` under this roof, by term."""
        return Prediction(
            work.flops / self.peak_flops,
            work.traffic(self.write_allocate) / self.bandwidth_bytes_per_s,
            work.launches * self.launch_s,
        )


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise UserError(f"{name}={value} is not possible: give a number above 0.")
