"""Self-managed machine learning, measured: the package under the notebooks of this cookbook."""

from smml import (
    triton_mode as triton_mode,
)  # before anything imports triton, which reads its mode once

__version__ = "0.1.0"
