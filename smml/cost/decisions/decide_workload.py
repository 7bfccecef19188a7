"""A decision on compute from what one knows of a model: its name or size, its sequences, perhaps the type that is at hand."""

from typing import Any

from smml.cost.decisions.decide import Option, choose, option
from smml.cost.decisions.decide_memory import ITEM_BYTES, known_model, serving_memory
from smml.cost.decisions.decide_region import Capacity, known_instance, offered, spot_refusal
from smml.cost.decisions.decision import Decision
from smml.cost.decisions.standing import barred
from smml.cost.decisions.throughput import Infeasible
from smml.cost.decisions.workload import Purpose, Workload
from smml.data.catalogue import dtype_key
from smml.errors import UserError
from smml.llama.counts import kv_cache_bytes, parameters

# fp32 master weights and two moments beside bf16 weights and gradients (arXiv:1910.02054).
TRAINED_BYTES = 16


def workload(
    purpose: Purpose,
    *,
    model: str | None = None,
    parameters_used: float | None = None,
    dtype: str = "bf16",
    sequences: int = 1,
    context_tokens: int = 0,
    **asked: Any,
) -> Workload:
    """The workload of a known model or of so many parameters; `asked` are further fields of `Workload`.

    The KV cache of all sequences at full context belongs to each model copy. Raises UserError where neither or both of
    model and parameters are given, or a cache without a model.
    """
    if (model is None) == (parameters_used is None):
        raise UserError("give --model or --parameters, one of them: it is the size that decides.")
    if model is None and context_tokens:
        raise UserError(
            "context_tokens needs --model: a KV cache depends on layers and heads, not on the number of parameters."
        )
    trained = purpose == "training"
    item = ITEM_BYTES[dtype_key(dtype)]
    extra = 0.0
    if model is not None:
        config = known_model(model)
        held = parameters(config)
        parameters_used = held.active
        # A token reads one row of its embeddings; all rows are held.
        extra = (held.total - held.active) * (TRAINED_BYTES if trained else item)
        if not trained:
            extra += kv_cache_bytes(config, sequences, context_tokens, 1) * item
    return Workload(
        purpose,
        parameters_used,
        dtype=dtype,
        bytes_per_parameter=TRAINED_BYTES if trained else item,
        extra_memory_bytes=extra,
        batch_size=1 if trained else sequences,
        **asked,
    )


def decide(
    purpose: Purpose,
    *,
    instance: str | None = None,
    region: str | None = None,
    capacity: Capacity = "on-demand",
    model: str | None = None,
    parameters: float | None = None,
    dtype: str = "bf16",
    sequences: int = 1,
    context_tokens: int = 0,
    **asked: Any,
) -> Decision[Option]:
    """The cheapest compute for it, or where `instance` is named whether that type will do; prices of `region`.

    Raises UserError for an unknown model, type or region.
    """
    wanted = workload(
        purpose,
        model=model,
        parameters_used=parameters,
        dtype=dtype,
        sequences=sequences,
        context_tokens=context_tokens,
        **asked,
    )
    if instance is None:
        return choose(wanted, region=region, capacity=capacity)
    entry = known_instance(instance)
    if capacity == "spot" and wanted.is_service:
        return Decision(None, [spot_refusal()])
    if old := barred(entry):
        return Decision(None, [f"{instance} is no choice any more: {old}."])
    if model is not None and context_tokens and purpose != "training" and entry.accelerator:
        memory = serving_memory(model, instance, context_tokens, sequences, dtype)
        if not memory.fits:
            return Decision(None, [f"{memory}."])
    try:
        found = option(offered(region, capacity)[instance], wanted)
    except Infeasible as reason:
        return Decision(None, [f"{instance}: {reason}."])
    if wanted.budget_usd is not None and found.price.usd > wanted.budget_usd:
        return Decision(
            None, [f"Over budget: {found} cost {found.price}, given are ${wanted.budget_usd:,.2f}."]
        )
    bound = f"{found.rate.bound}-bound, {found.rate.tokens_per_s:,.0f} tokens/s"
    return Decision(found, [f"{found} will do: {bound}."], price=found.price)
