"""Generation with a KV cache, beside transformers' `generate` on the same weights, at batch 1 and 8."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from smml import paths
from smml.bench.llama_peer import transformers_llama
from smml.bench.peers import OURS, side_by_side
from smml.bench.setting import Setting
from smml.errors import UserError
from smml.llama import counts
from smml.llama.config import LlamaConfig
from smml.measure import Record
from smml.roofline import Work

if TYPE_CHECKING:  # torch takes seconds to import: `smml bench` names its benches without it
    from torch import Tensor

BATCHES, PROMPT, NEW = (1, 8), 32, 64


def run(setting: Setting) -> Iterator[Record]:
    """New tokens per second of both at each batch size, and the ratio; in float32 the tokens must be the same."""
    import torch

    from smml.llama import weights
    from smml.llama.generate import generate

    dtype, device = getattr(torch, setting.profile.dtype), setting.device
    ours = weights.load(paths.checkout() / "models" / "tiny", device=device, dtype=dtype)
    theirs = transformers_llama(ours).eval()
    shape = ours.config
    for batch in BATCHES:
        generator = torch.Generator().manual_seed(batch)
        prompts = torch.randint(2, shape.vocab_size, (batch, PROMPT), generator=generator).to(
            device
        )
        mask = torch.ones_like(prompts)
        calls = {
            OURS: lambda prompts=prompts: generate(ours, prompts, NEW, eos=()),
            "transformers": lambda prompts=prompts, mask=mask: theirs.generate(
                prompts,
                attention_mask=mask,
                max_new_tokens=NEW,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            ),
        }
        tokens = {name: call() for name, call in calls.items()}
        same = _same(tokens[OURS], tokens["transformers"])
        if dtype == torch.float32 and same < 1:
            raise UserError(
                f"only {same:.0%} of the tokens are the same at batch {batch}: report it."
            )
        yield from side_by_side(
            setting,
            f"llama-generate/tiny/batch-{batch}",
            calls,
            amount=batch * NEW,
            unit="tokens/s",
            work=generation_work(shape, batch, PROMPT, NEW, dtype.itemsize),
            inputs={"batch": batch, "prompt": PROMPT, "new": NEW, "same_tokens": same},
            budget_s=4.0,
        )


def generation_work(shape: LlamaConfig, batch: int, prompt: int, new: int, itemsize: int) -> Work:
    """Reading the prompts once, then a step for every new token but the first, which the prompts' pass gives."""
    lengths = range(prompt, prompt + new - 1)
    steps = [counts.decode_bytes(shape, batch, past, itemsize) for past in lengths]
    flops = counts.prefill_flops(shape, batch, prompt)
    flops += sum(counts.decode_flops(shape, batch, past) for past in lengths)
    first = counts.parameters(shape).active * itemsize
    written = counts.kv_cache_bytes(shape, batch, prompt, itemsize) + sum(
        s.kv_written for s in steps
    )
    return Work(flops, first + sum(s.weights + s.kv_read for s in steps), written, 0)


def _same(one: "Tensor", other: "Tensor") -> float:
    """Share of equal tokens; 0 where the lengths differ."""
    return float((one == other).double().mean()) if one.shape == other.shape else 0.0
