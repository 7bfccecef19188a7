"""Bytes that tensors hold: made, gone, given back by resize_, and under a cap."""

import pytest
import torch

from smml.measure.live_bytes import LiveBytes, MemoryLimit


def test_what_is_made_counts_until_it_is_gone_views_count_nothing():
    with LiveBytes() as live:
        x = torch.zeros(1000)
        view = x.view(10, 100)[2:]
        assert live.now == 4000
        del x
        assert live.now == 4000, "the view holds it"
        del view
    assert (live.now, live.most) == (0, 4000)


def test_a_storage_that_is_resized_counts_what_it_holds():
    with LiveBytes() as live:
        x = torch.zeros(1000)
        x.untyped_storage().resize_(0)
        assert live.now == 0
        y = torch.zeros(500)
        x.untyped_storage().resize_(4000)
        assert live.now == 6000
        del x
        assert (live.now, live.most) == (2000, 6000)
        del y
    assert live.now == 0
    assert torch.zeros(10).untyped_storage().resize_(80).nbytes() == 80, "torch's own is back"


def test_a_storage_made_before_counts_from_its_first_resize():
    x = torch.zeros(1000)
    with LiveBytes() as live:
        x.untyped_storage().resize_(0)
        assert live.now == 0
        x.untyped_storage().resize_(4000)
        assert live.now == 4000


def test_above_the_cap_operations_and_resizes_raise_before_they_take():
    with LiveBytes(5000) as live:
        x = torch.zeros(1000)
        with pytest.raises(MemoryLimit, match="asked for 2,000 bytes, 4,000 of 5,000 are taken"):
            torch.zeros(500)
        x.untyped_storage().resize_(0)
        y = torch.zeros(500)
        with pytest.raises(MemoryLimit, match="resize_ asked for 4,000 bytes, 2,000 of 5,000"):
            x.untyped_storage().resize_(4000)
        assert x.untyped_storage().nbytes() == 0
        assert live.now == y.nbytes


def test_of_a_tensor_that_stands_for_parts_this_ranks_part_counts():
    from torch import distributed
    from torch.distributed.tensor import DTensor, Shard, init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    distributed.init_process_group("fake", rank=0, world_size=4, store=FakeStore())
    try:
        mesh = init_device_mesh("cpu", (4,))
        with LiveBytes() as live:
            x = DTensor.from_local(torch.ones(1000), mesh, [Shard(0)])
            y = x * 2
            assert y.shape == (4000,)
            assert live.now == 8000
            del x, y
    finally:
        distributed.destroy_process_group()
