"""Files with many rows or pictures: jobs and their tables, sources of pictures, shards, sweeps, runs that guide."""

import io
import json
import tarfile
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from PIL import Image

from commands.jobs.merging import merge
from commands.jobs.parts import Job, columns_of, open_job, write_part
from commands.sweeps.document import read_sweep
from commands.sweeps.study import open_study
from core.checkpoints import check_values, load_values
from core.sharded import FACTS, LIST, NOTE, note_list
from datamodules.readers.tags import read_tags
from datamodules.scenes import SceneCaptions
from datamodules.shards import ShardedCaptions
from datamodules.shards.index import scan
from datamodules.shards.writing import write_shards
from datamodules.sources.decoding import decode_pictures
from datamodules.sources.find import find_source
from datamodules.stored_features.pictures import InProportion
from lightning_modules import AttentionRNN, PrefixClassification, load_captioner
from tests.hostile_documents import CAPTIONS, PICTURES, SWEEP
from tests.hostile_readers import DOCUMENTS, READERS, Reader, checkpoint, text

NUMBER, TEXT = pa.float32(), pa.string()
TAGS = pa.schema([("image", TEXT), ("caption", TEXT), ("confidence", NUMBER), ("agreement", NUMBER), ("error", TEXT)])


def tags(rows: Sequence[int] = range(3)) -> pa.Table:
    found = [{"image": PICTURES[n], "caption": CAPTIONS[n], "confidence": 0.5, "agreement": 1.0} for n in rows]
    return pa.Table.from_pylist(found, TAGS)


def small_job() -> Job:
    """Three pictures in two parts."""
    sizes = {"pictures": 3, "rows_per_part": 2, "batch_size": 2}
    return Job(command="tag", settings={"beams": 2}, model="m", source="list s", columns=columns_of(TAGS), **sizes)


@lru_cache
def parts(served: bool) -> dict[str, bytes]:
    """Files of a checkpoint in parts: a captioner's, or one of few weights."""
    from torch.distributed.checkpoint import save

    own = checkpoint() if served else {"state_dict": {"w": torch.arange(60.0).view(6, 10)}, "inference": {}}
    warnings.filterwarnings("ignore", ".*assuming the intent is to save in a single process.*")
    with tempfile.TemporaryDirectory() as folder:
        save({"model": own["state_dict"], "optimizer_0": {"lr": 0.1}}, checkpoint_id=folder, no_dist=True)
        torch.save({name: value for name, value in own.items() if name != "state_dict"}, Path(folder) / FACTS)
        note_list(Path(folder))
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def make_parts(folder: Path, served: bool = False) -> None:
    for name, content in parts(served).items():
        (folder / name).write_bytes(content)


JOB = vars(small_job())


def make_job(folder: Path) -> None:
    job = small_job()
    open_job(folder, job)
    for part in range(job.parts):
        write_part(folder, job, part, tags(job.rows(part)))


def merged(folder: Path) -> None:
    merge([folder], folder / "merged.parquet", verify=True)


def make_tags(folder: Path) -> None:
    pq.write_table(tags(), folder / "t.parquet")


@lru_cache
def picture(kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6, 4), "red").save(file, kind)
    return file.getvalue()


def embedded() -> pa.Table:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.table({"image": pa.array([{"bytes": picture(), "path": None}] * 3, kind), "id": PICTURES})


def make_embedded(folder: Path) -> None:
    pq.write_table(embedded(), folder / "p.parquet", row_group_size=2)


def make_tar(folder: Path) -> None:
    with tarfile.open(folder / "p.tar", "w") as archive:
        for name in PICTURES:
            member = tarfile.TarInfo(name)
            member.size = len(picture())
            archive.addfile(member, io.BytesIO(picture()))


def source(name: str) -> Callable[[Path], object]:
    """Decodes all pictures of a source; what is wrong with one of them is its line in the table."""

    def read(folder: Path) -> object:
        found = find_source([str(folder / name)])
        rows = range(min(len(found), 16))
        batch = decode_pictures(found, rows, InProportion(sides=(4, 8)))
        errors = [error for error in batch["error"] if error is not None]
        assert all("\n" not in error and len(error) < 1000 for error in errors), errors
        return found.digest(), batch["image"], errors

    return read


@lru_cache(maxsize=1)
def shards() -> dict[str, bytes]:
    """A folder of shards."""
    data = SceneCaptions(num_train=3, num_val=1, num_test=1, image_size=64)
    with tempfile.TemporaryDirectory() as folder:
        list(write_shards(data, Path(folder), ("train",), 2))
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def make_shards(folder: Path) -> None:
    for name, content in shards().items():
        (folder / name).write_bytes(content)


def read_sharded(folder: Path) -> object:
    data = ShardedCaptions(root=str(folder))
    examples = [example for split in data.shard_index.splits for example in data.load_examples(split)]
    sizes = [example.image.open().size for example in examples if example.image is not None]
    return sizes, data.tokenizer, data.label_names, data.check_facts()


@lru_cache(maxsize=1)
def guided() -> tuple[AttentionRNN, dict[str, Any]]:
    """A captioner, and the checkpoint of a classifier of the same vocabulary."""
    scenes = SceneCaptions(num_train=6, num_val=2, num_test=2, batch_size=2, feelings=True)
    small = {"image_encoder": "small-conv", "region_dim": 8, "hidden_dim": 8, "word_dim": 8, "attention_dim": 8}
    captioner = AttentionRNN.for_data(scenes, **small)
    module = PrefixClassification.for_data(scenes, word_dim=8, hidden_dim=8)
    captioner.inference = {"method": captioner.method, **scenes.describe()}
    inference = {"method": module.method, **scenes.describe()}
    return captioner, {
        "state_dict": module.state_dict(),
        "hyper_parameters": dict(module.hparams),
        "inference": inference,
    }


def make_control(folder: Path) -> None:
    torch.save(guided()[1], folder / "x.ckpt")


def read_control(folder: Path) -> object:
    """What ``caption --control`` does before the first picture."""
    captioner, _ = guided()
    captioner.use_control(str(folder / "x.ckpt"))
    return captioner.control_for(["sadness", None])


def make_study(folder: Path) -> None:
    (folder / "study.db").write_bytes(study())


@lru_cache(maxsize=1)
def study() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        read_study(Path(folder))
        return (Path(folder) / "study.db").read_bytes()


def read_study(folder: Path) -> object:
    (folder / "s.yaml").write_text(yaml.safe_dump(SWEEP))
    return open_study(read_sweep(folder / "s.yaml"), folder, 0).trials


CONTAINERS: tuple[Reader, ...] = (
    Reader("facts of a job", "job.json", make_job, merged),
    Reader("part of a job", "part-000001.parquet", make_job, merged),
    Reader("tags", "t.parquet", make_tags, lambda folder: read_tags(folder / "t.parquet")),
    text("list of pictures", "l.txt", "".join(f"images/{name}\n" for name in PICTURES), source("l.txt"), True),
    text("table of pictures", "l.csv", "file_name\n" + "".join(f"{name}\n" for name in PICTURES), source("l.csv")),
    text("JSON list of pictures", "l.jsonl", "".join(f'{{"image": "{n}"}}\n' for n in PICTURES), source("l.jsonl")),
    Reader("pictures in Parquet", "p.parquet", make_embedded, source("p.parquet")),
    Reader("pictures in tar", "p.tar", make_tar, source("p.tar")),
    *(
        Reader(f"{name} of shards", name, make_shards, read_sharded)
        for name in ("index.json", "words.json", "train.npy")
    ),
    Reader("shard", "train-000000.tar", make_shards, read_sharded),
    Reader("shard that is there", "train-000000.tar", make_shards, lambda folder: scan(folder / "train-000000.tar")),
    Reader("classifier that guides", "x.ckpt", make_control, read_control),
    text("sweep", "s.yaml", yaml.safe_dump(SWEEP), lambda folder: read_sweep(folder / "s.yaml")),
)
"""Those whose files have many parts."""

STUDY = Reader("study of a sweep", "study.db", make_study, read_study)
"""Takes longer than the others."""

PARTS = (
    Reader("list of a checkpoint's parts", LIST, make_parts, load_values),
    Reader("digest of a checkpoint's parts", NOTE, make_parts, load_values),
    Reader("facts of a checkpoint in parts", FACTS, partial(make_parts, served=True), load_captioner),
    Reader("part of a checkpoint", "*.distcp", make_parts, check_values),
)
"""Of a checkpoint in parts."""

ALL = (*READERS, *CONTAINERS, *PARTS)
"""All readers."""

DOCUMENTS_OF_ALL = {
    **DOCUMENTS,
    "facts of a job": JOB,
    "index.json of shards": json.loads(shards()["index.json"]),
    "words.json of shards": {"red": 2, "circle": 1},
    "sweep": SWEEP,
}
"""Readers whose file is a document, with the document."""


def reader(name: str) -> Reader:
    return next(one for one in ALL if one.name == name)
