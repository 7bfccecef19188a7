"""Who holds what: `Ix_Jy` says that dimension I is cut along mesh axis x, J along y; every pattern, its places, its products."""

from smml.parallel.sharding.pattern import Dimension, Mesh, Sharding, parse, patterns
from smml.parallel.sharding.product import Plan, Step, product

__all__ = [
    "Dimension",
    "Mesh",
    "Plan",
    "Sharding",
    "Step",
    "parse",
    "patterns",
    "product",
]
