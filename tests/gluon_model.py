"""Gluon's asynchronous parts modelled in Python, so that a kernel's own source runs where there is no GPU and no interpreter for it.

Partitions run as threads of which one at a time has the baton; at each wait, copy and arrival a seeded generator
chooses who goes on. Whatever hardware may do late is done late: a copy into shared memory leaves NaN there until it
lands, a matrix instruction reads its operands when it is waited for, a store reads its buffer when it is waited for.
So a missing wait gives a wrong number, and a wrong parity a deadlock, which raises.
"""

import contextlib
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from gluon_scheduler import Barrier, Fault, Scheduler
from torch import Tensor


@dataclass
class Memory:
    """A block of shared memory: its values, and the thread that wrote them with no fence since."""

    value: Tensor
    unfenced: int | None = None

    def permute(self, order: list[int]) -> "View":
        return View(self, tuple(order))

    def store(self, registers: "Registers") -> None:
        if registers.value.shape != self.value.shape:
            raise Fault(f"a store of {registers.value.shape} into {self.value.shape}")
        self.value, self.unfenced = registers.value.clone(), threading.get_ident()


@dataclass
class View:
    """Shared memory read with its dimensions in another order."""

    memory: Memory
    order: tuple[int, ...] = (0, 1)


class Allocation:
    """What `allocate_shared_memory` gives: blocks by index, or barriers."""

    def __init__(self, dtype: Any, shape: list[int], barriers: bool) -> None:
        self.dtype, self.shape = dtype, list(shape)
        make = Barrier if barriers else lambda: Memory(torch.full(shape[1:], torch.nan))
        self.blocks = [make() for _ in range(shape[0])]

    def index(self, i: int) -> Any:
        if not 0 <= i < len(self.blocks):
            raise Fault(f"block {i} of {len(self.blocks)}")
        return self.blocks[i]


@dataclass
class Registers:
    """A tensor in registers; `product` is the matrix instruction that is still to write it."""

    content: Tensor
    product: Callable[[], Tensor] | None = None

    @property
    def value(self) -> Tensor:
        if self.product:
            raise Fault("sums are read before the matrix instruction was waited for")
        return self.content

    @property
    def shape(self) -> torch.Size:
        return self.content.shape

    def reshape(self, shape: list[int]) -> "Registers":
        return Registers(self.value.reshape(shape))

    def permute(self, order: list[int]) -> "Registers":
        return Registers(self.value.permute(order))

    def split(self) -> tuple["Registers", ...]:
        return tuple(Registers(part) for part in self.value.unbind(-1))

    def to(self, dtype: Any) -> "Registers":
        return self

    def __getitem__(self, index: Any) -> Tensor:
        return self.value[index]

    def __mul__(self, factor: Tensor) -> "Registers":
        return Registers(self.value * factor)

    def __add__(self, other: "Registers") -> "Registers":
        return Registers(self.value + other.value)


@dataclass
class Pointer:
    """An address: of the first number of `values`, or of those at `offsets`."""

    values: Tensor
    offsets: Tensor | None = None

    def __add__(self, offsets: Tensor) -> "Pointer":
        return Pointer(self.values, offsets)


@dataclass
class Descriptor:
    """A matrix in device memory and the box that one copy moves; 4 bytes an element."""

    matrix: Tensor
    box: tuple[int, int]
    written: Tensor | None = field(default=None)

    def __post_init__(self) -> None:
        self.block_type = types.SimpleNamespace(
            shape=list(self.box), nbytes=4 * self.box[0] * self.box[1]
        )
        self.dtype = types.SimpleNamespace(primitive_bitwidth=32)
        self.layout = None
        self.written = torch.zeros(self.matrix.shape, dtype=torch.int)

    def read(self, row: int, column: int) -> Tensor:
        part = self.matrix[row : row + self.box[0], column : column + self.box[1]]
        out = torch.zeros(self.box)
        out[: part.shape[0], : part.shape[1]] = part
        return out

    def write(self, row: int, column: int, value: Tensor) -> None:
        rows, columns = (slice(at, at + n) for at, n in zip((row, column), self.box, strict=True))
        part = self.matrix[rows, columns]
        part.copy_(value[: part.shape[0], : part.shape[1]])
        self.written[rows, columns] += 1


class Model:
    """What takes the place of Gluon's modules in one program of a launch."""

    def __init__(self, program: int, programs: int, seed: int) -> None:
        self.program, self.programs = program, programs
        self.scheduler = Scheduler(seed)
        self.allocations: list[Allocation] = []
        self.products: dict[int, list[Registers]] = {}
        self.stores: dict[int, list[tuple[Descriptor, list[int], Memory]]] = {}

    @property
    def me(self) -> int:
        return getattr(self.scheduler.mine, "number", -1)

    def names(self) -> dict[str, Any]:
        """The names that a Gluon kernel's module imports."""
        space = types.SimpleNamespace
        gl = space(
            constexpr=object,
            float32=None,
            int64="barriers",
            static_range=range,
            cdiv=lambda a, b: -(-a // b),
            program_id=lambda axis: self.program,
            num_programs=lambda axis: self.programs,
            zeros=lambda shape, dtype, layout: Registers(torch.zeros(shape)),
            arange=lambda start, stop, layout: torch.arange(start, stop),
            load=self.load,
            convert_layout=lambda x, layout, assert_trivial: x,
            NVMMADistributedLayout=lambda **given: None,
            SliceLayout=lambda axis, parent: None,
            allocate_shared_memory=self.allocate,
            warp_specialize=self.warp_specialize,
        )
        return {
            "gl": gl,
            "mbarrier": space(
                init=self.init,
                wait=self.wait,
                expect=self.expect,
                arrive=self.arrive,
                MBarrierLayout=object,
            ),
            "tma": space(
                async_copy_global_to_shared=self.copy_in,
                async_copy_shared_to_global=self.copy_out,
                store_wait=self.store_wait,
            ),
            "fence_async_shared": self.fence,
            "warpgroup_mma": self.mma,
            "warpgroup_mma_wait": self.mma_wait,
        }

    def warp_specialize(
        self, partitions: list, worker_num_warps: list, worker_num_regs: list
    ) -> None:
        assert len(partitions) == len(worker_num_warps) + 1 == len(worker_num_regs) + 1
        self.scheduler.run([lambda f=f, given=given: f(*given) for f, given in partitions])
        for pending in self.stores.values():
            if pending:
                raise Fault("the program ends with stores that nobody waited for")

    def load(self, pointer: Pointer, mask: Tensor, other: float) -> Tensor:
        inside = torch.where(mask, pointer.offsets, 0)
        if inside.max() >= pointer.values.numel():
            raise Fault("a load beyond the end of its tensor")
        return torch.where(mask, pointer.values[inside], other)

    def allocate(self, dtype: Any, shape: list[int], layout: Any) -> Allocation:
        self.allocations.append(Allocation(dtype, shape, dtype == "barriers"))
        return self.allocations[-1]

    def init(self, barrier: Barrier, count: int) -> None:
        barrier.count = barrier.pending = count

    def wait(self, barrier: Barrier, parity: int) -> None:
        self.scheduler.pause(lambda: barrier.completed(parity))

    def expect(self, barrier: Barrier, size: int) -> None:
        barrier.bytes += size
        self.arrive(barrier)

    def arrive(self, barrier: Barrier, count: int = 1, pred: bool = True) -> None:
        if pred:
            barrier.pending -= count
            barrier.settle()
            self.scheduler.pause()

    def copy_in(self, source: Descriptor, at: list[int], barrier: Barrier, into: Memory) -> None:
        into.value = torch.full(source.box, torch.nan)

        def land() -> None:
            into.value = source.read(*at)
            barrier.bytes -= source.block_type.nbytes
            if barrier.bytes < 0:
                raise Fault("more bytes landed than the barrier expects")
            barrier.settle()

        self.scheduler.landing.append(land)
        self.scheduler.pause()

    def fence(self) -> None:
        for block in (block for allocation in self.allocations for block in allocation.blocks):
            if isinstance(block, Memory) and block.unfenced == threading.get_ident():
                block.unfenced = None

    def copy_out(self, into: Descriptor, at: list[int], source: Memory) -> None:
        if source.unfenced is not None:
            raise Fault("a copy reads what was written without a fence")
        self.stores.setdefault(self.me, []).append((into, at, source))
        self.scheduler.pause()

    def store_wait(self, pendings: int) -> None:
        pending = self.stores.setdefault(self.me, [])
        while len(pending) > pendings:
            into, at, source = pending.pop(0)
            into.write(*at, source.value)

    def mma(
        self, a: Any, b: Any, acc: Registers, use_acc: bool = True, is_async: bool = False
    ) -> Registers:
        a, b = (x if isinstance(x, View) else View(x) for x in (a, b))
        out = Registers(acc.content)

        def product() -> Tensor:
            values = [x.memory.value.permute(x.order) for x in (a, b)]
            return values[0] @ values[1] + (acc.content if use_acc else 0)

        out.product = product
        self.products.setdefault(self.me, []).append(out)
        self.scheduler.pause()
        return out

    def mma_wait(self, num_outstanding: int, deps: tuple[Registers, ...]) -> Registers:
        flying = self.products.setdefault(self.me, [])
        while len(flying) > num_outstanding:
            done = flying.pop(0)
            done.content, done.product = done.product(), None
        return deps[0]


@contextlib.contextmanager
def modelled(module: Any, model: Model, **changed: Any) -> Iterator[None]:
    """`module`'s Gluon functions as plain Python, its constants as numbers, and Gluon itself as `model`."""
    plain = {}
    for name, value in vars(module).items():
        if hasattr(value, "is_gluon"):
            plain[name] = value.fn
        elif type(value).__name__ == "constexpr":
            plain[name] = value.value
    names = plain | model.names() | changed
    before = {name: getattr(module, name) for name in names}
    vars(module).update(names)
    try:
        yield
    finally:
        vars(module).update(before)
