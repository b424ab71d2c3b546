"""Converting data modules, and comparing what was written."""

from datamodules.scenes import SceneCaptions
from datamodules.shards.writing import write_shards

SPLITS = ("train", "val", "test")


def small_scenes(**options):
    sizes = {"num_train": 22, "num_val": 3, "num_test": 3, "batch_size": 3, **options}
    return SceneCaptions(**sizes, feelings=True)


def converted(data, folder, images_per_shard=4, splits=SPLITS):
    list(write_shards(data, folder, splits, images_per_shard))
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
