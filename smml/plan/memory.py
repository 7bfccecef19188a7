"""Bytes on the fullest rank at the peak of a step, by what they hold. Pure.

Activations: V. Korthikanti et al., arXiv:2205.05198, tables 2 and equations 1 to 6, for GPT; counted the same way for
Llama. State: S. Rajbhandari et al., arXiv:1910.02054. Bytes are what the allocator hands out, its context left out.
"""

from dataclasses import dataclass, fields

from smml.plan.constants import constant
from smml.plan.layout import Job, Layout


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank. `loss`: logits and their copies; `buffers`: gathered parameters, gradients on their way, the
    layer being computed; `fragmentation`: what the allocator cannot reuse.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float
    loss: float
    buffers: float
    fragmentation: float

    @property
    def total(self) -> float:
        """All bytes."""
        return sum(getattr(self, field.name) for field in fields(self))


def layer_activation_bytes(job: Job, layout: Layout) -> tuple[float, float]:
    """Bytes one layer keeps for backward of one micro-batch, and the most that computing it again adds."""
    shape, t, s = job.shape, layout.tensor_parallel, job.sequence_length
    n = layout.micro_batch_size * s / layout.context_parallel
    whole = t if layout.sequence_parallel else 1
    D, F, q, kv = shape.dim, shape.feed_forward_dim, shape.query_dim, shape.kv_dim
    routed = shape.experts_per_token
    # Of each query–key pair: softmax 2, dropout's result 2, mask 1; flash attention keeps a float32 a row.
    scores = 5 * n * s * shape.heads / t if job.attention == "unfused" else 4 * n * shape.heads / t
    if shape.gated:
        # Two norms' inputs and results; queries, keys, values, result; gate, up, their product; eager silu's too.
        activation = 8 if job.engine == "eager" else 6
        every = n * 8 * D / whole + n * (4 * q + 4 * kv + activation * routed * F) / t
        if shape.experts > 1:
            every += n * 4 * routed * D / whole
    else:
        # 10 D whole: two norms' inputs 4, projections' inputs 4, masks 2. Cut: q, k, v, values 8 D; GELU and its input.
        every = n * 10 * D / whole + n * (8 * q + 4 * routed * F) / t
    working = every + scores
    if layout.recompute == "none":
        return every + scores, 0.0
    if layout.recompute == "full":
        return 2 * n * D / whole, working
    if job.attention == "unfused":
        return every, scores
    # The layer's input, queries, values, attention's result, the first product into F; eager also keeps the last one.
    kept = 2 * n * D / whole + n * (4 * q + 2 * kv + 2 * routed * F) / t + scores
    if job.engine == "eager":
        kept += 2 * n * D / whole
    return kept, working - kept


def loss_bytes_held(job: Job, layout: Layout) -> int:
    """Bytes a logit at the peak of the loss: 2, in float32 4, log-softmax 4, its gradient 4.

    Over a vocabulary that is split, exponentials of 4 beside; Megatron works in place; compiled: 2 and the gradient.
    """
    if job.compiled_loss:
        return 6
    if job.engine == "fused":
        return 10
    return 18 if layout.tensor_parallel > 1 else 14


def in_flight(job: Job, layout: Layout) -> float:
    """Layers' activations held by the first stage, in layers of one micro-batch (arXiv:2205.05198, section 4.2.3)."""
    p, v = layout.pipeline_parallel, layout.interleave
    layers = layout.chunk_layers(job.shape) * v
    ahead = p * (1 + (p - 1) / (p * v)) if v > 1 else p
    return layers * min(ahead, layout.micro_batches(job))


def activation_bytes(job: Job, layout: Layout) -> float:
    """Bytes kept for backward by the layers of the first stage, which holds the most micro-batches."""
    return in_flight(job, layout) * layer_activation_bytes(job, layout)[0]


def memory(job: Job, layout: Layout) -> Memory:
    """Bytes of the fullest rank: of the first stage, with most micro-batches in flight, or the last, with the logits."""
    first = _stage(job, layout, last=layout.pipeline_parallel == 1)
    if layout.pipeline_parallel == 1:
        return first
    return max(first, _stage(job, layout, last=True), key=lambda stage: stage.total)


def _stage(job: Job, layout: Layout, last: bool) -> Memory:
    shape, t, p = job.shape, layout.tensor_parallel, layout.pipeline_parallel
    layers = layout.chunk_layers(shape) * layout.interleave
    held, owned = sum(layout.held_parameters(shape)), layout.owned_parameters(shape)
    ends = shape.end_parameters if p == 1 else shape.vocab_size * shape.dim
    layer = (held - ends / t) / layers
    zero, shards = layout.zero_stage, layout.shards
    gathered = zero == 3 and p == 1 and shards > 1

    weights = 2 * held if zero < 3 or (shards > 1 and not gathered) else 0.0
    # Behind a pipeline every rank sums whole gradients over the micro-batches, and keeps its share beside.
    wide = layout.gradient_bytes
    gradients = wide * held if zero < 2 else wide * (owned if p == 1 else held + owned)
    optimizer = 12 * (owned if zero >= 1 else held)

    kept, working = layer_activation_bytes(job, layout)
    flying = in_flight(job, layout)
    if p > 1 and last:
        flying = min(flying, layers * min(2 if layout.interleave > 1 else 1, flying))
    activations = flying * kept

    n = layout.micro_batch_size * job.sequence_length / layout.context_parallel
    loss = n * shape.vocab_size / t * loss_bytes_held(job, layout) if last else 0.0
    # FSDP holds the ends gathered through the loss; in a layer's backward its parameters, the next one's and its
    # gradient in 16 bits and in float32.
    # The logits' input and its gradient are whole on every rank, also where the sequence is split.
    around_loss = (2 * ends / t if gathered else 0.0) + 4 * n * shape.dim * last
    in_layer = working + (2 * ends / t + (2 * 2 + 6) * layer if gathered else 0.0)
    if in_layer > loss + around_loss:
        loss, buffers = 0.0, in_layer
    else:
        buffers = around_loss
    moving = activations + loss + buffers
    return Memory(
        weights,
        gradients,
        optimizer,
        activations,
        loss,
        buffers,
        constant("fragmentation_share") * moving,
    )
