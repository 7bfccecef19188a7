"""The device and number format of a run, and the peak that its speed is held against."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from smml.errors import UserError
from smml.roofline import Roof

if TYPE_CHECKING:
    from smml.hardware import Ceilings, Machine

# Below this a narrower format costs more in conversions than its products gain.
LEAST_GAIN = 1.2


@dataclass(frozen=True)
class Peak:
    """FLOP/s that a share is taken of: the datasheet's dense peak (then the share is MFU), or what was measured."""

    flops_per_s: float
    kind: Literal["datasheet", "measured"]

    @property
    def label(self) -> str:
        """What a share of this peak is called."""
        return "MFU" if self.kind == "datasheet" else "of the measured ceiling"


def choose_device(wanted: str) -> torch.device:
    """The device asked for; auto takes the first GPU that torch can use. UserError where it is not there."""
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    device = torch.device(("cuda" if there else "cpu") if wanted == "auto" else wanted)
    if device.type == "cuda" and (device.index or 0) >= there:
        raise UserError(
            f"device is {wanted!r} and torch can use {there} GPUs here: choose another, or auto."
        )
    return device


def choose_dtype(
    wanted: str, device: torch.device, ceilings: "Ceilings | None" = None
) -> torch.dtype:
    """Number format of the products; auto takes bfloat16 on a GPU that has units for it, and on a CPU whose measured
    product gains at least LEAST_GAIN from it (without `ceilings`: float32).
    """
    if wanted != "auto":
        return getattr(torch, wanted)
    if device.type == "cuda":
        gains = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        known = ceilings.flops if ceilings else {}
        gains = {"bfloat16", "float32"} <= known.keys() and (
            known["bfloat16"].value >= LEAST_GAIN * known["float32"].value
        )
    return torch.bfloat16 if gains else torch.float32


def peak(machine: "Machine", ceilings: "Ceilings | None", dtype: torch.dtype) -> Peak | None:
    """The datasheet's peak where the catalogue knows this device, else the measured ceiling, else None."""
    name = str(dtype).removeprefix("torch.")
    if physical := Roof.physical(machine.accelerator, name):
        return Peak(physical.peak_flops, "datasheet")
    if ceilings and name in ceilings.flops:
        return Peak(ceilings.flops[name].value, "measured")
    return None
