import gc

import pytest

from core.collection import paused_collection
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
