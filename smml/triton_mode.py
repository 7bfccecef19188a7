"""How Triton kernels run in this process: compiled on a GPU, or interpreted where there is none.

Triton reads TRITON_INTERPRET when it is first imported, and torch.compile, torch's FLOP counter and transformers
import it: so this is decided when smml is, without importing torch.
"""

import glob
import importlib.util
import os
import re
from collections.abc import MutableMapping
from pathlib import Path

DEVICES = ("/dev/nvidia[0-9]*", "/dev/dxg")  # Linux; Windows' subsystem for Linux


def interpreted(environ: MutableMapping[str, str] = os.environ) -> bool:
    """Whether kernels are interpreted; sets TRITON_INTERPRET accordingly unless the caller has set it."""
    environ.setdefault("TRITON_INTERPRET", "0" if _torch_has_a_gpu(environ) else "1")
    return environ["TRITON_INTERPRET"] not in ("", "0", "false", "off")


def _torch_has_a_gpu(environ: MutableMapping[str, str]) -> bool:
    if environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1", "none", "NoDevFiles"):
        return False
    if not any(glob.glob(pattern) for pattern in DEVICES):
        return False
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    version = Path(spec.origin).with_name("version.py").read_text()
    return re.search(r"^cuda\b[^=\n]*=\s*'", version, re.MULTILINE) is not None


INTERPRETED = interpreted()


def describe() -> str:
    """One sentence: how kernels run here, and what that can show."""
    if INTERPRETED:
        return "Triton kernels are interpreted here: whether they are right can be seen, how fast cannot."
    return "Triton kernels are compiled for this GPU."
