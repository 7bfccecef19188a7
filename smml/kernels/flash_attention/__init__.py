"""Exact attention without its matrix of scores: forward and backward, causal or not, grouped heads, any lengths."""

from smml.kernels.flash_attention.builds import builds
from smml.kernels.flash_attention.counts import (
    backward_work,
    extra_bytes,
    unfused_work,
    visible_pairs,
    work,
)
from smml.kernels.flash_attention.operation import WIDEST, attention, flash_attention, reference

__all__ = [
    "WIDEST",
    "attention",
    "backward_work",
    "builds",
    "extra_bytes",
    "flash_attention",
    "reference",
    "unfused_work",
    "visible_pairs",
    "work",
]
