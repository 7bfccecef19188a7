"""Memory that is free now, where a model's weights and caches would go."""

from pathlib import Path

import psutil

from smml.hardware import cgroup


def free_memory_bytes(device: str, root: Path = Path("/")) -> int:
    """Bytes free on a torch device; on "cpu" what the system can give without swapping, within the container's limit."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0]
    available = psutil.virtual_memory().available
    limit = cgroup.memory_limit_bytes(root)
    if limit is None:
        return available
    return max(0, min(available, limit - psutil.Process().memory_info().rss))
