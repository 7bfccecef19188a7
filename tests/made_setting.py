"""A setting of this machine with ceilings made up, so that a test measures nothing before it starts."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from smml.bench import Setting
from smml.hardware import PROFILES, Ceiling, Ceilings, detect


def ceiling(value: float, unit: str, **settings) -> Ceiling:
    return Ceiling(value=value, p20=value, p80=value, n=9, unit=unit, settings=settings)


def made_setting(*, write_allocate: float = 0.5, **profile: Any) -> Setting:
    """The cpu profile with the sizes given, under a roof of 100 GFLOP/s and 20 GB/s."""
    dtypes = ("float32", "float16", "bfloat16")
    ceilings = Ceilings(
        fingerprint="test",
        device="Test CPU",
        torch="0",
        date=datetime(2026, 1, 2, tzinfo=UTC),
        flops={d: ceiling(1e11, "FLOP/s", threads=1, layout="nn", n=64) for d in dtypes},
        bandwidth=ceiling(2e10, "B/s", threads=1, pattern="in place", array_bytes=2**16),
        cache_bandwidth=ceiling(1e11, "B/s", threads=1, pattern="in place", array_bytes=2**12),
        cache_block_bytes=2**10,
        write_allocate=write_allocate,
        launch=ceiling(1e-6, "s"),
    )
    return Setting(detect(), replace(PROFILES["cpu"], **profile), ceilings, "test")
