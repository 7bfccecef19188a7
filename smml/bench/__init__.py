"""BENCH: one measurement a file, each yielding records; `smml bench NAME` runs them, notebooks call their parts."""

from smml.bench import ceilings, elementwise, gemm
from smml.bench.setting import Setting

BENCHES = {"gemm": gemm.run, "elementwise": elementwise.run, "ceilings": ceilings.run}

__all__ = ["BENCHES", "Setting", "ceilings", "elementwise", "gemm"]
