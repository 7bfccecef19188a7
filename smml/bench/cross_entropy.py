"""Cross-entropy, and linear layer and cross-entropy in one, forward and backward: time and the most memory held.

Peers are PyTorch's own operations, the same compiled, and Liger-Kernel's where it is installed; all agree before any is
timed.
"""

import importlib
import importlib.util
import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from smml.bench.peers import KERNEL, side_by_side
from smml.bench.setting import Setting
from smml.errors import UserError
from smml.hardware import detect
from smml.hardware.reach import thread_count
from smml.measure import MIN_SAMPLES, Record
from smml.measure.peak_memory import peak_memory_bytes
from smml.measure.record import git_commit

if TYPE_CHECKING:  # torch takes seconds to import
    from torch import Tensor

SIZES = {"cpu": (3, 1000), "cuda": (8192, 128_256)}  # rows × classes
LINEAR_SIZES = {"cpu": (8, 16, 500), "cuda": (8192, 2048, 128_256)}  # rows × width × classes
# For a machine whose kernels are interpreted: the same chunks in PyTorch's own operations.
CHUNKED_SIZES = {"cpu": (512, 128, 16_384), "cuda": (8192, 2048, 128_256)}
CHUNKS = {"cpu": 8, "cuda": 4}
BUDGET_S = {"cpu": 0.1, "cuda": 0.3}  # for each call
# An operation that writes over its logits gets new ones for every call. All are filled again when they are used up:
# one slow sample in eight, which moves neither the median nor the 80th percentile.
COPIES = 8
TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 3e-2}

Step = Callable[[], "tuple[Tensor, ...]"]  # loss, then gradients


def run(setting: Setting) -> Iterator[Record]:
    """Bytes or FLOPs a second of every peer and their ratios; of the linear one also the most bytes held."""
    yield from rows_of_logits(setting)
    yield from linear(setting)


def rows_of_logits(setting: Setting) -> Iterator[Record]:
    """Loss and gradient of logits [N, V], counted as one reading and one writing of them."""
    from smml.kernels.cross_entropy_in_place import work

    rows, columns = SIZES[setting.device]
    source, targets = _normal(setting, rows, columns), _targets(setting, rows, columns)
    calls = _logit_steps(setting, source, targets)
    name = f"cross_entropy/{rows}x{columns}"
    _agree(setting, name, calls)
    counted = work(rows, columns, source.itemsize)
    yield from side_by_side(
        setting,
        name,
        calls,
        amount=counted.bytes,
        unit="B/s",
        work=counted,
        inputs={"rows": rows, "columns": columns},
        ours=KERNEL,
        budget_s=BUDGET_S[setting.device],
    )


def linear(setting: Setting) -> Iterator[Record]:
    """Loss and both gradients of hidden [N, D] and weight [V, D]; time, and memory beside the operands."""
    from smml.kernels import linear_cross_entropy as op

    sizes = LINEAR_SIZES[setting.device]
    operands = linear_operands(setting, sizes)
    functions = {KERNEL: op.linear_cross_entropy, "torch": op.reference} | _linear_peers(setting)
    calls = {peer: _step(function, *operands) for peer, function in functions.items()}
    yield from _linear_records(setting, calls, sizes, op.rows_per_chunk(*sizes), KERNEL)


def chunked(setting: Setting) -> list[Record]:
    """The whole matrix of logits against chunks of it in PyTorch's operations: time and memory on any machine.

    Where kernels are compiled, the fused one is a third peer.
    """
    from smml import triton_mode
    from smml.kernels import linear_cross_entropy as op

    sizes = CHUNKED_SIZES[setting.device]
    chunk = sizes[0] // CHUNKS[setting.device]
    operands = linear_operands(setting, sizes)
    calls: dict[str, Step] = {
        "chunked": lambda: op.in_torch(*operands, chunk),
        "torch": _step(op.reference, *operands),
    }
    if not triton_mode.INTERPRETED:
        calls[KERNEL] = _step(lambda *t: op.linear_cross_entropy(*t, chunk=chunk), *operands)
    with thread_count(setting.threads("compute")):
        return list(_linear_records(setting, calls, sizes, chunk, "chunked"))


def _linear_records(
    setting: Setting, calls: dict[str, Step], sizes: tuple[int, int, int], chunk: int, ours: str
) -> Iterator[Record]:
    from smml.kernels import linear_cross_entropy as op

    itemsize = _itemsize(setting)
    shape = "x".join(map(str, sizes))
    _agree(setting, f"linear_cross_entropy/{shape}", calls)
    counted = op.work(*sizes, itemsize, chunk)
    inputs = {"shape": shape, "chunk": chunk}
    yield from side_by_side(
        setting,
        f"linear_cross_entropy/{shape}",
        calls,
        amount=counted.flops,
        unit="FLOP/s",
        work=counted,
        inputs=inputs,
        ours=ours,
        budget_s=BUDGET_S[setting.device],
    )
    predicted = {ours: op.memory_bytes(*sizes, itemsize, chunk)}
    predicted |= {KERNEL: predicted[ours], "torch": op.unfused_memory_bytes(sizes[0], sizes[2])}
    name, held = f"linear_cross_entropy-memory/{shape}", {}
    for peer, call in calls.items():
        held[peer] = sorted(peak_memory_bytes(call, setting.device) for _ in range(MIN_SAMPLES))
        extra = {"unit": "B", "predicted": predicted.get(peer)}
        yield _record(setting, f"{name}/{peer}", held[peer], inputs, **extra)
    shares = sorted(a / b for a, b in zip(held[ours], held["torch"], strict=True))
    yield _record(setting, f"{name}/{ours}-of-torch", shares, inputs, unit="×")


def _record(
    setting: Setting, name: str, values: list[float], inputs: dict[str, Any], **fields: Any
) -> Record:
    """A record of sorted values, of which less is better."""
    return Record(
        name=f"{name}/{setting.profile.dtype}",
        better="lower",
        value=values[len(values) // 2],
        p20=values[0],
        p80=values[-1],
        n=len(values),
        inputs=inputs | {"profile": setting.profile.name, "bound": "capacity"},
        machine=setting.machine_id,
        environment=detect(refresh=True).environment(),
        commit=git_commit(),
        date=datetime.now(UTC).replace(microsecond=0),
        source=setting.source,
        **fields,
    )


def _logit_steps(setting: Setting, source: "Tensor", targets: "Tensor") -> dict[str, Step]:
    """Peer → loss and gradient of the logits; those that write over their logits are given new ones."""
    import torch

    from smml.kernels import cross_entropy as op
    from smml.kernels.cross_entropy_in_place import cross_entropy_in_place

    def fresh(function: Callable[..., Any]) -> Step:
        handed = _handed_out(source)

        def step() -> "tuple[Tensor, ...]":
            logits = next(handed)
            loss = function(logits, targets)
            return loss.detach(), *torch.autograd.grad(loss, logits)

        return step

    found = {
        KERNEL: fresh(cross_entropy_in_place),
        f"{KERNEL}-kept": _step(op.cross_entropy, source, targets),
        "torch": _step(op.reference, source, targets),
    }
    if setting.device.startswith("cuda"):  # on a CPU, compiling takes longer than all the rest
        found["compiled"] = _step(torch.compile(op.reference, dynamic=False), source, targets)
        if importlib.util.find_spec("liger_kernel"):
            liger = importlib.import_module("liger_kernel.transformers")
            found["liger"] = fresh(liger.LigerCrossEntropyLoss())
    return found


def _handed_out(source: "Tensor") -> "Iterator[Tensor]":
    """Copies of `source` that require a gradient and are no leaf, each to be written over."""
    import torch

    class Given(torch.autograd.Function):
        """The logits as the result of an operation, as a model's are."""

        @staticmethod
        def forward(ctx: Any, root: "Tensor", logits: "Tensor") -> "Tensor":
            return logits.detach()

        @staticmethod
        def backward(ctx: Any, gradient: "Tensor") -> tuple[None, None]:
            return None, None

    root = torch.zeros((), device=source.device, requires_grad=True)
    copies = [source.clone() for _ in range(COPIES)]
    for i in itertools.count():
        if i and i % COPIES == 0:
            for copy in copies:
                copy.copy_(source)
        yield Given.apply(root, copies[i % COPIES])


def _linear_peers(setting: Setting) -> dict[str, Callable[..., Any]]:
    import torch

    from smml.kernels import linear_cross_entropy as op

    if not setting.device.startswith("cuda"):
        return {}
    found = {"compiled": torch.compile(op.reference, dynamic=False)}
    if importlib.util.find_spec("liger_kernel"):
        liger = importlib.import_module("liger_kernel.transformers")
        loss = liger.LigerFusedLinearCrossEntropyLoss()
        found["liger"] = lambda hidden, weight, targets: loss(weight, hidden, targets)
    return found


def _step(function: Callable[..., Any], *operands: "Tensor") -> Step:
    """Forward and backward of all operands but the last, the targets."""
    import torch

    leaves = [t.detach().requires_grad_() for t in operands[:-1]]

    def step() -> "tuple[Tensor, ...]":
        loss = function(*leaves, operands[-1])
        return loss.detach(), *torch.autograd.grad(loss, leaves)

    return step


def _agree(setting: Setting, name: str, calls: dict[str, Step]) -> None:
    """Raise UserError unless loss and gradients of every peer equal PyTorch's, up to their dtype's rounding."""
    import torch

    expected = calls["torch"]()
    for peer, call in calls.items():
        for got, want in zip(call(), expected, strict=True):
            off = (got - want).norm(dtype=torch.float32) / want.norm(dtype=torch.float32)
            if not off <= TOLERANCE[setting.profile.dtype]:
                raise UserError(
                    f"{name}: {peer} differs from torch by {off:.2e}: its time would mean nothing. Report it."
                )


def linear_operands(setting: Setting, sizes: tuple[int, int, int]) -> "tuple[Tensor, ...]":
    """hidden [N, D] and weight [V, D], random-normal in the profile's dtype, and targets [N], of sizes (N, D, V)."""
    rows, width, columns = sizes
    weight = _normal(setting, columns, width, seed=1) / width**0.5
    return _normal(setting, rows, width), weight, _targets(setting, rows, columns)


def _targets(setting: Setting, rows: int, columns: int) -> "Tensor":
    import torch

    generator = torch.Generator(setting.device).manual_seed(2)
    return torch.randint(columns, (rows,), generator=generator, device=setting.device)


def _normal(setting: Setting, *shape: int, seed: int = 0) -> "Tensor":
    """Random-normal numbers in the profile's dtype."""
    import torch

    generator = torch.Generator(setting.device).manual_seed(seed)
    numbers = torch.randn(shape, generator=generator, device=setting.device)
    return numbers.to(getattr(torch, setting.profile.dtype))


def _itemsize(setting: Setting) -> int:
    import torch

    return torch.finfo(getattr(torch, setting.profile.dtype)).bits // 8
