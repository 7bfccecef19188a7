"""Ceilings of a machine as data: achievable FLOP/s per dtype, bandwidths, write-allocate, the cost of a launch."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from smml.errors import UserError


class Ceiling(BaseModel):
    """One achievable rate (or, for the launch, seconds): the median under the best of `settings`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    value: float = Field(gt=0)
    p20: float = Field(gt=0)
    p80: float = Field(gt=0)
    n: int
    unit: str
    settings: dict[str, Any] = {}


class Ceilings(BaseModel):
    """All ceilings of one machine under one torch version. `write_allocate`: see `smml.roofline.Work`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    fingerprint: str
    device: str
    torch: str
    date: datetime
    flops: dict[str, Ceiling]
    unsupported: dict[str, str] = {}
    bandwidth: Ceiling
    cache_bandwidth: Ceiling
    cache_block_bytes: int
    write_allocate: float = Field(ge=0, le=1)
    launch: Ceiling

    def flops_per_s(self, dtype: str) -> float:
        """Achievable FLOP/s of a matrix product in `dtype`; UserError where torch cannot do one here."""
        if dtype not in self.flops:
            why = self.unsupported.get(dtype, "it was not measured")
            raise UserError(
                f"no measured ceiling for dtype {dtype!r} on {self.device}: {why}; known: {', '.join(self.flops)}."
            )
        return self.flops[dtype].value

    @property
    def bandwidth_bytes_per_s(self) -> float:
        """Achievable bytes/s between memory and cores, every byte that moves counted."""
        return self.bandwidth.value

    @property
    def launch_s(self) -> float:
        """Seconds that one tiny operation takes from Python."""
        return self.launch.value
