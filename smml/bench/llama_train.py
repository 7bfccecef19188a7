"""Training steps of the tiny Llama, beside transformers' Llama with the same weights in the same loop."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from smml.bench.llama_peer import transformers_llama
from smml.bench.peers import OURS, side_by_side
from smml.bench.setting import Setting
from smml.errors import UserError
from smml.llama import counts
from smml.llama.config import CONFIGS
from smml.measure import Record
from smml.roofline import Work

if TYPE_CHECKING:
    from torch import Tensor

    from smml.llama.config import LlamaConfig

BATCH, SEQUENCE = 8, 128
# A sample is several steps, as in a real run: the first one after the other model finds the heap as that left it.
STEPS = 5
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}  # of the two losses on the same weights


def run(setting: Setting) -> Iterator[Record]:
    """Tokens per second of smml's and transformers' Llama, and the ratio; their losses are held against each other."""
    import torch

    from smml.llama.model import Llama
    from smml.train.config import read
    from smml.train.optimizer import adamw
    from smml.train.step import train_step

    shape, device = CONFIGS["tiny"], setting.device
    dtype = getattr(torch, setting.profile.dtype)
    config = read({"model": "tiny", "data": ("topics",)})
    generator = torch.Generator().manual_seed(0)
    batch = torch.randint(shape.vocab_size, (BATCH, SEQUENCE + 1), generator=generator).to(device)
    ours = Llama(shape, device=device)
    theirs = transformers_llama(ours).train()

    class Peer(torch.nn.Module):
        """Called as our model is; logits and loss are transformers' own."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = theirs

        def forward(self, tokens: "Tensor", targets: "Tensor") -> "Tensor":
            """Mean loss; `shift_labels` says that the targets are shifted already."""
            return self.inner(
                input_ids=tokens, labels=targets, shift_labels=targets.contiguous(), use_cache=False
            ).loss

    calls = {}
    for name, model in {OURS: ours, "transformers": Peer()}.items():
        optimizer = adamw(model, config)

        def steps(
            model: torch.nn.Module = model, optimizer: torch.optim.Optimizer = optimizer
        ) -> "Tensor":
            losses = [train_step(model, optimizer, batch, dtype=dtype)[0] for _ in range(STEPS)]
            return losses[0]

        calls[name] = steps
    first = {name: call().item() for name, call in calls.items()}
    apart = abs(first[OURS] - first["transformers"])
    if apart > TOLERANCE[setting.profile.dtype]:
        raise UserError(
            f"losses of the same weights are {first}: they do not do the same work. Report it."
        )
    yield from side_by_side(
        setting,
        "llama-train/tiny",
        calls,
        amount=STEPS * BATCH * SEQUENCE,
        unit="tokens/s",
        work=step_work(shape, BATCH, SEQUENCE) * STEPS,
        inputs={"batch": BATCH, "sequence_length": SEQUENCE, "loss": first[OURS]},
        budget_s=12.0,
    )


def step_work(shape: "LlamaConfig", batch: int, tokens: int) -> Work:
    """A step's model FLOPs, and the bytes that it must move at least: AdamW reads 16 and writes 12 a parameter.

    Parameters, gradients and both moments are read, all but the gradients written, in float32; activations, which
    a cache may hold, are left out.
    """
    count = counts.parameters(shape).total
    return Work(counts.training_flops(shape, batch, tokens), 16 * count, 12 * count, 0)
