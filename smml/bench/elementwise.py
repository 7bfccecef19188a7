"""Elementwise kernels that the memory bounds: copy, add, and chains of scalings, plain and blocked for the cache."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from smml.bench.setting import Setting
from smml.measure import Record
from smml.roofline import Prediction, chain, elementwise

if TYPE_CHECKING:  # torch takes seconds to import
    from torch import Tensor


def run(setting: Setting) -> Iterator[Record]:
    """Copy, add, then each chain length of the profile plain, and the longest one blocked."""
    yield copy(setting)
    yield add(setting)
    for length in setting.profile.chain_lengths:
        yield scale_chain(setting, length)
    yield scale_chain(setting, setting.profile.chain_lengths[-1], blocked=True)


def copy(setting: Setting) -> Record:
    """y = x: no FLOPs worth counting (one per element, so that it has a place on the roofline)."""
    x, y = _arrays(setting, 2)
    work = elementwise(x.numel(), x.itemsize)
    return setting.measure(
        "copy", lambda: y.copy_(x), work, inputs={"elements": x.numel()}, unit="B/s"
    )


def add(setting: Setting) -> Record:
    """z = x + y: 1 FLOP an element, 2 elements read, 1 written."""
    import torch

    x, y, z = _arrays(setting, 3)
    work = elementwise(x.numel(), x.itemsize, inputs=2)
    return setting.measure(
        "add", lambda: torch.add(x, y, out=z), work, inputs={"elements": x.numel()}, unit="B/s"
    )


def scale_chain(setting: Setting, length: int, *, blocked: bool = False) -> Record:
    """y = a·x, then y = a·y until `length` products were done on every element.

    Plain: every step streams the array through memory. Blocked: all steps on one cache-sized block, then the
    next block, which moves the bytes of one step only: what a fused kernel does with registers.
    """
    x, y = _arrays(setting, 2)
    elements = x.numel()
    block = setting.ceilings.cache_block_bytes // x.itemsize if blocked else elements
    work = chain(elements, x.itemsize, length, fused=blocked)
    return setting.measure(
        f"chain-{'blocked' if blocked else 'plain'}/{length}",
        lambda: chain_into(y, x, length, block),
        work,
        inputs={"elements": elements, "length": length, "block_elements": block},
        unit="B/s",
        predicted=predict_chain(setting, elements, x.itemsize, length, block),
    )


def chain_into(y: "Tensor", x: "Tensor", length: int, block: int) -> "Tensor":
    """y [N] = 0.999^length · x [N], `block` elements at a time; returns y."""
    import torch

    for source, result in zip(x.split(block), y.split(block), strict=True):
        torch.mul(source, 0.999, out=result)
        for _ in range(length - 1):
            result.mul_(0.999)
    return y


def predict_chain(
    setting: Setting, elements: int, itemsize: int, length: int, block: int
) -> Prediction:
    """Time of a chain in blocks: of each block, the first step goes through memory, the others through the cache.

    Steps are kernels of their own, one after the other, so that their times add. With one block of all
    elements this is the plain chain, whose every step goes through memory.
    """
    roof = setting.roof()
    if block >= elements:
        return roof.predict(chain(elements, itemsize, length))
    first = roof.predict(chain(elements, itemsize, 1))
    rest = elementwise(elements, itemsize, in_place=True) * (length - 1)
    return Prediction(
        compute_s=chain(elements, itemsize, length).flops / roof.peak_flops,
        memory_s=first.memory_s + rest.bytes / setting.ceilings.cache_bandwidth.value,
        launch_s=math.ceil(elements / block) * length * roof.launch_s,
    )


def _arrays(setting: Setting, count: int) -> "list[Tensor]":
    import torch

    generator = torch.Generator(setting.device).manual_seed(0)
    shape = setting.profile.elementwise_elements
    return [
        torch.randn(shape, generator=generator, device=setting.device).to(
            getattr(torch, setting.profile.dtype)
        )
        for _ in range(count)
    ]
