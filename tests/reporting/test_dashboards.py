"""What is drawn reaches W&B and TensorBoard as it is; W&B begins without what nobody asked for."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from reporting import dashboards
from reporting.pictures import png_of_image

IMAGES = np.random.default_rng(0).integers(0, 255, (2, 12, 20, 3), np.uint8)


class Wandb(WandbLogger):
    """Keeps what is in the files that it is given, which W&B copies at once."""

    def __init__(self):
        self.files, self.paths = [], []

    def log_image(self, key, images, step, caption=None):
        self._keep(images)

    def log_metrics(self, metrics, step=None):
        (table,) = metrics.values()
        self._keep([cell._path for row in table.data for cell in row if hasattr(cell, "_path")])

    def _keep(self, paths):
        self.paths += paths
        self.files += [Path(path).read_bytes() for path in paths]


def test_every_logger_gets_the_same_file_and_nothing_is_left(tmp_path):
    wandb, board = Wandb(), TensorBoardLogger(tmp_path, name="", version="board")
    first, second = (png_of_image(image) for image in IMAGES)
    dashboards.log_figure([wandb, board], "val/figure", first, 7, "a caption")
    rows = [["a", IMAGES[0]], ["b", IMAGES[1]]]
    dashboards.log_rows([wandb, board], "val/table", ["name", "the image"], rows, 7)
    board.finalize("success")
    assert wandb.files == [first, first, second]
    assert not any(Path(path).exists() for path in wandb.paths)
    events = EventAccumulator(str(tmp_path / "board"), size_guidance={"images": 0}).Reload()
    shown = {key: events.Images(key) for key in events.Tags()["images"]}
    expected = {"val/figure": first, "val/table_the_image/0": first, "val/table_the_image/1": second}
    assert {key: image.encoded_image_string for key, (image,) in shown.items()} == expected
    assert {(image.step, image.width, image.height) for (image,) in shown.values()} == {(7, 20, 12)}


@pytest.mark.parametrize("launched", [False, True])
def test_a_run_begins_without_the_launcher_unless_somebody_has_imported_it(launched, monkeypatch):
    from wandb.sdk.wandb_run import Run

    before = Run._detect_and_apply_job_inputs
    monkeypatch.delitem(sys.modules, "wandb.sdk.launch", raising=False)
    if launched:
        monkeypatch.setitem(sys.modules, "wandb.sdk.launch", ModuleType("launch"))
    with dashboards._without_launcher():
        assert (Run._detect_and_apply_job_inputs is before) is launched
    assert Run._detect_and_apply_job_inputs is before
