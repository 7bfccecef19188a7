"""The setting of a measurement: machine, profile, ceilings and source, and how a call becomes a record in it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from smml.hardware import Ceiling, Ceilings, Machine, Profile, ceilings, detect, select
from smml.hardware.reach import cache_bytes, drift, thread_count
from smml.measure import MachineId, Record, Timing, record, slowed, time_call
from smml.measure.record import git_commit
from smml.roofline import Prediction, Roof, Work


@dataclass(frozen=True)
class Setting:
    """What every record of one run has in common. `slowdown` > 1 does each call so many times (see `slowed`)."""

    machine: Machine
    profile: Profile
    ceilings: Ceilings
    source: str
    slowdown: int = 1

    @classmethod
    def here(
        cls, source: str, profile: str = "auto", *, refresh: bool = False, slowdown: int = 1
    ) -> "Setting":
        """This machine under `profile`; `source` names the notebook or bench; `refresh` measures the ceilings anew."""
        machine = detect()
        return cls(
            machine, select(profile, machine), ceilings(machine, refresh=refresh), source, slowdown
        )

    @property
    def device(self) -> str:
        """torch device string of the profile."""
        return self.profile.device

    def roof(self, dtype: str | None = None) -> Roof:
        """The roof measured here for `dtype` (default: the profile's)."""
        dtype = dtype or self.profile.dtype
        return Roof.measured(self.ceilings, dtype, f"{self.machine.device_name}, {dtype}")

    def physical_roof(self, dtype: str | None = None) -> Roof | None:
        """The datasheet's roof for `dtype`; None where the catalogue does not hold this device."""
        return Roof.physical(self.machine.accelerator, dtype or self.profile.dtype)

    def threads(self, bound: str) -> int:
        """Thread count under which the ceiling of that kind was reached; 0 on a GPU."""
        ceiling = (
            self.ceilings.bandwidth
            if bound == "memory"
            else self.ceilings.flops[self.profile.dtype]
        )
        return ceiling.settings.get("threads", 0)

    def drift(self) -> float:
        """How far the ceilings have moved since they were measured (0.1 = 10 %): half a second of measuring."""
        return drift(self.ceilings, self.profile.dtype, self.device)

    def ceiling_records(self) -> list[Record]:
        """The measured ceilings as records, from which the roof of this machine can be drawn elsewhere."""
        known = {f"gemm/{dtype}": (c, dtype) for dtype, c in self.ceilings.flops.items()}
        known |= {
            "bandwidth": (self.ceilings.bandwidth, None),
            "cache-bandwidth": (self.ceilings.cache_bandwidth, None),
        }
        return [self._ceiling_record(f"ceiling/{name}", *item) for name, item in known.items()]

    def _ceiling_record(self, name: str, ceiling: Ceiling, dtype: str | None) -> Record:
        physical = self.physical_roof(dtype) if dtype else self.physical_roof()
        peak = physical and (physical.peak_flops if dtype else physical.bandwidth_bytes_per_s)
        return Record(
            name=name,
            unit=ceiling.unit,
            better="higher",
            value=ceiling.value,
            p20=ceiling.p20,
            p80=ceiling.p80,
            n=ceiling.n,
            inputs=ceiling.settings,
            share_of_physical=ceiling.value / peak if peak and "cache" not in name else None,
            machine=self.machine_id,
            environment=detect(refresh=True).environment(),  # clocks and load of this moment
            commit=git_commit(),
            date=self.ceilings.date,
            source=self.source,
        )

    @property
    def machine_id(self) -> MachineId:
        """Fingerprint and name of this machine, as records carry them."""
        return MachineId(fingerprint=self.machine.fingerprint, device=self.machine.device_name)

    def measure(
        self,
        name: str,
        call: Callable[[], object],
        work: Work,
        *,
        inputs: dict[str, Any],
        unit: Literal["FLOP/s", "B/s"] = "FLOP/s",
        predicted: Prediction | None = None,
        flush: bool = False,
        budget_s: float = 0.5,
    ) -> Record:
        """Time `call`, which does `work`, as a record in `unit`, with the roof's prediction.

        `flush` empties the caches before every sample: for operands small enough to stay in them.
        """
        roof = self.roof()
        predicted = predicted or roof.predict(work)
        with thread_count(self.threads(predicted.bound)):
            timing = time_call(
                slowed(call, self.slowdown) if self.slowdown > 1 else call,
                device=self.device,
                budget_s=budget_s,
                flush_bytes=2 * cache_bytes(self.machine) if flush else 0,
            )
        return self.record(name, timing, work, predicted, inputs, unit)

    def record(
        self,
        name: str,
        timing: Timing,
        work: Work,
        predicted: Prediction,
        inputs: dict[str, Any],
        unit: Literal["FLOP/s", "B/s"] = "FLOP/s",
    ) -> Record:
        """The record of a timing of `work`: FLOPs or bytes asked for a second, as shares of both roofs.

        The unit is the caller's: one that followed the measured ridge would change between two runs of a
        kernel near it, and could not be compared.
        """
        amount = work.flops if unit == "FLOP/s" else work.bytes
        physical = self.physical_roof()
        return record(
            f"{name}/{self.profile.dtype}",
            timing,
            machine=self.machine_id,
            source=self.source,
            unit=unit,
            amount=amount,
            predicted_s=predicted.seconds,
            measured_ceiling=amount / self.roof().least_seconds(work),
            physical_ceiling=amount / physical.least_seconds(work) if physical else None,
            inputs={
                "dtype": self.profile.dtype,
                "profile": self.profile.name,
                "bound": predicted.bound,
            }
            | inputs,
            flops=work.flops,
            bytes=work.bytes,
            environment=detect(refresh=True).environment(),  # clocks and load of this moment
        )
