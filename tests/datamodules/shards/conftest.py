"""Shards of a few scenes, made once."""

import pytest

from tests.datamodules.shards.made import converted, small_scenes


@pytest.fixture(scope="package")
def scenes():
    return small_scenes()


@pytest.fixture(scope="package")
def shards(scenes, tmp_path_factory):
    """Folder of 22 + 3 + 3 scenes, 4 in an archive, not to be changed."""
    return converted(scenes, tmp_path_factory.mktemp("shards") / "scenes")
