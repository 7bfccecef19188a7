"""Self-managed machine learning, measured: the package under the notebooks of this cookbook."""

__version__ = "0.1.0"
