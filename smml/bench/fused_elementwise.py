"""RMSNorm, residual and RMSNorm, rotary embedding and SwiGLU, forward and backward, beside a copy of as many bytes.

The copy is the limit: none of these operations does enough arithmetic to matter. Peers are PyTorch's own operations, the
same compiled, and Liger-Kernel's where it is installed and takes the same operands; all agree before any is timed.
"""

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smml.bench.cuda_graph import captured, captured_after
from smml.bench.peers import KERNEL, side_by_side
from smml.bench.setting import Setting
from smml.errors import UserError
from smml.measure import Record
from smml.roofline import Work

if TYPE_CHECKING:  # torch takes seconds to import
    from torch import Tensor

EPS = 1e-5
# Tokens × width of a Llama's stream; tokens × heads × width of queries and keys; tokens × F. On a GPU each tensor is
# larger than its cache.
ROWS = {
    "cpu": [(4, 64)],
    "cuda": [(16_384, 2048), (16_384, 4096), (16_384, 8192), (8192, 32_768)],
}
RESIDUAL_ROWS = {"cpu": [(4, 64)], "cuda": [(16_384, 4096), (16_384, 8192)]}
HEADS = {"cpu": [(4, 3, 16)], "cuda": [(16_384, 40, 64), (16_384, 40, 128)]}
KV_HEADS = 8  # whose values stand beside queries and keys and are not turned
FEED_FORWARD = {"cpu": [(4, 64)], "cuda": [(16_384, 8192), (16_384, 14_336)]}
BUDGET_S = {"cpu": 0.02, "cuda": 0.3}  # for each call
# ‖difference‖ ÷ ‖result‖ of a peer: in backward, peers round at different places.
TOLERANCE = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 2e-2}

Function = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """One operation at one shape: peers by name, operands (those that want gradients first), both counts."""

    name: str
    functions: dict[str, Function]
    operands: "tuple[Tensor, ...]"
    differentiable: int
    work: Work
    backward_work: Work


def run(setting: Setting) -> Iterator[Record]:
    """Bytes a second of every peer of every operation, forward, then backward, and ratios; see `side_by_side`."""
    import torch

    for make, shapes in (
        (_rms_norm, ROWS),
        (_add_rms_norm, RESIDUAL_ROWS),
        (_rope, HEADS),
        (_swiglu, FEED_FORWARD),
    ):
        for index, shape in enumerate(shapes[setting.device]):
            case = make(setting, shape)
            if index:  # a shape takes the compiler seconds, and one says how its code compares
                case.functions.pop("compiled", None)
            yield from _compare(setting, case, "forward", _forward_calls(setting, case), case.work)
            calls = _backward_calls(setting, case)
            yield from _compare(setting, case, "backward", calls, case.backward_work)
            del case, calls
            torch.compiler.reset()  # a compiled function is one of a shape; nothing of it is used again


def _compare(
    setting: Setting, case: Case, way: str, calls: dict[str, Callable[[], object]], work: Work
) -> Iterator[Record]:
    operation, shape = case.name.split("/")
    yield from side_by_side(
        setting,
        f"fused/{operation}/{way}/{shape}",
        {"copy": _copy(setting, int(work.bytes))} | calls,
        amount=work.bytes,
        unit="B/s",
        work=work,
        inputs={"shape": shape, "way": way},
        ours=KERNEL,
        budget_s=BUDGET_S[setting.device],
    )


def _copy(setting: Setting, moved: int) -> Callable[[], object]:
    """A copy that reads half of `moved` bytes and writes the other half."""
    import torch

    generator = torch.Generator(setting.device).manual_seed(1)
    source = torch.randn(moved // 8, generator=generator, device=setting.device)
    result = torch.empty_like(source)
    return captured(lambda: result.copy_(source), setting.device)


def _forward_calls(setting: Setting, case: Case) -> dict[str, Callable[[], object]]:
    """Peer → call without autograd, captured as a graph; raises UserError where two peers differ."""
    import torch

    def bound(function: Function) -> Callable[[], object]:
        def call() -> object:
            with torch.no_grad():
                return function(*case.operands)

        return call

    calls = {peer: bound(function) for peer, function in case.functions.items()}
    _agree(setting, f"{case.name} forward", {peer: call() for peer, call in calls.items()})
    return {peer: captured(call, setting.device) for peer, call in calls.items()}


def _backward_calls(setting: Setting, case: Case) -> dict[str, Callable[[], object]]:
    """Peer → call that takes the operands' gradients, captured as a graph; raises UserError where two peers differ."""
    found = {peer: _backward_call(setting, case, f) for peer, f in case.functions.items()}
    _agree(setting, f"{case.name} backward", {peer: call() for peer, call in found.items()})
    return found


def _backward_call(setting: Setting, case: Case, function: Function) -> Callable[[], object]:
    """A backward pass that can be repeated, and returns the gradients."""
    import torch
    from torch._functorch import config

    operands = [t.detach() for t in case.operands]
    wanted = [t.requires_grad_() for t in operands[: case.differentiable]]

    def prepared() -> Callable[[], object]:
        # A compiled backward pass would otherwise write over what it was given, and run only once.
        with config.patch(donated_buffer=False):
            outputs = function(*operands)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        grads = [_normal(setting, *y.shape, seed=10 + i) for i, y in enumerate(outputs)]
        return lambda: torch.autograd.grad(outputs, wanted, grads, retain_graph=True)

    return captured_after(prepared, setting.device)


def _agree(setting: Setting, name: str, results: dict[str, Any]) -> None:
    """Raise UserError unless every peer's results equal PyTorch's, up to their dtype's rounding."""
    import torch

    expected = results["torch"]
    for peer, found in results.items():
        pairs = (
            zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]
        )
        for got, want in pairs:
            off = (got - want).norm(dtype=torch.float32) / want.norm(dtype=torch.float32)
            if not off <= TOLERANCE[setting.profile.dtype]:
                raise UserError(
                    f"{name}: {peer} differs from torch by {off:.2e}: its time would mean nothing. Report it."
                )


def _peers(
    setting: Setting,
    ours: Function,
    reference: Function,
    liger: tuple[str, str] | None,
    *extra: Any,
) -> dict[str, Function]:
    """Peers of one operation; `liger` names module and class of Liger-Kernel's, `extra` its last arguments."""
    import torch

    found = {KERNEL: ours, "torch": reference}
    if setting.device.startswith("cuda"):  # on a CPU, compiling takes longer than all the rest
        found["compiled"] = torch.compile(reference, dynamic=False)
        # The package first: asked for a module of a package that is not there, find_spec raises.
        if liger and importlib.util.find_spec("liger_kernel"):
            module = f"liger_kernel.ops.{liger[0]}"
            found_module = importlib.util.find_spec(module) and importlib.import_module(module)
            if hasattr(found_module, liger[1]):  # older versions lack some
                apply = getattr(found_module, liger[1]).apply
                found["liger"] = lambda *operands: apply(*operands, *extra)
    return found


def _rms_norm(setting: Setting, shape: tuple[int, int]) -> Case:
    from smml.kernels import rms_norm as op

    x, weight = _normal(setting, *shape), _normal(setting, shape[1], seed=1)
    size = (*shape, x.itemsize)
    return Case(
        f"rms_norm/{_name(shape)}",
        _peers(
            setting,
            lambda x, weight: op.rms_norm(x, weight, EPS),
            lambda x, weight: op.reference(x, weight, EPS),
            ("rms_norm", "LigerRMSNormFunction"),
            # Not in place: a gradient that is written over could be used once only.
            *(EPS, 0.0, "llama", False),
        ),
        (x, weight),
        2,
        op.work(*size),
        op.backward_work(*size),
    )


def _add_rms_norm(setting: Setting, shape: tuple[int, int]) -> Case:
    from smml.kernels import add_rms_norm as op

    x, residual = (_normal(setting, *shape, seed=seed) for seed in (0, 2))
    size = (*shape, x.itemsize)
    return Case(
        f"add_rms_norm/{_name(shape)}",
        _peers(
            setting,
            lambda *operands: op.add_rms_norm(*operands, EPS),
            lambda *operands: op.reference(*operands, EPS),
            ("fused_add_rms_norm", "LigerFusedAddRMSNormFunction"),
            EPS,
        ),
        (x, residual, _normal(setting, shape[1], seed=1)),
        3,
        op.work(*size),
        op.backward_work(*size),
    )


def _rope(setting: Setting, shape: tuple[int, int, int]) -> Case:
    """Queries and keys as a view of the product that holds values too. Liger's turns in place, and other layouts."""
    import torch

    from smml.kernels import rope as op

    tokens, heads, width = shape
    x = _normal(setting, 1, tokens, heads + KV_HEADS, width)[:, :, :heads]
    angles = _normal(setting, tokens, width // 2, seed=1).float()
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    work = op.work(*shape, x.itemsize)
    return Case(
        f"rope/{_name(shape)}",
        _peers(setting, op.rope, op.reference, None),
        (x, torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)),
        1,
        work,
        work,
    )


def _swiglu(setting: Setting, shape: tuple[int, int]) -> Case:
    from smml.kernels import swiglu as op

    x = _normal(setting, shape[0], 2 * shape[1])
    size = (*shape, x.itemsize)
    return Case(
        f"swiglu/{_name(shape)}",
        _peers(setting, op.swiglu, op.reference, ("swiglu", "LigerFusedGateUpSiLUMulFunction")),
        (x,),
        1,
        op.work(*size),
        op.backward_work(*size),
    )


def _name(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _normal(setting: Setting, *shape: int, seed: int = 0) -> "Tensor":
    """Random-normal numbers in the profile's dtype."""
    import torch

    generator = torch.Generator(setting.device).manual_seed(seed)
    numbers = torch.randn(shape, generator=generator, device=setting.device)
    return numbers.to(getattr(torch, setting.profile.dtype))
