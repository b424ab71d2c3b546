import multiprocessing
import os
import signal
from dataclasses import replace

import numpy as np
import pytest

from core.errors import UserError
from core.shards import Shard
from datamodules.stored_features.files import FeatureStore
from datamodules.stored_features.shards import finished_shards, pieces, shard_folder
from datamodules.stored_features.store import EncoderSpec
from tests.datamodules.stored_features.test_store import frozen, make_pictures, watched
from tests.genome import write_genome


@pytest.fixture(params=["small-conv", "frcnn-vg"])
def stores(tmp_path, request):
    """70 pictures, and what computes their features in a cache of its own."""
    features = frozen(tmp_path / "cache")
    if request.param == "frcnn-vg":
        write_genome(tmp_path / "weights")
        features = replace(features, encoder=EncoderSpec.of("frcnn-vg", str(tmp_path / "weights")))
    return make_pictures(tmp_path / "pictures", 70), features, replace(features, cache_dir=tmp_path / "whole")


def content(store: FeatureStore) -> bytes:
    return (store.folder / "features.npy").read_bytes()


def test_parts_put_together_are_the_whole_byte_for_byte(stores):
    examples, parts, whole = stores
    opened: list[int] = []
    for shard in (Shard(2, 2), Shard(1, 2)):
        part = parts.shard(examples, shard)
        assert len(part) == len(shard.rows(70, 32))
    store = parts.store(watched(examples, opened.append))
    assert opened == [], "nothing is computed again"
    assert content(store) == content(whole.store(examples))
    assert not list(parts.cache_dir.glob("*.shard-*-of-2")), "the parts are gone"
    assert parts.shard(examples, Shard(1, 2)).folder == store.folder, "there is nothing left to do"


def test_missing_parts_are_computed(stores):
    examples, parts, whole = stores
    parts.shard(examples, Shard(2, 2))
    opened: list[int] = []
    store = parts.store(watched(examples, opened.append))
    assert opened == list(range(32))
    assert content(store) == content(whole.store(examples))


def test_a_killed_part_goes_on_and_ends_with_the_same_bytes(tmp_path):
    examples = make_pictures(tmp_path / "pictures", 700)
    features, whole = frozen(tmp_path / "cache"), frozen(tmp_path / "whole")

    def deadly(number):
        if number == 690:
            os.kill(os.getpid(), signal.SIGKILL)

    last = Shard(2, 2)
    child = multiprocessing.get_context("fork").Process(target=features.shard, args=(watched(examples, deadly), last))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    opened: list[int] = []
    features.shard(watched(examples, opened.append), last)
    assert last.rows(700, 32).start < opened[0] == 320 + 256
    assert content(features.store(examples)) == content(whole.store(examples))


@pytest.mark.parametrize(("images", "total"), [(70, 1), (70, 2), (118_287, 7), (33, 5), (5, 3)])
def test_parts_cover_every_row_once_and_begin_with_a_batch(images, total):
    rows = [Shard(number, total).rows(images, 32) for number in range(1, total + 1)]
    assert [row for part in rows for row in part] == list(range(images))
    assert all(part.start % 32 == 0 for part in rows)
    assert max(map(len, rows)) - min(map(len, rows)) < 64


def test_parts_of_another_division_are_not_mixed_up(tmp_path):
    store = tmp_path / "store"
    for shard in (Shard(1, 2), Shard(2, 3), Shard(3, 3)):
        folder = shard_folder(store, shard)
        folder.mkdir()
        np.save(folder / "features.npy", np.zeros((len(shard.rows(100, 32)), 1, 1), np.float16))
    cut_off = shard_folder(store, Shard(3, 4))
    cut_off.mkdir()
    np.save(cut_off / "features.npy", np.zeros((1, 1, 1), np.float16))
    assert set(finished_shards(store, 100, 32)) == {Shard(1, 2), Shard(2, 3), Shard(3, 3)}
    found = pieces(store, 100, 32)
    assert [row for piece in found for row in piece.rows] == list(range(100))


def test_what_is_no_part_is_refused(tmp_path):
    for text in ("0/2", "3/2", "1", "a/b", "1/0", "-1/2"):
        with pytest.raises(UserError, match="expected I/N"):
            Shard.parse(text)
    with pytest.raises(UserError, match="40 images make 1 batches of 32: expected at most as many shards"):
        frozen(tmp_path).shard(make_pictures(tmp_path / "pictures", 40), Shard(1, 3))
