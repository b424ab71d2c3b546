"""The order of training images is a function of (seed, epoch); ranks share it without gaps."""

import pytest

from core.seeds import derive_seed
from datamodules.loading.samplers import EpochSampler


def test_every_image_once_in_an_order_of_its_own_each_epoch():
    sampler = EpochSampler(20, shuffle=True, seed=3)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert sorted(first) == [(i, 0) for i in range(20)]
    assert sorted(second) == [(i, 1) for i in range(20)]
    assert [i for i, _ in first] != [i for i, _ in second]
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert list(EpochSampler(20, shuffle=True, seed=4)) != first


def test_position_leaves_out_what_has_been_seen():
    sampler = EpochSampler(10, shuffle=True)
    whole = list(sampler)
    sampler.position = lambda: (0, 4)
    assert len(sampler) == 10
    assert list(sampler) == whole[4:]
    sampler.position = lambda: (2, 0)
    assert {epoch for _, epoch in sampler} == {2}
    assert len(sampler) == 10


@pytest.mark.parametrize(("size", "world"), [(10, 3), (2, 4), (9, 3), (1, 8)])
def test_ranks_train_equally_long_and_see_everything(size, world):
    parts = [list(EpochSampler(size, shuffle=True, seed=1, rank=rank, world_size=world)) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1
    assert {i for part in parts for i, _ in part} == set(range(size))
    assert all(
        len(EpochSampler(size, shuffle=True, seed=1, rank=rank, world_size=world)) == len(part)
        for rank, part in enumerate(parts)
    )


@pytest.mark.parametrize(("size", "world"), [(10, 3), (2, 4)])
def test_evaluation_sees_each_image_exactly_once_over_all_ranks(size, world):
    samplers = [EpochSampler(size, shuffle=False, seed=0, rank=rank, world_size=world) for rank in range(world)]
    assert sorted(i for sampler in samplers for i, _ in sampler) == list(range(size))
    assert [len(list(sampler)) for sampler in samplers] == [len(sampler) for sampler in samplers]


def test_seeds_do_not_collide_for_neighbours():
    assert len({derive_seed(a, b, c) for a in range(5) for b in range(20) for c in range(20)}) == 2000
