"""The bench of the fused row kernels: each beside a copy of its bytes, forward and backward, once all peers agree."""

import importlib.util
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from made_setting import made_setting

from smml.bench import fused_elementwise as bench
from smml.bench.peers import KERNEL
from smml.errors import UserError
from smml.kernels import swiglu


def test_each_way_is_timed_beside_a_copy_of_as_many_bytes(monkeypatch):
    for shapes in ("ROWS", "RESIDUAL_ROWS", "HEADS"):
        monkeypatch.setattr(bench, shapes, {"cpu": []})
    monkeypatch.setattr(bench, "FEED_FORWARD", {"cpu": [(2, 8)]})
    records = {r.name: r for r in bench.run(made_setting())}
    for way, count in (("forward", swiglu.work), ("backward", swiglu.backward_work)):
        name = f"fused/swiglu/{way}/2x8"
        peers = [KERNEL, "copy", "torch"]
        assert {records[f"{name}/{peer}/float32"].bytes for peer in peers} == {count(2, 8, 4).bytes}
        for peer in peers[1:]:
            assert records[f"{name}/{KERNEL}-to-{peer}/float32"].unit == "×"


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (bench._rms_norm, (2, 8)),
        (bench._add_rms_norm, (2, 8)),
        (bench._rope, (3, 2, 4)),
        (bench._swiglu, (2, 8)),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_peers_that_differ_are_not_timed(make, shape):
    setting = made_setting()
    case = make(setting, shape)
    assert set(bench._forward_calls(setting, case)) == {KERNEL, "torch"}
    gradients = bench._backward_call(setting, case, case.functions[KERNEL])()
    assert len(gradients) == case.differentiable

    def doubled(*operands: torch.Tensor) -> object:
        out = case.functions["torch"](*operands)
        return tuple(2 * y for y in out) if isinstance(out, tuple) else 2 * out

    wrong = replace(case, functions=case.functions | {"wrong": doubled})
    for calls in (bench._forward_calls, bench._backward_calls):
        with pytest.raises(UserError, match="wrong differs from torch by"):
            calls(setting, wrong)


def test_on_a_gpu_without_liger_the_others_are_left(monkeypatch):
    find = importlib.util.find_spec

    def without(name: str, *rest: object) -> object:
        if name == "liger_kernel":
            return None
        if name.startswith("liger_kernel."):
            raise ModuleNotFoundError(name)  # as find_spec does where the package is not there
        return find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    peers = bench._peers(
        SimpleNamespace(device="cuda"), swiglu.swiglu, swiglu.reference, ("swiglu", "Any")
    )
    assert set(peers) == {KERNEL, "torch", "compiled"}
