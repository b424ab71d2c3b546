import gc
import sys
import weakref

import pytest

from core.collection import lasting, paused_collection
from datamodules.scenes import SceneCaptions


def test_it_goes_on_as_it_was_also_after_an_error():
    with pytest.raises(KeyError), paused_collection():
        {}["missing"]
    assert gc.isenabled()
    gc.disable()
    try:
        with paused_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_annotations_are_read_in_the_pause(monkeypatch):
    seen = []
    data = SceneCaptions(num_train=2, num_val=2, num_test=2)
    load = data.load_examples
    monkeypatch.setattr(data, "load_examples", lambda split: seen.append(gc.isenabled()) or load(split))
    data.examples("train")
    assert seen == [False]
    assert gc.isenabled()


def test_what_lasts_is_not_searched_and_later_circles_are(monkeypatch):
    class Circle:
        def __init__(self):
            self.own = self

    monkeypatch.delitem(sys.modules, "triton", raising=False)
    before = gc.get_freeze_count()
    try:
        with lasting():
            kept = [Circle() for _ in range(100)]
        frozen = gc.get_freeze_count() - before
        assert frozen >= len(kept) or before > 200_000
        gone = weakref.ref(Circle())
        assert gone() is not None
        gc.collect()
        assert gone() is None
    finally:
        gc.unfreeze()
        gc.collect()


def test_a_process_of_many_commands_keeps_no_more_than_the_first_imports(monkeypatch):
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    monkeypatch.setattr(gc, "get_freeze_count", lambda: 10**6)
    monkeypatch.setattr(gc, "freeze", lambda: pytest.fail("circles of earlier commands would stay"))
    with lasting():
        pass
