import hashlib
import http.server
import inspect
import io
import json
import re
import threading
import zipfile
from functools import partial

import pytest
from PIL import Image

import cli
from commands import data
from commands.data_sets import data_class, data_sets, underscored
from core.errors import UserError
from datamodules.readers import download
from datamodules.readers.download import Archive
from tests.genome import write_genome


@pytest.fixture
def folder(tmp_path):
    """Ten pictures with captions in a file of an unusual name."""
    root = tmp_path / "mine"
    root.mkdir()
    for number in range(10):
        Image.new("RGB", (8, 8), (number * 20, 0, 0)).save(root / f"{number}.png")
    lines = [f"{number}.png,picture {number}" for number in range(10)]
    (root / "my-words.csv").write_text("\n".join(["picture,words", *lines]))
    return root


@pytest.mark.parametrize(
    "style", ["--captions-file={} --caption-column words", "--captions_file {} --caption_column=words"]
)
def test_flags_with_dashes_and_underscores_mean_the_same(folder, capsys, style):
    args = style.format("my-words.csv").split()
    assert cli.main(["data", "check", "folder-captions", "--root", str(folder), *args]) == 0
    out = capsys.readouterr().out
    assert re.search(r"train\W+8\W+8\W+1\W", out)
    assert out.rstrip().endswith("no problems")


def test_features_are_computed_in_parts_and_found_by_a_run(folder, capsys, tmp_path):
    write_genome(tmp_path / "weights")
    for number in range(10, 100):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
    lines = [f"{number}.png,picture {number}" for number in range(100)]
    (folder / "captions.csv").write_text("\n".join(["image,caption", *lines]))
    options = {"encoder": "frcnn-vg", "encoder_weights": str(tmp_path / "weights"), "num_workers": 0}
    command = ["data", "features", "folder_captions", "--root", str(folder)]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    for number in (1, 2):
        assert cli.main([*command, "--shard", f"{number}/2"]) == 0
        assert f"part {number}/2 of 80, 6 x 64" in capsys.readouterr().out
    module = data_class("folder_captions")(root=str(folder), **options)
    store = module.features("train")
    assert store.shape == (80, 6, 64)
    assert cli.main(command) == 0
    assert capsys.readouterr().out.startswith(f"{store.folder}: 80 images, 6 x 64, 0.00 GB")
    with pytest.raises(UserError, match="name an encoder with --encoder"):
        data.main(["features", "folder_captions", "--root", str(folder)])
    with pytest.raises(UserError, match="shard '3/2': expected I/N"):
        data.main([*command[1:], "--shard", "3/2"])


def test_values_keep_their_dashes():
    assert underscored("--captions-file=my-file.csv") == "--captions_file=my-file.csv"
    assert underscored("my-file.csv") == "my-file.csv"
    assert underscored("-h") == "-h"


def test_problems_are_listed_and_give_exit_code_one(folder, capsys):
    (folder / "3.png").write_bytes(b"broken")
    (folder / "4.png").unlink()
    (folder / "5.png").unlink()
    args = ["data", "check", "folder_captions", "--root", str(folder), "--caption_column", "words"]
    assert cli.main(args) == 1
    out = capsys.readouterr().out
    assert "line 6 (4.png): no image file 4.png" in out
    assert "3.png: image cannot be decoded" in out
    assert "3 problems (2 missing, 1 undecodable)" in out
    assert cli.main([*args, "--limit", "1"]) == 1
    assert "... and 2 more; --limit 0 lists all" in capsys.readouterr().out
    assert cli.main([*args, "--limit", "0"]) == 1
    assert "more" not in capsys.readouterr().out.replace("remove", "")


def test_json_is_one_object(folder, capsys):
    (folder / "3.png").write_bytes(b"broken")
    args = ["data", "check", "folder_captions", "--root", str(folder), "--caption_column", "words", "--json"]
    assert cli.main(args) == 1
    found = json.loads(capsys.readouterr().out)
    assert sum(split["images"] for split in found["splits"].values()) == 10
    assert [problem["kind"] for problem in found["problems"]] == ["undecodable"]
    assert found["notes"] == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["look"], "'look' is unknown: expected prepare, features or check"),
        (["check"], "expected the data set's name first, one of coco"),
        (["check", "--root", "x"], "expected the data set's name first"),
        (["check", "cooc"], "there is no data set 'cooc': expected one of coco, flickr8k"),
        (["prepare", "folder_captions"], "only coco can be downloaded; check the files of folder_captions with"),
        (["check", "folder_captions", "--roo", "x"], "unrecognized arguments: --roo x"),
        (["check", "folder_captions", "--image_size", "big"], "image_size"),
        (["check", "folder_captions", "--on_bad_image", "skp"], "on_bad_image"),
    ],
)
def test_wrong_words_are_one_line_and_not_zero(args, message, capsys):
    assert cli.main(["data", *args]) == 1
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert out == ""


def test_a_missing_root_is_a_problem_of_the_data(tmp_path, capsys):
    assert cli.main(["data", "check", "coco", "--root", str(tmp_path / "gone")]) == 1
    assert f"python cli.py data prepare coco --root {tmp_path / 'gone'}" in capsys.readouterr().out


def test_help_lists_the_names_and_the_flags(capsys):
    assert data.main(["--help"]) == 0
    assert "names: coco, flickr8k, folder_captions, folder_labels, hub_captions" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        data.main(["check", "folder_captions", "--help"])
    assert caught.value.code == 0
    assert "--captions_file" in capsys.readouterr().out


def test_every_data_set_is_found():
    names = ["coco", "flickr8k", "folder_captions", "folder_labels", "hub_captions", "pseudo_labels", "scenes",
             "socratis", "ucm_captions"]  # fmt: skip
    assert set(names) <= set(data_sets())
    assert list(data_sets()) == sorted(data_sets())


@pytest.mark.parametrize("name", data_sets())
def test_every_name_leads_to_a_data_module_with_a_root(name):
    if name != "pseudo_labels":  # its images are those of another data module
        assert "root" in {argument for base in data_class(name).__mro__ for argument in _arguments(base)}


def _arguments(cls):
    return inspect.signature(cls.__init__).parameters


def test_real_coco_is_sound(data_root, capsys):
    assert cli.main(["data", "check", "coco", "--root", str(data_root / "coco_mini")]) == 0
    out = capsys.readouterr().out
    assert re.search(r"train\W+80\W+400\W+5\W", out)
    assert "val and test are the same images" in out


@pytest.fixture
def small_coco(tmp_path, monkeypatch):
    """COCO in small on a loopback server; returns its address."""
    served = tmp_path / "server"
    archives = {}
    for part, path in (("annotations", "annotations/a.zip"), ("val", "zips/val.zip"), ("train", "zips/train.zip")):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            if part == "annotations":
                for split, number in (("train", 1), ("val", 2)):
                    images = [{"id": number, "file_name": f"{number:012}.png"}]
                    captions = [{"id": number, "image_id": number, "caption": f"picture {number}"}]
                    content = json.dumps({"images": images, "annotations": captions})
                    file.writestr(f"annotations/captions_{split}2017.json", content)
                expected = (("annotations/captions_val2017.json", 0),)
            else:
                number = 1 if part == "train" else 2
                picture = io.BytesIO()
                Image.new("RGB", (8, 8), (number * 50, 0, 0)).save(picture, "PNG")
                file.writestr(f"{part}2017/{number:012}.png", picture.getvalue())
                expected = ((f"{part}2017", 1),)
        content = buffer.getvalue()
        (served / path).parent.mkdir(parents=True, exist_ok=True)
        (served / path).write_bytes(content)
        archives[part] = Archive(
            path=path, size=len(content), md5=hashlib.md5(content).hexdigest(), unpacked=len(content), contents=expected
        )
    monkeypatch.setattr(download, "COCO_ARCHIVES", archives)
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *args: None)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=served)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_prepare_and_check_from_nothing(small_coco, tmp_path, capsys):
    root = str(tmp_path / "coco")
    assert cli.main(["data", "prepare", "coco", "--root", root, "--base-url", small_coco]) == 0
    out = capsys.readouterr().out
    assert out.count("fetched and unpacked; checked MD5") == 3
    assert f"python cli.py data check coco --root {root}" in out
    assert cli.main(["data", "check", "coco", "--root", root]) == 0
    assert cli.main(["data", "prepare", "coco", "--root", root, "--base-url", "http://127.0.0.1:1"]) == 0
    assert "train.zip: unpacked already" in capsys.readouterr().out


def test_parts_and_address_from_the_environment(small_coco, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CAPTION_COCO_URL", small_coco)
    root = tmp_path / "coco"
    assert cli.main(["data", "prepare", "coco", "--root", str(root), "--parts", "val", "--keep-archives"]) == 0
    assert sorted(path.name for path in root.iterdir()) == ["val.zip", "val2017"]
    monkeypatch.setenv("CAPTION_COCO_URL", small_coco + "/nowhere")
    assert cli.main(["data", "prepare", "coco", "--root", str(root)]) == 1
    assert "the server answers 404" in capsys.readouterr().err
    with pytest.raises(UserError, match="404"):
        data.main(["prepare", "coco", "--root", str(root)])
