"""The smallest tasks for workers: what runs on every rank is a function of an importable module."""


def sum_of_ranks(times: int = 1) -> float:
    """0 + 1 + … over all ranks, `times` over, by an all-reduce: the same on every rank."""
    import torch
    from torch import distributed

    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    total = torch.tensor(float(times * distributed.get_rank()), device=device)
    distributed.all_reduce(total)
    print(f"rank {distributed.get_rank()} of {distributed.get_world_size()} adds up to {total}")
    return total.item()
