"""Bytes that everything but the products moves through device memory, counted kernel by kernel. Pure.

r and w are bytes read and written an element; bf16 is 2, float32 4. Eager PyTorch runs RMSNorm and the rotation in
float32 steps of their own; torch.compile fuses the norms, additions and SwiGLU, but not the rotation, which Llama's
published code does on complex numbers; hand-fused kernels (Megatron, Transformer Engine) fuse that too.
"""

from dataclasses import dataclass

from smml.plan.layout import Job, Layout


@dataclass(frozen=True)
class Traffic:
    """Bytes and kernels of one layer, one micro-batch, one direction."""

    bytes: float
    kernels: int


@dataclass(frozen=True)
class LayerTraffic:
    """Both directions."""

    forward: Traffic
    backward: Traffic


# Bytes an element of width D (on every tensor-parallel rank unless sequence-parallel), of queries and keys, and of the
# feed-forward width: forward, then backward. Kernels include the products.
_LLAMA = {
    # Norm 32: to float32 r2 w4, square r4 w4, mean r4, times 1/rms r4 w4, back r4 w2, weight r2 w2. Addition r4 w2.
    # Rotation 20: to float32 r2 w4, complex product r4 w4, back r4 w2. SwiGLU: silu r2 w2, product r4 w2.
    # Backward: norm 48, additions of three and two branches' gradients 18, residual 6 each.
    "eager": ((2 * 32 + 2 * 6, 20, 10), (2 * 48 + 18 + 2 * 6, 20, 18), (48, 80)),
    # Addition and norm in one: r2 r2 w2 w2. Backward: r dy, x, residual's gradient, w: 8, and 6 for the branches.
    "compiled": ((2 * 8, 20, 6), (2 * 8 + 6, 20, 10), (22, 40)),
    "fused": ((2 * 8, 4, 6), (2 * 8 + 6, 4, 10), (20, 36)),
}
_GPT = {
    # autocast runs LayerNorm in float32: r2 w4, r4 w4, r4 w2; additions r4 w2; GELU r2 w2; heads apart and together r2 w2.
    # Backward: LayerNorm 6 + 12 + 6 and its sums 6, additions 6, GELU 6, bias sums 2 each.
    "eager": ((2 * 20 + 2 * 6, 4, 4), (2 * 30 + 2 * 6 + 2 * 2, 10, 8), (30, 56)),
    # LayerNorm r2 w2; bias, dropout and addition r2 r2 w2 and a mask of 1. Backward: LayerNorm 8; dropout 5; addition 6.
    "fused": ((2 * 4 + 2 * 7, 4, 4), (2 * 8 + 2 * 5 + 2 * 6 + 2 * 2, 10, 8), (22, 44)),
    # Addition and norm in one, as for Llama; bias sums with them.
    "compiled": ((2 * 8, 4, 4), (2 * 8 + 2 * 2, 10, 8), (20, 40)),
}


def layer_traffic(job: Job, layout: Layout) -> LayerTraffic:
    """Bytes of norms, additions, positions and activation of one layer; attention's scores are apart."""
    shape, t = job.shape, layout.tensor_parallel
    n = layout.micro_batch_size * job.sequence_length / layout.context_parallel
    whole = shape.dim / (t if layout.sequence_parallel else 1)
    routed = shape.experts_per_token
    if shape.gated:
        ahead, back, kernels = _LLAMA[job.engine]
        turned = (shape.query_dim + shape.kv_dim) / t
    else:
        ahead, back, kernels = _GPT[job.engine]
        turned = shape.query_dim / t

    def total(each: tuple[int, int, int]) -> float:
        per_token = (
            each[0] * whole + each[1] * turned + each[2] * routed * shape.feed_forward_dim / t
        )
        if shape.experts > 1:
            per_token += 2 * routed * 4 * whole  # to the experts' order and back: r2 w2 each
        return n * per_token

    return LayerTraffic(Traffic(total(ahead), kernels[0]), Traffic(total(back), kernels[1]))


def score_bytes() -> tuple[int, int]:
    """Bytes a query–key pair and head between the products of unfused attention in 16 bits, forward and backward.

    Forward: masked softmax r2 w2, dropout r2 w2 and mask w1. Backward: dropout r2 w2 and mask r1, softmax r2 r2 w2.
    """
    return 9, 11


def ring_bytes(job: Job, layout: Layout) -> tuple[float, float]:
    """Bytes of merging a ring's partial attention, one layer, forward and backward.

    Every step but the first: its result r2, the sum so far in float32 r4 w4, rescaled w2; in backward the gradients of
    queries, keys and values, r2 r4 w4 each.
    """
    shape, t, c = job.shape, layout.tensor_parallel, layout.context_parallel
    n = layout.micro_batch_size * job.sequence_length / c
    forward = 12 * n * shape.query_dim / t * (c - 1)
    return forward, 10 * n * (shape.query_dim + 2 * shape.kv_dim) / t * (c - 1)


def cast_bytes(job: Job, layout: Layout) -> tuple[float, float]:
    """Bytes of casting one layer's operands to FP8, forward and backward.

    Forward casts each product's input and its weights, backward the gradient of each product's result: largest magnitude
    r2, cast r2 w1. Hand-fused kernels (Transformer Engine) scale by what was largest in earlier steps, cast inside the
    norm or activation and cast weights once a step: a transposed copy w1 r1 forward, gradients r2 w1 w1 backward.
    """
    shape, t = job.shape, layout.tensor_parallel
    n = layout.micro_batch_size * job.sequence_length / layout.context_parallel
    routed = shape.experts_per_token
    F, D, q, kv = shape.feed_forward_dim, shape.dim, shape.query_dim, shape.kv_dim
    inputs = n * (D + q / t + routed * (D + F / t))
    results = n * ((q + 2 * kv) / t + D + routed * (shape.gate_factor * F / t + D))
    if job.engine == "fused":
        return 2 * inputs, 4 * results
    # A rank casts its own shard of gathered weights, else all that it holds.
    held = shape.layer_matrix_weights / t / (layout.shards if layout.zero_stage == 3 else 1)
    return 5 * (inputs + held), 5 * results


def loss_bytes(job: Job) -> int:
    """Bytes a logit of the loss, forward and backward.

    Eager: to float32 r2 w4, log-softmax r4 r4 w4, its gradient r4 w4, back r4 w2; compiled: two reads, read and write.
    """
    return 8 if job.compiled_loss else 32


def optimizer_bytes(layout: Layout) -> int:
    """Bytes a parameter of AdamW's step with its gradient's norm.

    Sharded float32 parameters: norm r4, clip r4 w4, update r16 w12. A float32 master copy beside 16-bit weights adds
    gradients copied r4 w4, weights written 2, gradients set to zero 4.
    """
    return 40 if layout.zero_stage == 3 else 54


def gather_bytes(weight_bytes: int = 2) -> tuple[int, int]:
    """Bytes a parameter that FSDP copies beside the network's own: out of the gathered buffer r2 w2; gradients in r2 w4."""
    return 2 * weight_bytes, weight_bytes + 4
