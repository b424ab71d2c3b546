"""The same few pictures as a folder, lists, Parquet files and tar archives."""

import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

NAMES = ("b.png", "a.png", "sub/c.jpg", "sub/deep/d.png", "e f,g.png")


def picture(number, kind="PNG"):
    """Bytes of a picture that differs from the others."""
    file = io.BytesIO()
    Image.new("RGB", (20 + number, 10 + 2 * number), (40 * (number % 6), 10, 200 - number % 200)).save(file, kind)
    return file.getvalue()


def make_folder(folder, names=NAMES):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number, "JPEG" if name.endswith("jpg") else "PNG"))
    return folder


def make_lists(folder, names=NAMES):
    """A list of every kind beside the pictures."""
    (folder / "list.txt").write_text("\n".join(names) + "\n")
    (folder / "list.jsonl").write_text("".join(json.dumps({"image": name, "x": 1}) + "\n" for name in names))
    quoted = [f'"{name}"' for name in names]
    (folder / "list.csv").write_text("\n".join(["id,file_name", *(f"1,{name}" for name in quoted)]) + "\n")
    (folder / "list.tsv").write_text("\n".join(["image\tid", *(f"{name}\t1" for name in names)]) + "\r\n")
    return [folder / f"list.{ending}" for ending in ("txt", "jsonl", "csv", "tsv")]


def make_parquet(path, contents, ids=None, group=2):
    """A table with a column of images as `datasets` writes it."""
    image = pa.array(
        [{"bytes": content, "path": None} for content in contents], pa.struct([("bytes", pa.binary()), ("path", "str")])
    )
    columns = {"image": image, **({} if ids is None else {"image_id": ids}), "caption": ["x"] * len(contents)}
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return path


def make_tar(path, members):
    """An archive of names and contents."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
