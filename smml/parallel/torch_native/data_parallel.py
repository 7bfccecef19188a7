"""PyTorch's DistributedDataParallel as a strategy."""

from torch.nn.parallel import DistributedDataParallel

from smml.llama.config import LlamaConfig
from smml.llama.model import Llama
from smml.parallel.collective_tasks import device
from smml.parallel.data_parallel_strategy import DataParallelStrategy
from smml.parallel.strategy import Strategy


class TorchDataParallel(DataParallelStrategy):
    """The same, with torch's buckets and hooks."""

    def __init__(self, config: LlamaConfig, seed: int = 0) -> None:
        Strategy.__init__(self, config, seed)
        self.module = DistributedDataParallel(
            Llama(config, seed=seed).to(device()), broadcast_buffers=False
        )
        self.module.wait = lambda: None  # its backward ends when all is reduced
