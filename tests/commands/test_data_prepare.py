"""Data sets in small, in the form in which their publishers offer them, on a server of the loopback interface."""

import hashlib
import io
import json
import tarfile
import zipfile
from dataclasses import replace

import datasets
import pytest
from PIL import Image

import cli
from commands import data
from commands.data_sets import data_class
from core.errors import UserError
from datamodules import coco, flickr8k, socratis
from datamodules.readers import ucm_parts
from datamodules.readers.ucm_names import UCM_CLASSES
from tests.file_server import Server

EMOTIONS = [["happy", "sad", ""], ["None", "", ""]]
UNREACHABLE = "http://127.0.0.1:9"


def picture(shade, ending="PNG"):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (shade % 256, shade // 256, 0)).save(file, ending)
    return file.getvalue()


def zipped(files):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def karpathy(name, files, splits=("train", "val", "test")):
    """A document as Karpathy's and RSICD's authors write it."""
    images = [
        {
            "filename": file,
            "imgid": number,
            "split": splits[number % len(splits)],
            "sentids": [number],
            "sentences": [{"raw": f"there is a {number} .", "tokens": ["there", "is", "a", str(number)],
                           "imgid": number, "sentid": number}],
        }
        for number, file in enumerate(files)
    ]  # fmt: skip
    return json.dumps({"dataset": name, "images": images})


def served(server: Server, archive, content, **changes):
    """The description of a file that the server has now."""
    server.files[archive.path] = content
    return replace(archive, size=len(content), checksum=hashlib.md5(content).hexdigest(), server=server.url, **changes)


@pytest.fixture
def small_coco(file_server, monkeypatch):
    """COCO in small; the zip of Karpathy's split has the files of the other data sets, too."""
    contents = {}
    for split, number in (("train", 1), ("val", 2)):
        images = [{"id": number, "file_name": f"{number:012}.png"}]
        captions = [{"id": number, "image_id": number, "caption": f"picture {number}"}]
        contents[f"annotations/captions_{split}2017.json"] = json.dumps({"images": images, "annotations": captions})
    names = [f"COCO_val2014_{number:012}.png" for number in (1, 2)]
    files = {
        "annotations": zipped(contents),
        "val": zipped({"val2017/000000000002.png": picture(2)}),
        "train": zipped({"train2017/000000000001.png": picture(1)}),
        "karpathy": zipped({f"dataset_{name}.json": karpathy(name, names, ["train", "val"]) for name in ("coco", "x")}),
    }
    counts = {"val": (("val2017", 1),), "train": (("train2017", 1),)}
    archives = {
        part: served(file_server, coco.ARCHIVES[part], content, contents=counts.get(part, coco.ARCHIVES[part].contents))
        for part, content in files.items()
    }
    monkeypatch.setattr(coco, "ARCHIVES", archives)
    return file_server


def run(*args):
    return cli.main(["data", *map(str, args)])


def test_coco_from_nothing(small_coco, tmp_path, capsys):
    root = tmp_path / "coco"
    assert run("prepare", "coco", "--root", root) == 0
    out = capsys.readouterr().out
    assert out.count("fetched and unpacked; checked MD5") == 3
    assert f"python cli.py data check coco --root {root}" in out
    assert "karpathy: missing and not needed; --parts karpathy fetches it" in out
    assert run("check", "coco", "--root", root) == 0
    capsys.readouterr()
    assert run("prepare", "coco", "--root", root, "--base-url", UNREACHABLE) == 0
    out, err = capsys.readouterr()
    assert f"train: {root / 'train2017'}" in out
    assert err == ""


def test_karpathys_split_beside_coco(small_coco, tmp_path, capsys):
    root = tmp_path / "coco"
    assert run("prepare", "coco", "--root", root, "--parts", "val", "train", "karpathy") == 0
    assert sorted(path.name for path in root.iterdir()) == ["dataset_coco.json", "train2017", "val2017"]
    module = data_class("coco")(root=str(root), karpathy="dataset_coco.json")
    assert [len(module.examples(split)) for split in ("train", "val")] == [1, 1]
    assert small_coco.requests == [None] * 3


def test_parts_and_address_from_the_environment(small_coco, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CAPTION_COCO_URL", small_coco.url)
    root = tmp_path / "coco"
    assert run("prepare", "coco", "--root", root, "--parts", "val", "--keep-archives") == 0
    assert sorted(path.name for path in root.iterdir()) == ["val2017", "val2017.zip"]
    monkeypatch.setenv("CAPTION_COCO_URL", small_coco.url + "/nowhere")
    assert run("prepare", "coco", "--root", root) == 1
    out, err = capsys.readouterr()
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "the server answers 404" in line
    assert "annotations: missing. Put annotations_trainval2017.zip into" in out


def test_list_fetches_nothing(small_coco, tmp_path, capsys):
    assert run("prepare", "coco", "--root", tmp_path / "coco", "--list") == 1
    out = capsys.readouterr().out
    assert f"train: missing. Put train2017.zip into '{tmp_path / 'coco'}': {small_coco.url}/zips/train2017.zip" in out
    assert small_coco.requests == []
    assert not (tmp_path / "coco").exists()


def test_a_broken_connection_goes_on_and_a_wrong_checksum_does_not(small_coco, tmp_path, capsys, monkeypatch):
    root = tmp_path / "coco"
    small_coco.cuts, small_coco.codes = [50], [200, *[503] * 9]
    assert run("prepare", "coco", "--root", root, "--parts", "val") == 1
    assert "50 bytes are kept, run the command again to go on" in capsys.readouterr().err
    small_coco.codes, small_coco.requests = [], []
    assert run("prepare", "coco", "--root", root, "--parts", "val") == 0
    assert small_coco.requests == ["bytes=50-"]
    wrong = replace(coco.ARCHIVES["train"], checksum="0" * 64)
    monkeypatch.setitem(coco.ARCHIVES, "train", wrong)
    assert run("prepare", "coco", "--root", root, "--parts", "train") == 1
    assert f"expected {'0' * 64}; the file was removed, run the command again" in capsys.readouterr().err
    assert not (root / "train2017").exists()


def write_ucm_archives(folder):
    """What people have: the publisher's zip of class folders, the table of labels, the authors' zip of captions."""
    folder.mkdir()
    names = [f"{name}{place:02}" for name in UCM_CLASSES for place in range(2)]
    files = {f"UCMerced_LandUse/Images/{name[:-2]}/{name}.tif": picture(n, "TIFF") for n, name in enumerate(names)}
    (folder / "UCMerced_LandUse.zip").write_bytes(zipped({"UCMerced_LandUse/readme.txt": "1", **files}))
    rows = ["IMAGE\\LABEL\tcars\ttrees", *(f"{name}\t{n % 2}\t1" for n, name in enumerate(names))]
    (folder / "LandUse_Multilabeled.txt").write_bytes("\r\n".join(rows).encode())
    numbers = [100 * place + 1 + image for place in range(21) for image in range(2)]
    document = karpathy("UCM", [f"{number}.tif" for number in numbers])
    junk = {"__MACOSX/._dataset.json": "x", "UCM_captions/imgs.rar": "x"}
    (folder / "UCM_captions.zip").write_bytes(zipped({"UCM_captions/dataset.json": document, **junk}))
    return folder


@pytest.mark.parametrize("where", ["in the root", "elsewhere", "unpacked"])
def test_ucm_from_what_people_have(tmp_path, where):
    root = tmp_path / "ucm"
    folder = write_ucm_archives(root if where == "in the root" else tmp_path / "downloads")
    given = [] if where == "in the root" else ["--archives", *sorted(folder.iterdir())]
    if where == "unpacked":
        for name in ("UCMerced_LandUse.zip", "UCM_captions.zip"):
            zipfile.ZipFile(folder / name).extractall(folder)
        root.mkdir()
        (folder / "UCMerced_LandUse").rename(root / "UCMerced_LandUse")
        given = ["--archives", folder / "LandUse_Multilabeled.txt", folder / "UCM_captions" / "dataset.json"]
    assert run("prepare", "ucm_captions", "--root", root, *given, "--base-url", UNREACHABLE) == 0
    assert run("check", "ucm_captions", "--root", root) == 0
    module = data_class("ucm_captions")(root=str(root))
    assert len(module.examples("train")) == 14
    assert module.label_names == ("cars", "trees")
    assert set(module.classes("train").values()) <= set(UCM_CLASSES)
    example = next(example for example in module.examples("train") if example.image_name.endswith("airplane01.tif"))
    assert example.captions == ("there is a 3",)
    assert example.labels == (1, 1)
    assert module.open_image(example).getpixel((0, 0)) == (3, 0, 0)


def test_ucm_from_addresses_and_the_rest_is_said(file_server, tmp_path, capsys, monkeypatch):
    folder, root = write_ucm_archives(tmp_path / "downloads"), tmp_path / "ucm"
    zipfile_ = (folder / "UCMerced_LandUse.zip").read_bytes()
    monkeypatch.setattr(ucm_parts, "IMAGES", served(file_server, ucm_parts.IMAGES, zipfile_))
    labels = (folder / "LandUse_Multilabeled.txt").read_bytes()
    monkeypatch.setattr(ucm_parts, "LABELS", replace(served(file_server, ucm_parts.LABELS, labels), server=UNREACHABLE))
    assert run("prepare", "ucm_captions", "--root", root) == 1
    out, err = capsys.readouterr()
    assert f"images: {root}/UCMerced_LandUse/Images/agricultural/agricultural00.tif" in out
    assert "multi-labels: missing. Put LandUse_Multilabeled.txt" in out
    assert f"captions: missing. Fetch UCM_captions.zip with a browser from {ucm_parts.UCM_CAPTIONS}" in out
    assert "[progress" not in err  # no markup beside the bars
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "LandUse_Multilabeled.txt: cannot be reached" in line
    monkeypatch.setattr(ucm_parts, "LABELS", served(file_server, ucm_parts.LABELS, labels))
    captions = folder / "UCM_captions.zip"
    assert run("prepare", "ucm_captions", "--root", root, "--archives", captions) == 0
    assert f"UCM_captions.zip: 1 file put into {root}" in capsys.readouterr().out
    assert run("check", "ucm_captions", "--root", root) == 0


def test_sydney_needs_no_images_of_ucm(tmp_path, capsys):
    (tmp_path / "dataset.json").write_text(karpathy("sydney", ["1.tif", "613.tif", "7.tif"]))
    assert run("prepare", "ucm_captions", "--root", tmp_path) == 1
    out = capsys.readouterr().out
    assert "images: missing. 0 of 3 are there. Put the archive that dataset.json came from" in out
    assert ucm_parts.SYDNEY_CAPTIONS in out
    assert "multi-labels" not in out
    (tmp_path / "Sydney_captions.zip").write_bytes(
        zipped({f"Sydney_captions/imgs/{n}.tif": picture(n, "TIFF") for n in (1, 613, 7)})
    )
    assert run("prepare", "ucm_captions", "--root", tmp_path) == 0
    assert run("check", "ucm_captions", "--root", tmp_path) == 0


@pytest.mark.parametrize("names", [("path", "captions"), ("filename", "captions")])
def test_rsicd_from_the_parquet_of_the_hub(tmp_path, capsys, names, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub_cache")
    datasets.disable_progress_bars()
    folder, root = tmp_path / "rsicd", tmp_path / "data"
    (tmp_path / "pictures").mkdir()
    for split, start in (("train", 0), ("valid", 4), ("test", 6)):
        rows = range(start, start + 2 + 2 * (split == "train"))
        paths = [tmp_path / "pictures" / f"airport_{number}.png" for number in rows]
        for number, path in zip(rows, paths, strict=True):
            path.write_bytes(picture(number))
        columns = {
            names[0]: [f"rsicd_images/airport_{number}.jpg" for number in rows],
            names[1]: [[f"an airport {number} .", "many planes"] for number in rows],
            "image": [{"bytes": path.read_bytes(), "path": None} for path in paths],
        }
        folder.mkdir(exist_ok=True)
        table = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
        table.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    assert run("prepare", "ucm_captions", "--root", root, "--table", folder) == 0
    assert "8 images (4 train, 2 val, 2 test) put into" in capsys.readouterr().out
    assert run("check", "ucm_captions", "--root", root) == 0
    module = data_class("ucm_captions")(root=str(root))
    example = module.examples("val")[0]
    assert example.captions == ("an airport 4", "many planes")
    assert set(module.classes("val").values()) == {"airport"}
    assert module.open_image(example).getpixel((0, 0)) == (4, 0, 0)
    assert run("prepare", "flickr8k", "--root", root, "--table", folder) == 1
    assert "Flickr8k is not made from tables" in capsys.readouterr().err


FLICKR = {
    "Flickr_8k.trainImages.txt": "1.jpg\n2.jpg\n",
    "Flickr_8k.devImages.txt": "3.jpg\n",
    "Flickr_8k.testImages.txt": "4.jpg\n",
    "Flickr8k.token.txt": "".join(f"{number}.jpg#0\tA dog {number} .\n" for number in range(1, 5)),
    "readme.txt": "x",
}


def test_flickr8k_from_the_copies_that_are_passed_on(file_server, tmp_path, monkeypatch):
    texts = zipped({**FLICKR, "__MACOSX/._CrowdFlowerAnnotations.txt": "x"})
    images = zipped({f"Flicker8k_Dataset/{number}.jpg": picture(number, "JPEG") for number in range(1, 5)})
    archives = {
        "captions": served(file_server, flickr8k.ARCHIVES["captions"], texts),
        "images": served(file_server, flickr8k.ARCHIVES["images"], images, contents=(("Flicker8k_Dataset", 4),)),
    }
    monkeypatch.setattr(flickr8k, "ARCHIVES", archives)
    root = tmp_path / "flickr8k"
    assert run("prepare", "flickr8k", "--root", root) == 0
    assert sorted(path.name for path in root.iterdir()) == ["Flicker8k_Dataset", *sorted(set(FLICKR) - {"readme.txt"})]
    assert run("check", "flickr8k", "--root", root) == 0
    other = tmp_path / "other"
    (tmp_path / "archive.zip").write_bytes(
        zipped({**FLICKR, **{f"Images/{number}.jpg": picture(number, "JPEG") for number in range(1, 5)}})
    )
    assert run("prepare", "flickr8k", "--root", other, "--archives", tmp_path / "archive.zip") == 0
    assert run("check", "flickr8k", "--root", other) == 0


def raw_socratis(names):
    entry = [[n, [f"{n}.jpg", f"caption {n}", e, [None] * 3, {"age": "none"}]] for n in names for e in EMOTIONS]
    document: dict[str, list] = {}
    for key, row in entry:
        document.setdefault(str(key), []).append(row)
    return json.dumps(document).encode()


@pytest.mark.parametrize("form", ["zip", "tar.gz", "tar"])
def test_socratis_from_the_repository_and_the_authors_archive(file_server, tmp_path, capsys, monkeypatch, form):
    content, root = raw_socratis(range(20)), tmp_path / "socratis"
    name = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    archive = replace(served(file_server, socratis.ARCHIVE, content), checksum=name)
    monkeypatch.setattr(socratis, "ARCHIVE", archive)
    assert run("prepare", "socratis", "--root", root) == 1
    out = capsys.readouterr().out
    assert f"annotations: {root / socratis.RAW_FILE}" in out
    assert f"images: missing. 0 of 20 are there. Fetch the authors' archive, {socratis.IMAGES}, with a browser" in out
    images = {f"socratis_images/batch/{n}.jpg": picture(n, "JPEG") for n in range(20)}
    if form == "zip":
        (root / "images.zip").write_bytes(zipped(images))
    else:
        with tarfile.open(root / f"images.{form}", "w:gz" if form == "tar.gz" else "w") as tar:
            for path, data in images.items():
                info = tarfile.TarInfo(path)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    assert run("prepare", "socratis", "--root", root) == 0
    out = capsys.readouterr().out
    assert f"images.{form}: 20 files put into {root}" in out
    assert f"images: 20 in {root}" in out
    assert len(list((root / "images").iterdir())) == 20
    module = data_class("socratis")(root=str(root))
    assert all(example.image is not None for example in module.examples("train"))


def test_real_socratis_has_four_images(data_root, capsys):
    assert run("prepare", "socratis", "--root", data_root / "socratis", "--list") == 1
    assert "images: missing. 4 of 2,065 are there." in capsys.readouterr().out


@pytest.mark.parametrize(("name", "folder"), [("ucm_captions", "ucm"), ("flickr8k", "flickr8k")])
def test_real_folders_are_whole(data_root, name, folder, capsys):
    assert run("prepare", name, "--root", data_root / folder, "--list") == 0
    assert "missing" not in capsys.readouterr().out


def test_archives_that_do_not_help_are_told(tmp_path, capsys):
    (tmp_path / "a.zip").write_bytes(zipped({"readme.txt": "x"}))
    assert run("prepare", "socratis", "--root", tmp_path / "root", "--archives", tmp_path / "a.zip") == 1
    assert "a.zip: has nothing of what is missing (annotations, images)" in capsys.readouterr().err
    assert run("prepare", "socratis", "--root", tmp_path / "root", "--archives", tmp_path / "b.zip") == 1
    assert "b.zip: no such file" in capsys.readouterr().err
    (tmp_path / "a.zip").write_bytes(b"PK")
    assert run("prepare", "socratis", "--root", tmp_path / "root", "--archives", tmp_path / "a.zip") == 1
    assert "a.zip: broken archive" in capsys.readouterr().err
    assert (tmp_path / "a.zip").exists()


def test_no_member_leaves_the_root(tmp_path):
    root = tmp_path / "deep" / "root"
    root.mkdir(parents=True)
    files = {"../../evil/Images/river/../../../river00.tif": picture(1, "TIFF")}
    (root / "UCMerced_LandUse.zip").write_bytes(zipped(files))
    assert run("prepare", "ucm_captions", "--root", root, "--parts", "images") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["root"]


ARCHIVES = [*coco.ARCHIVES.values(), *flickr8k.ARCHIVES.values(), socratis.ARCHIVE, ucm_parts.IMAGES, ucm_parts.LABELS]


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda archive: archive.name)
def test_described_files_have_a_server_and_a_size_or_checksum(archive):
    assert archive.server.startswith(("https://", "http://"))
    assert not archive.path.startswith("/")
    assert len(archive.checksum or " " * 32) in (32, 40, 64)
    assert archive.is_size_exact or archive.checksum or not archive.is_packed
    assert archive.unpacked >= archive.size


def test_what_belongs_to_the_user_is_not_prepared():
    with pytest.raises(UserError, match="check the files of folder_captions with"):
        data.main(["prepare", "folder_captions", "--root", "x"])
