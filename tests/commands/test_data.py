import inspect
import json
import re

import pytest
from PIL import Image

import cli
from commands import data
from commands.data_sets import data_class, data_sets, underscored
from core.errors import UserError
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


def test_a_data_set_is_converted_by_its_name_or_by_a_configuration(folder, capsys, tmp_path):
    flags = ["--captions-file=my-words.csv", "--caption_column", "words", "--images-per-shard=3"]
    by_name = ["data", "shard", "folder-captions", "--root", str(folder), *flags, "--out", str(tmp_path / "one")]
    assert cli.main(by_name) == 0
    assert "8 train, 1 val, 1 test images in 5 shards, 5 of them written now" in capsys.readouterr().out
    section = {"class_path": "datamodules.folder_captions.FolderCaptions", "init_args": {"root": str(folder)}}
    section["init_args"] |= {"captions_file": "my-words.csv", "caption_column": "no such", "image_column": None}
    (tmp_path / "config.yaml").write_text(json.dumps({"data": section, "model": {"class_path": "X"}}))
    by_config = ["data", "shard", str(tmp_path / "config.yaml"), *flags, "--out", str(tmp_path / "two")]
    assert cli.main(by_config) == 0
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    capsys.readouterr()
    assert cli.main(["data", "check", "shards", "--root", str(tmp_path / "one")]) == 0
    assert "note: 5 shards made from FolderCaptions" in capsys.readouterr().out


def test_what_cannot_be_converted_is_said(folder, tmp_path):
    shard = ["shard", "folder_captions", "--root", str(folder)]
    with pytest.raises(UserError, match="--images_per_shard 0: expected at least 1"):
        data.main([*shard, "--out", str(tmp_path / "out"), "--images_per_shard", "0"])
    with pytest.raises(UserError, match="is a file; expected a folder"):
        data.main([*shard, "--out", str(folder / "0.png")])
    with pytest.raises(UserError, match="data shard: there is no data set 'nothing'"):
        data.main(["shard", "nothing", "--out", str(tmp_path / "out")])
    for text in ("[]", "{}", '{"data": {"class_path": "os.system"}}'):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(UserError, match=r"config\.yaml: has no data module of this project"):
            data.main(["shard", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "out")])


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
    assert found["distributions"]["width"]["counts"] == {"8": 9}
    assert found["distributions"]["words"]["counts"]["picture"] == 10


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["look"], "'look' is unknown: expected prepare, features, export, check or shard"),
        (["check"], "expected the data set's name first, one of coco"),
        (["check", "--root", "x"], "expected the data set's name first"),
        (["check", "cooc"], "there is no data set 'cooc': expected one of coco, flickr8k"),
        (
            ["prepare", "folder_captions"],
            "only coco, flickr8k, socratis, ucm_captions can be prepared",
        ),
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


REAL = {
    "ucm_captions": (
        ["--root=ucm"],
        {"width", "height", "caption_lengths", "labels", "words"},
        "pavement     858  61.3 %",
    ),
    "socratis": (
        ["--root=socratis", "--captions_only=true"],
        {"caption_lengths", "labels", "words"},
        "happy       1,390",
    ),
    "scenes": (
        ["--num_train=20", "--num_val=9", "--num_test=9"],
        {"width", "height", "caption_lengths", "labels", "words"},
        "  64  38  100.0 %",
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_real_data_in_text_of_80_columns_and_in_figures(data_root, tmp_path, capsys, name):
    args, expected, line = REAL[name]
    args = [word.replace("--root=", f"--root={data_root}/") for word in args]
    assert cli.main(["data", "check", name, *args, "--figures", str(tmp_path / "figures")]) == 0
    out = capsys.readouterr().out
    assert line in out
    shown = out[out.index("per caption") :]
    assert max(map(len, shown[: shown.index("note:") if "note:" in shown else None].splitlines())) <= 80
    written = sorted((tmp_path / "figures").iterdir())
    assert {path.stem for path in written} == expected
    for path in written:
        with Image.open(path) as image:
            assert image.width > 600
            assert len(image.convert("L").getcolors() or []) > 10  # something is drawn


def test_lengths_are_in_tokens_of_the_tokenizer(data_root, capsys):
    args = ["--root", str(data_root / "coco_mini"), "--tokenizer", str(data_root / "tokenizers" / "gpt2")]
    assert cli.main(["data", "check", "coco", *args, "--max_tokens", "16"]) == 0
    out = capsys.readouterr().out
    assert "tokens per caption (gpt2, with first and last token)" in out
    assert re.search(r"mean 1\d\.\d, median 1\d, 9 to \d\d; \d\d \(\d+\.\d %\)\s+longer than max_tokens=16", out)


def test_real_coco_is_sound(data_root, capsys):
    assert cli.main(["data", "check", "coco", "--root", str(data_root / "coco_mini")]) == 0
    out = capsys.readouterr().out
    assert re.search(r"train\W+80\W+400\W+5\W", out)
    assert "val and test are the same images" in out
