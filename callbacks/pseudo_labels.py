"""Writing the predictions of a classifier for very many images: Parquet, file by file, so that a kill costs little.

Letters: B images of a batch, C labels.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from core.errors import UserError
from core.files import write_json
from core.text import visible
from datamodules.base import CaptionDataModule
from datamodules.readers.probability_files import read_shards, shard_facts
from lightning_modules.base import BaseModule


class PseudoLabelWriter(Callback):
    """Writes the probabilities of all labels that `predict` gives, one row an image.

    The files are ``FOLDER/rankRRR-NNNNN.parquet`` with a column ``image_id`` (text) and one column a label (float32); a
    file appears under its name when it is complete. A prediction that is called again with the same folder and model
    skips the images of the complete files, whatever the number of processes was. Rows go to the disk in groups,
    and nothing else is kept, so memory does not grow with the number of images. ``FOLDER/summary.json`` holds the
    number of images and the speed.

    Args:
        folder: where the files go; None: ``pseudo_labels`` in the run's folder, which `predict` makes anew each time
            unless it is told ``--run_dir``.
        rows_per_file: images of one file: what a kill costs at most, for each process.
        rows_per_group: images that are written at once.

    Raises:
        UserError: a number is below 1.
    """

    def __init__(self, *, folder: str | None = None, rows_per_file: int = 4096, rows_per_group: int = 512) -> None:
        for name, value in (("rows_per_file", rows_per_file), ("rows_per_group", rows_per_group)):
            if value < 1:
                raise UserError(f"{name} is {value}: expected at least 1")
        self.given, self.rows_per_file, self.rows_per_group = folder, rows_per_file, rows_per_group
        self.folder = Path()
        self._shards: ShardWriter | None = None
        self._images, self._start = 0, 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Has the data module skip images that are done; they are looked up once the model is loaded."""
        if stage != "predict":
            return
        # every rank must mean the same folder
        given = self.given or str(Path(trainer.default_root_dir) / "pseudo_labels")
        self.folder = Path(trainer.strategy.broadcast(given))
        self._shards, self._images = None, 0
        datamodule = trainer.datamodule  # type: ignore[attr-defined]  # Trainer sets it at run time
        if isinstance(datamodule, CaptionDataModule):
            datamodule.skip_predicted(lambda: self._begin(trainer, pl_module))
        # Lightning would keep every batch's output until the end
        trainer.predict_loop.return_predictions = False

    def _begin(self, trainer: Trainer, module: LightningModule) -> set[str]:
        """Opens the folder; returns the ids of the images that are done."""
        names = _label_names(trainer, module)
        facts = {"label_names": json.dumps(names), "model": fingerprint(module)}
        done: set[str] = set()
        for path in read_shards(self.folder):
            found = shard_facts(path)
            for key, what in (("label_names", "labels"), ("model", "weights")):
                if found.get(key) != facts[key]:
                    raise UserError(
                        f"{path}: it is of a model with other {what}; give another folder, or remove {self.folder}"
                    )
            done.update(pq.read_table(path, columns=["image_id"])["image_id"].to_pylist())
        trainer.strategy.barrier("pseudo-labels: all files seen")  # before anybody writes the next one
        self.folder.mkdir(parents=True, exist_ok=True)
        self._shards = ShardWriter(
            self.folder,
            rank=trainer.global_rank,
            label_names=names,
            facts=facts,
            rows_per_file=self.rows_per_file,
            rows_per_group=self.rows_per_group,
        )
        if done:
            rank_zero_info(visible(f"pseudo-labels: {len(done)} images are in {self.folder} already and are skipped"))
        return done

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        if self._shards is None:  # a loader without our data module
            self._begin(trainer, pl_module)
        self._start = time.perf_counter()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Hands a batch on to the disk.

        Raises:
            UserError: the model gives no probabilities, or the disk is full.
        """
        if not isinstance(outputs, Mapping) or "probabilities" not in outputs:
            raise UserError(f"{type(pl_module).__name__} predicts no probabilities: give a run of a classifier")
        assert self._shards is not None, "the run began"
        self._shards.append(outputs["image_id"], outputs["probabilities"])
        self._images += len(outputs["image_id"])

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Completes the last file; reports how many images there are and the speed."""
        assert self._shards is not None, "the run began"
        self._shards.close()
        seconds = time.perf_counter() - self._start
        trainer.strategy.barrier("pseudo-labels: all files complete")
        mine = torch.tensor(float(self._images), device=pl_module.device)
        images = int(trainer.strategy.reduce(mine, reduce_op="sum"))
        if trainer.is_global_zero:
            self._report(images, seconds, trainer.world_size)
        self._shards = None

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reports when nothing was left to do; Lightning calls no other hook then."""
        datamodule = trainer.datamodule  # type: ignore[attr-defined]  # Trainer sets it at run time
        if stage != "predict" or not isinstance(datamodule, CaptionDataModule):
            return
        datamodule.skip_predicted(None)
        if self._shards is not None and trainer.is_global_zero:
            self._report(0, 0.0, trainer.world_size)

    def _report(self, images: int, seconds: float, processes: int) -> None:
        ids = pa.concat_tables(pq.read_table(path, columns=["image_id"]) for path in read_shards(self.folder))
        total = pc.count_distinct(ids["image_id"]).as_py()
        speed = images / seconds if images else None
        if images or not (self.folder / "summary.json").is_file():
            summary = {"images": total, "new": images, "processes": processes, "images_per_s": speed}
            write_json(self.folder / "summary.json", summary)
        pace = f", {speed:.1f} images/s with {processes} process{'es'[: 2 * (processes > 1)]}" if speed else ""
        rank_zero_info(visible(f"pseudo-labels: {total} images in {self.folder}, {images} of them new{pace}"))


class ShardWriter:
    """Parquet files of one process, each under its name when it is complete.

    Args:
        folder: where they go.
        rank: this process.
        label_names: C names of columns.
        facts: what is noted in every file.
        rows_per_file: images of a file.
        rows_per_group: images that are written at once.
    """

    def __init__(
        self,
        folder: Path,
        *,
        rank: int,
        label_names: Sequence[str],
        facts: Mapping[str, str],
        rows_per_file: int,
        rows_per_group: int,
    ) -> None:
        self.folder, self.rank = folder, rank
        self.rows_per_file, self.rows_per_group = rows_per_file, rows_per_group
        columns = [pa.field("image_id", pa.string()), *(pa.field(name, pa.float32()) for name in label_names)]
        self._schema = pa.schema(columns, metadata=dict(facts))
        self._writer: pq.ParquetWriter | None = None
        self._path = Path()
        self._rows = 0
        self._ids: list[str] = []
        self._scores: list[Tensor] = []
        for path in folder.glob(f"rank{rank:03d}-*.partial"):
            path.unlink()  # what a killed run left behind

    def append(self, image_ids: Sequence[str], probabilities: Tensor) -> None:
        """Takes the rows of a batch.

        Args:
            image_ids: B ids.
            probabilities: `(B, C)` in [0, 1].
        """
        if probabilities.shape != (len(image_ids), len(self._schema) - 1):
            wanted = (len(image_ids), len(self._schema) - 1)
            raise UserError(f"the model gave probabilities of shape {tuple(probabilities.shape)}, expected {wanted}")
        self._ids += map(str, image_ids)
        self._scores.append(probabilities.detach().float().cpu())
        while len(self._ids) >= self.rows_per_group:
            self._write(self.rows_per_group)

    def close(self) -> None:
        """Writes what is left and completes the file."""
        while self._ids:
            self._write(self.rows_per_group)
        self._complete()

    def _write(self, most: int) -> None:
        """Writes the next group, at most as many rows as its file still takes."""
        count = min(most, len(self._ids), self.rows_per_file - self._rows)
        scores = torch.cat(self._scores)
        columns = [pa.array(self._ids[:count], pa.string()), *(pa.array(row.numpy()) for row in scores[:count].T)]
        self._ids, self._scores = self._ids[count:], [scores[count:]]
        try:
            if self._writer is None:
                self._path = self.folder / f"{self._next_name()}.partial"
                self._writer = pq.ParquetWriter(self._path, self._schema)
            self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema), row_group_size=count)
            self._rows += count
            if self._rows >= self.rows_per_file:
                self._complete()
        except OSError as error:
            raise UserError(
                f"{self.folder}: cannot be written ({error}); free some space, then call it again"
            ) from error

    def _next_name(self) -> str:
        taken = [int(path.stem.rpartition("-")[2]) for path in self.folder.glob(f"rank{self.rank:03d}-*.parquet")]
        return f"rank{self.rank:03d}-{max(taken, default=-1) + 1:05d}.parquet"

    def _complete(self) -> None:
        """Closes the file and gives it its name, which it only has when all of it is on the disk."""
        if self._writer is None:
            return
        self._writer.close()
        with self._path.open("rb") as file:
            os.fsync(file.fileno())
        self._path.replace(self._path.with_suffix(""))
        self._writer, self._rows = None, 0


def fingerprint(module: torch.nn.Module) -> str:
    """A digest of all tensors of a model: equal for the same weights, wherever they were read from."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def model_labels(module: LightningModule) -> list[str]:
    """Names of the labels that a model was trained with; empty when it knows none."""
    return list(module.inference.get("label_names", ())) if isinstance(module, BaseModule) else []


def _label_names(trainer: Trainer, module: LightningModule) -> list[str]:
    """The model's labels, else those of the data.

    Raises:
        UserError: neither knows them.
    """
    datamodule = trainer.datamodule  # type: ignore[attr-defined]  # Trainer sets it at run time
    of_data = datamodule.label_names if isinstance(datamodule, CaptionDataModule) else ()
    names = model_labels(module) or list(of_data)
    if not names:
        raise UserError("neither the checkpoint nor the data has names of labels: give a run of a classifier")
    if "image_id" in names or len(set(names)) < len(names):
        raise UserError(f"labels {', '.join(names[:12])}: expected different names, none of them image_id")
    return names
