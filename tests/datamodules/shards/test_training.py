"""Training from shards: the batches of any other data module, divided without gaps, from any position on."""

import json
import multiprocessing
import pickle
import shutil
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from core.errors import DataError, UserError
from datamodules.loading.samplers import EpochSampler, StreamSampler
from datamodules.shards import ShardedCaptions
from datamodules.shards.index import INDEX


def trainer_at(batches=0, rank=0, world_size=1):
    """What a data module asks a trainer for."""
    progress = SimpleNamespace(total=SimpleNamespace(ready=batches))
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    return SimpleNamespace(global_rank=rank, world_size=world_size, fit_loop=loop, limit_train_batches=1.0)


def batches(data, **position):
    data.trainer = trainer_at(**position)
    return list(data.train_dataloader())


def ids(found):
    return [name for batch in found for name in batch["image_id"]]


def assert_equal(one, other):
    assert len(one) == len(other)
    for mine, theirs in zip(one, other, strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            same = torch.equal(value, theirs[name]) if isinstance(value, torch.Tensor) else value == theirs[name]
            assert same, name


def sharded(shards, **options):
    return ShardedCaptions(root=str(shards), **{"batch_size": 3, "image_size": 64, "num_workers": 0, **options})


def test_batches_are_those_of_the_converted_data_module_bit_for_bit(scenes, shards):
    """In the same order; so are the losses."""
    data = sharded(shards, shuffle_buffer=None, captions_per_image=2)
    scenes.captions_per_image = 2
    assert_equal(batches(scenes), batches(data))
    assert_equal(list(scenes.val_dataloader()), list(data.val_dataloader()))


def test_two_ranks_with_two_workers_share_an_epoch_without_overlap(scenes, shards):
    parts = [ids(batches(sharded(shards, shuffle_buffer=5, num_workers=2), rank=rank, world_size=2)) for rank in (0, 1)]
    assert len(parts[0]) == len(parts[1]) == 11
    assert sorted(parts[0] + parts[1]) == sorted(scenes.references("train"))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_stream_goes_on_with_the_same_bits_whatever_the_workers(shards, workers):
    whole = batches(sharded(shards, shuffle_buffer=5, captions_per_image=1, augment=True))
    data = sharded(shards, shuffle_buffer=5, captions_per_image=1, augment=True, num_workers=workers)
    for seen in (1, 4, 7):
        assert_equal(batches(data, batches=seen), whole[seen:])
    following = batches(data, batches=8)
    assert sorted(ids(following)) == sorted(ids(whole))
    assert ids(following) != ids(whole)


def test_it_travels_to_a_spawned_process(shards):
    data = sharded(shards)
    examples = data.examples("train")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(examples.__getitem__, (21,)) == examples[21]
    assert len(pickle.dumps(examples)) < 2000


def test_examples_are_a_sequence(shards):
    examples = sharded(shards).examples("train")
    assert examples[-1] == examples[21] == list(examples)[21]
    assert examples[20:] == [examples[20], examples[21]]
    with pytest.raises(IndexError):
        examples[22]


# the order

SIZES = (4, 7, 1, 9, 3)


@pytest.mark.parametrize("world_size", [1, 2, 5])
@pytest.mark.parametrize("buffer", [1, 4, 100])
def test_an_epoch_has_every_image_once_and_ranks_are_equally_long(world_size, buffer):
    parts = [
        list(StreamSampler(SIZES, buffer=buffer, seed=2, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    everything = [index for part in parts for index, _ in part]
    assert len(everything) == 24 + -24 % world_size
    assert set(everything) == set(range(24))
    assert {len(part) for part in parts} == {len(everything) // world_size}
    assert parts[-1] != list(StreamSampler(SIZES, buffer=buffer, rank=world_size - 1, world_size=world_size))


def test_it_begins_at_any_position_of_any_epoch():
    sampler = StreamSampler(SIZES, buffer=5, seed=1, rank=1, world_size=2)
    for epoch in (0, 3):
        whole = [(index, epoch) for index in sampler.order(epoch)]
        for start in range(len(whole) + 1):
            sampler.position = lambda epoch=epoch, start=start: (epoch, start)
            assert list(sampler) == whole[start:]
    assert sampler.order(0) != sampler.order(1)


def test_what_is_read_together_lies_together():
    sampler = StreamSampler([10] * 50, buffer=20, seed=1)
    order = np.array(sampler.order(0)).reshape(-1, 20)
    assert all(len(np.unique(window // 10)) == 2 for window in order)
    assert (np.diff(order, axis=1) < 0).mean() > 0.3


def test_memory_does_not_grow_with_the_images():
    peaks = []
    for count in (20, 200):
        tracemalloc.start()
        assert sum(1 for _ in StreamSampler([1000] * count, buffer=2000)) == count * 1000
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 180_000  # a byte an image
    assert issubclass(StreamSampler, EpochSampler)


# damage


@pytest.fixture
def copy(shards, tmp_path):
    return shutil.copytree(shards, tmp_path / "copy")


def test_a_missing_or_cut_archive_is_named(copy):
    path = copy / "train-000002.tar"
    path.write_bytes(path.read_bytes()[:-512])
    with pytest.raises(DataError, match=r"train-000002\.tar: has .* bytes, expected .*; make the shards again"):
        sharded(copy).examples("train")
    path.unlink()
    with pytest.raises(DataError, match=r"train-000002\.tar: no such file"):
        sharded(copy).examples("train")
    assert len(sharded(copy).examples("val")) == 3


def test_a_changed_archive_is_found_by_the_check(copy):
    path = copy / "val-000000.tar"
    content = bytearray(path.read_bytes())
    content[content.index(b'"captions"')] = ord("?")
    path.write_bytes(content)
    data = sharded(copy)
    (problem,) = data.check_facts()[0]
    assert "val-000000.tar: was changed since the index was written" in problem.message
    with pytest.raises(DataError, match=r"val-000000\.tar/00000000\d\.json.*not valid JSON"):
        list(data.examples("val"))


def test_pickles_are_not_read(copy):
    np.save(copy / "train.npy", np.array([[print] * 4] * 22, dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"train\.npy cannot be read as the places of the images"):
        sharded(copy).examples("train")


@pytest.mark.parametrize("place", [(-1, 10, 0, 10), (0, 1 << 40, 0, 1 << 40), (1 << 40, 9, 1 << 40, 9)])
def test_places_outside_of_an_archive_are_refused(copy, place):
    np.save(copy / "train.npy", np.array([place] * 22, np.int64))
    with pytest.raises(DataError, match=r"train-000000\.tar"):
        sharded(copy).examples("train")[0]


@pytest.mark.parametrize("wrong", [{"file": "../x.tar"}, {"images": -1}, {"bytes": "many"}, {"more": 1}])
def test_a_damaged_index_is_refused(copy, wrong):
    index = json.loads((copy / INDEX).read_text())
    index["splits"]["val"]["shards"][0] |= wrong
    (copy / INDEX).write_text(json.dumps(index))
    with pytest.raises(DataError, match=r"index\.json cannot be read as an index of shards"):
        sharded(copy).examples("val")


def test_options_that_make_no_sense_are_refused(tmp_path, copy):
    with pytest.raises(UserError, match="shuffle_buffer is 0: expected at least 1"):
        sharded(tmp_path, shuffle_buffer=0)
    with pytest.raises(UserError, match="give it to data shard instead"):
        sharded(tmp_path, on_bad_image="skip")
    with pytest.raises(DataError, match=r"index\.json: no such file; expected the index of shards"):
        sharded(tmp_path).examples("train")
    index = json.loads((copy / INDEX).read_text())
    del index["splits"]["test"]
    (copy / INDEX).write_text(json.dumps(index))
    with pytest.raises(DataError, match=r"no shards of split 'test' \(there are: train, val\)"):
        sharded(copy).examples("test")
