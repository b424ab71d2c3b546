import json
import resource
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from lightning import LightningModule, Trainer
from torch import nn

from callbacks.pseudo_labels import PseudoLabelWriter, ShardWriter, fingerprint
from core.errors import DataError, UserError
from datamodules.base import CaptionDataModule
from datamodules.readers.probability_files import read_probabilities, read_shards
from datamodules.readers.records import Example

NAMES = ("sad", "calm", "joy")


class Texts(CaptionDataModule):
    """Texts whose number says everything."""

    label_names = NAMES

    def __init__(self, count=50):
        super().__init__(batch_size=4, num_workers=0)
        self.count = count

    def load_examples(self, split):
        return [Example(image_id=f"i{n}", image=None, captions=(f"word {n}",)) for n in range(self.count)]


class Nameless(Texts):
    label_names = ()


class OtherLabels(Texts):
    label_names = ("a", "b", "c")


class Scorer(LightningModule):
    """Scores a picture by its id, so that every row can be checked."""

    def __init__(self, kill_after=None, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.layer = nn.Linear(1, len(NAMES))
        self.kill_after = kill_after
        self.seen = []

    def predict_step(self, batch, batch_idx):
        if self.kill_after is not None and batch_idx == self.kill_after:
            raise KeyboardInterrupt
        self.seen += batch["image_id"]
        numbers = torch.tensor([[float(name[1:])] for name in batch["image_id"]])
        return {"image_id": batch["image_id"], "probabilities": self.layer(numbers / 50).sigmoid()}


def predict(folder, model=None, data=None, **options):
    writer = PseudoLabelWriter(folder=str(folder), rows_per_file=10, rows_per_group=4)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[writer],
        default_root_dir=folder,
        use_distributed_sampler=False,
        **options,
    )
    model = model or Scorer()
    return model, trainer.predict(model, datamodule=data or Texts())


def expected(model, count=50):
    with torch.no_grad():
        return model.layer(torch.arange(count).unsqueeze(1) / 50).sigmoid().numpy()


def test_all_rows_are_there_in_files_of_the_asked_size(tmp_path):
    model, kept = predict(tmp_path / "out")
    assert not kept, "Lightning keeps no outputs"
    found = read_probabilities(tmp_path / "out")
    assert found.label_names == NAMES
    assert found.image_ids == [f"i{n}" for n in range(50)]
    assert np.allclose(found.values, expected(model))
    shards = read_shards(tmp_path / "out")
    assert [pq.read_metadata(path).num_rows for path in shards] == [10] * 5
    assert pq.read_metadata(shards[0]).num_row_groups == 3  # 4 + 4 + 2
    assert pq.read_table(shards[0]).column_names == ["image_id", *NAMES]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["images"], summary["new"], summary["processes"]) == (50, 50, 1)
    assert summary["images_per_s"] > 0


def test_after_an_interruption_only_what_is_missing_is_predicted(tmp_path):
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        predict(tmp_path / "out", Scorer(kill_after=7))  # 28 rows, 20 in complete files
    assert [path.suffix for path in sorted((tmp_path / "out").iterdir())] == [".parquet", ".parquet", ".partial"]
    model, _ = predict(tmp_path / "out")
    assert model.seen == [f"i{n}" for n in range(20, 50)]
    whole, _ = predict(tmp_path / "whole")
    again, other = read_probabilities(tmp_path / "out"), read_probabilities(tmp_path / "whole")
    assert again.image_ids == other.image_ids
    assert np.array_equal(again.values, other.values)
    assert not list((tmp_path / "out").glob("*.partial"))
    # a third call has nothing to do, and says so
    model, _ = predict(tmp_path / "out")
    assert model.seen == []
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["new"] == 30
    assert len(whole.seen) == 50


def test_rows_of_other_weights_or_labels_are_not_mixed(tmp_path):
    predict(tmp_path / "out")
    with pytest.raises(UserError, match=r"of a model with other weights; give another folder, or remove"):
        predict(tmp_path / "out", Scorer(seed=1))
    with pytest.raises(UserError, match="of a model with other labels"):
        predict(tmp_path / "out", data=OtherLabels())
    assert fingerprint(Scorer()) == fingerprint(Scorer()) != fingerprint(Scorer(seed=1))


@pytest.mark.parametrize("count", [50, 21])
def test_two_processes_give_the_same_rows_as_one(tmp_path, count):
    folder = tmp_path / "two"
    if count == 21:  # one image is left for two processes
        predict(folder, data=Texts(20))
    # forked processes need not import everything anew
    predict(folder, data=Texts(count), devices=2, strategy="ddp_fork")
    predict(tmp_path / "one", data=Texts(count))
    two, one = read_probabilities(folder), read_probabilities(tmp_path / "one")
    rows = dict(zip(two.image_ids, two.values, strict=True))
    assert set(rows) == set(one.image_ids)
    assert np.array_equal(np.stack([rows[name] for name in one.image_ids]), one.values)
    assert {path.name[:7] for path in read_shards(folder)} == {"rank000", "rank001"}
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["images"], summary["processes"]) == (count, 2)


def peak_memory() -> int:
    """Most bytes that this process ever had."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    names = [f"label {n}" for n in range(29)]
    writer = ShardWriter(
        tmp_path,
        rank=0,
        label_names=names,
        facts={"label_names": json.dumps(names), "model": "x"},
        rows_per_file=4096,
        rows_per_group=512,
    )
    rows = torch.rand(64, 29)

    def images(start, count):
        for first in range(start, start + count, 64):
            writer.append([str(n) for n in range(first, first + 64)], rows)

    images(0, 20_480)
    before = peak_memory()
    images(20_480, 122_880)  # as many rows as COCO's training images, about 14 MB
    grown = peak_memory() - before
    writer.close()
    assert sum(pq.read_metadata(path).num_rows for path in read_shards(tmp_path)) == 143_360
    assert grown < 8 * 2**20, f"{grown} bytes more"


def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(UserError, match="rows_per_file is 0: expected at least 1"):
        PseudoLabelWriter(rows_per_file=0)
    with pytest.raises(DataError, match=r"no rank\*.parquet in it; write them with python cli.py predict"):
        read_probabilities(tmp_path)

    class Captioner(Scorer):
        def predict_step(self, batch, batch_idx):
            return {"image_id": batch["image_id"], "captions": []}

    with pytest.raises(UserError, match="Captioner predicts no probabilities"):
        predict(tmp_path / "out", Captioner())
    with pytest.raises(UserError, match="neither the checkpoint nor the data has names of labels"):
        predict(tmp_path / "out", data=Nameless())
    (tmp_path / "rank000-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read as a Parquet file"):
        read_probabilities(tmp_path)
