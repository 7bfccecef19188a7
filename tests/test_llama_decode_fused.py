"""The bench of decoding: peers are compared after one layer, where rounding is still small."""

from dataclasses import replace

import pytest
import torch

from smml.bench.llama_decode_fused import first_layer, step
from smml.kernels import int4
from smml.llama.config import CONFIGS
from smml.llama.model import Llama

DEEP = replace(
    CONFIGS["tiny"], dim=64, layers=12, heads=4, kv_heads=2, head_dim=16, vocab_size=512, feed_forward_dim=256,
    initializer_range=0.16,  # as large for this width as 0.02 for one of 4096
)  # fmt: skip


@pytest.mark.parametrize("tied", [True, False])
def test_the_first_layer_is_the_models_own(tied):
    model = Llama(replace(DEEP, layers=2, tie_embeddings=tied)).eval()
    one = first_layer(model)
    own = {id(p) for p in model.parameters()}
    assert {id(p) for p in one.parameters()} < own
    x = model.embedding(torch.zeros(1, 1, dtype=torch.int64))
    x = model.layers[0](x, model.rope_cos[:1], model.rope_sin[:1], None, False, None)
    with torch.no_grad():
        wanted = model.ops.rms_norm(x, model.norm.weight, DEEP.rms_norm_eps) @ model.output_weight.T
        torch.testing.assert_close(one(torch.zeros(1, 1, dtype=torch.int64)), wanted)


def test_four_bits_are_near_after_one_layer_and_lost_after_all():
    model, rounded = Llama(DEEP).eval(), Llama(DEEP).eval()
    with torch.no_grad():
        for module in rounded.layers.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.copy_(int4.dequantize(int4.quantize_int4(module.weight, 64)))

    def apart(ours: Llama, theirs: Llama) -> float:
        right = step(theirs, 8, 1)()
        return float((step(ours, 8, 1)() - right).norm() / right.norm())

    assert apart(first_layer(rounded), first_layer(model)) < 0.3 < apart(rounded, model)
