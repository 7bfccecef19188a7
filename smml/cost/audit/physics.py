"""Physical checks: what memory holds, what a chip computes, what bandwidth lets through. Bounds, therefore optimistic.

Devices of one instance are taken to work together without loss, weights and KV cache to have two bytes a number (bf16).
"""

from smml.cost.audit.checks import WORDS, Finding, check
from smml.cost.audit.units import number
from smml.cost.decisions.decision import amount, seconds
from smml.cost.decisions.throughput import Engine, Infeasible, engine
from smml.cost.decisions.workload import Workload
from smml.data import Instance, instance, instances
from smml.errors import UserError
from smml.llama.config import CONFIGS
from smml.plan.shape import ModelShape, named_shape

ITEMSIZE = 2


def kv_bytes_per_token(shape: ModelShape) -> int:
    """Keys and values of one token: 2·L·K·d numbers of two bytes."""
    return 2 * shape.layers * shape.kv_dim * ITEMSIZE


def weight_bytes(shape: ModelShape) -> int:
    """All parameters in two bytes."""
    return shape.parameters * ITEMSIZE


def prefill_flops(shape: ModelShape, tokens: float) -> float:
    """FLOPs of reading a prompt of `tokens`, causal attention, logits left out."""
    logits = 2 * shape.dim * shape.vocab_size
    return tokens * (shape.forward_flops_per_token(tokens, "causal") - logits)


def held(name: str) -> Instance:
    """The instance type of that name; UserError where the catalogue does not hold it."""
    found = instance(name)
    if found is None:
        raise UserError(
            f"instance is {name!r}, which the catalogue does not hold; give one such as {next(iter(instances()))}"
        )
    return found


def engine_of(name: str, shape: ModelShape) -> Engine:
    """What computes in that instance. Raises Infeasible where its software does not run such a model."""
    return engine(held(name), Workload("real-time inference", shape.parameters, tokens_per_s=1.0))


@check("parameter", model=WORDS)
def parameters(claimed: float, model: str) -> Finding:
    """Parameters of a published model, counted from its shape."""
    shape = named_shape(model)
    return Finding(None, f"{model} has {shape.parameters:,} parameters", shape.parameters)


@check("token", model=WORDS)
def context_window(claimed: float, model: str) -> Finding:
    """Positions that a published model was made for."""
    config = CONFIGS.get(model)
    if config is None:
        return Finding(
            "not checkable",
            f"the context window of {model!r}, which is not held; there are {', '.join(CONFIGS)}",
        )
    most = config.max_sequence_length
    said = f"{model} takes {most:,} positions, {claimed:,.0f} are claimed"
    return Finding("agrees" if claimed <= most else "physically impossible", said)


@check(None, model=WORDS, context="token", concurrency="1", instance=WORDS, instances="1")
def kv_cache(
    model: str, context: float, concurrency: float, instance: str, instances: float = 1
) -> Finding:
    """Whether weights and the KV cache of `concurrency` sequences of `context` tokens fit the accelerators' memory."""
    shape = named_shape(model)
    try:
        unit = engine_of(instance, shape)
    except Infeasible as reason:
        return Finding("physically impossible", f"{instance}: {reason}")
    one, weights = kv_bytes_per_token(shape) * context, weight_bytes(shape)
    needed, there = weights + concurrency * one, instances * unit.devices * unit.memory_bytes
    left = there - weights
    said = (
        f"KV cache of one sequence: 2 × {shape.layers} layers × {shape.kv_heads} heads × {shape.head_dim} × "
        f"{ITEMSIZE} B × {context:,.0f} tokens = "
        f"{one / 2**30:.1f} GiB; {concurrency:,.0f} of them and {weights / 2**30:.1f} GiB of weights: "
        f"{needed / 2**30:,.1f} GiB; {instances:,.0f} × {instance} holds {there / 2**30:,.1f} GiB"
    )
    if needed <= there:
        return Finding("agrees", said)
    if left <= 0:
        return Finding("physically impossible", f"{said}: not even the weights")
    tokens = left / kv_bytes_per_token(shape) / max(1.0, concurrency)
    return Finding(
        "physically impossible",
        f"{said}. It holds {left / one:.2g} such sequences, or {concurrency:,.0f} of {tokens:,.0f} tokens",
    )


@check("s", model=WORDS, instance=WORDS, prompt="token", output="token")
def latency_floor(
    claimed: float, model: str, instance: str, prompt: float, output: float = 1
) -> Finding:
    """Least time of an answer: the prompt's FLOPs at the peak, then the weights read once a token of output."""
    shape = named_shape(model)
    try:
        unit = engine_of(instance, shape)
    except Infeasible as reason:
        return Finding("physically impossible", f"{instance}: {reason}")
    return latency(claimed, shape, unit, prompt, output, instance)


def latency(
    claimed: float, shape: ModelShape, unit: Engine, prompt: float, output: float, name: str
) -> Finding:
    """The floor on one engine against the claimed seconds."""
    flops, peak = prefill_flops(shape, prompt), unit.devices * unit.peak_flops
    step = weight_bytes(shape) / (unit.devices * unit.bandwidth_bytes_per_s)
    # The first token of the answer comes out of reading the prompt.
    floor = max(flops / peak, step) + max(0.0, output - 1) * step
    answer = f"; {output:,.0f} of them" if output > 1 else ""
    said = (
        f"reading {prompt:,.0f} tokens: {amount(flops, 'FLOP')} ÷ {amount(peak, 'FLOP/s')} = {seconds(flops / peak)}; "
        f"each token of the answer: {amount(weight_bytes(shape), 'B')} ÷ "
        f"{amount(unit.devices * unit.bandwidth_bytes_per_s, 'B/s')} = {seconds(step)}{answer}: "
        f"{seconds(floor)} at least on {name} at its full peak, {seconds(claimed)} are claimed"
    )
    return (
        Finding("agrees", said)
        if claimed >= floor
        else Finding("physically impossible", said, floor)
    )


def tokens_for(shape: ModelShape, usd: float, entry: Instance, mfu: float) -> float | None:
    """Tokens of training that `usd` pays on that type: dollars → hours → FLOPs → tokens at 6N. None without a price or peak.

    6N: arXiv:2001.08361, section 2.1. Memory is not asked for: an upper bound.
    """
    try:
        unit = engine(entry, Workload("training", shape.parameters, tokens=1.0))
    except Infeasible:
        return None
    if entry.price_usd_per_hour is None:
        return None
    flops = usd / entry.price_usd_per_hour.value * 3600 * unit.devices * unit.peak_flops * mfu
    return flops / shape.model_flops_per_token(1, "6n")


def text_tokens(value: float) -> str:
    """A number of tokens, printed."""
    return f"{number(value)} tokens" if value < 1e6 else amount(value, "tokens")
