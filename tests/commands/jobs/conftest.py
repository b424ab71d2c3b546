"""Tiny models and a few pictures, made once."""

import pytest

from tests.commands.jobs.made import make_runs, small_scenes


@pytest.fixture(scope="package")
def runs(tmp_path_factory):
    """Checkpoints: a captioner, the same with other weights, a classifier."""
    return make_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="package")
def pictures(tmp_path_factory):
    """23 pictures in a folder, not to be changed."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "sub").mkdir()
    scenes = small_scenes()
    for number, example in enumerate(scenes.examples("test")):
        scenes.open_image(example).save(folder / ("sub" if number % 2 else "") / f"{number:02d}.png")
    return folder
