"""Jobs over many pictures: the same bytes however they are divided, and one line for every mistake."""

import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cli
from commands.jobs.parts import part_path, write_table
from tests.commands.jobs.made import job, merged, parts, rows
from tests.datamodules.sources.made import make_parquet, make_tar

COMMANDS = ("caption", "label", "tag")


@pytest.fixture(scope="module")
def alone(runs, pictures, tmp_path_factory):
    """Each job left alone, and its table."""
    base = tmp_path_factory.mktemp("alone")
    for command in COMMANDS:
        assert job(command, runs, pictures, base / command) == 0
        merged(base / command, to=base / f"{command}.parquet")
    return base


def names(pictures):
    return sorted(str(path.relative_to(pictures)) for path in pictures.rglob("*.png"))


def test_a_table_has_a_row_for_each_picture_in_order(alone, pictures):
    for command in COMMANDS:
        found = rows(alone / f"{command}.parquet")
        assert [row["image"] for row in found] == names(pictures)
        assert all(row["error"] is None for row in found)


def test_rows_are_what_the_command_prints(alone, runs, pictures, capsys):
    assert cli.main(["caption", "--ckpt", str(runs / "captioner.ckpt"), str(pictures), "--json"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    by_name = {os.path.relpath(row["image"], pictures): row["captions"][0] for row in printed}
    for row in rows(alone / "caption.parquet"):
        assert row["caption"] == by_name[row["image"]]["caption"]
        assert row["log_prob"] == pytest.approx(by_name[row["image"]]["log_prob"], abs=2e-4)
    assert cli.main(["label", "--ckpt", str(runs / "classifier.ckpt"), str(pictures), "--json"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    by_name = {os.path.relpath(row["image"], pictures): row for row in printed}
    for row in rows(alone / "label.parquet"):
        assert row["labels"] == by_name[row["image"]]["labels"]
        for label, value in by_name[row["image"]]["probabilities"].items():
            assert row[label] == pytest.approx(value, abs=2e-4)


def test_tags_say_how_sure_the_captioner_is(alone):
    for row in rows(alone / "tag.parquet"):
        assert 0 < row["confidence"] <= 1
        assert 0 <= row["agreement"] <= 1
        assert row["confidence"] == pytest.approx(2.718281828 ** (row["log_prob"] / row["tokens"]), abs=1e-3)
        assert row["source"].startswith("attention_rnn:")


def test_several_captions_are_drawn_beside_the_best(alone, runs, pictures, tmp_path):
    """The other columns stay as they are; different captions for each picture, the same whatever the division."""
    options = ["--samples=4", "--top-p=1"]
    assert job("tag", runs, pictures, tmp_path / "job", *options) == 0
    found = rows_of_parts(tmp_path / "job")
    plain = rows(alone / "tag.parquet")
    assert [{name: value for name, value in row.items() if name != "captions"} for row in found] == plain
    assert all(1 <= len(row["captions"]) == len(set(row["captions"])) <= 4 for row in found)
    assert max(len(row["captions"]) for row in found) > 1
    assert job("tag", runs, pictures, tmp_path / "half", *options, "--shard=2/2") == 0
    assert parts(tmp_path / "half").items() < parts(tmp_path / "job").items()
    assert job("tag", runs, pictures, tmp_path / "other", *options, "--shard=2/2", "--seed=1") == 0
    other, half = (rows_of_parts(tmp_path / name) for name in ("other", "half"))
    assert [row["captions"] for row in other] != [row["captions"] for row in half]


def rows_of_parts(folder):
    return [row for path in sorted(folder.glob("part-*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.mark.parametrize(("command", "shards"), [("caption", (3, 1, 4, 2)), ("label", (2, 1)), ("tag", (2, 1))])
def test_shards_in_any_order_write_the_same_parts(alone, runs, pictures, tmp_path, command, shards):
    for number in shards:
        words = [f"--shard={number}/{len(shards)}", f"--workers={number % 2}"]
        assert job(command, runs, pictures, tmp_path / "job", *words) == 0
    assert parts(tmp_path / "job") == parts(alone / command)


def test_folders_of_several_machines_are_merged(alone, runs, pictures, tmp_path, capsys):
    for number in (1, 2):
        assert job("caption", runs, pictures, tmp_path / str(number), f"--shard={number}/2") == 0
    whole = (alone / "caption.parquet").read_bytes()
    assert merged(tmp_path / "1", tmp_path / "2", to=tmp_path / "x.parquet") == whole
    # a part that is in two folders is the same in both, or it is an error
    shutil.copy(part_path(tmp_path / "1", 0), tmp_path / "2")
    assert merged(tmp_path / "2", tmp_path / "1", to=tmp_path / "y.parquet") == whole
    table = pq.read_table(other := part_path(tmp_path / "2", 0))
    with other.open("wb") as file:
        write_table(table.set_column(1, "caption", pa.array(["else"] * len(table))).cast(table.schema), file)
    capsys.readouterr()
    assert cli.main(["merge", str(tmp_path / "1"), str(tmp_path / "2"), "--verify"]) == 1
    assert "are the same part and differ" in capsys.readouterr().err


def test_what_is_there_is_not_done_again(alone, runs, pictures, tmp_path, capsys):
    folder = tmp_path / "job"
    shutil.copytree(alone / "caption", folder)
    os.utime(part_path(folder, 1), (1, 1))
    part_path(folder, 3).unlink()
    assert job("caption", runs, pictures, folder) == 0
    assert "23 of 23 images" in (out := capsys.readouterr().out)
    assert "4 of them now" in out
    assert part_path(folder, 1).stat().st_mtime == 1
    assert parts(folder) == parts(alone / "caption")


def test_sources_of_other_kinds_give_the_same_captions(alone, runs, pictures, tmp_path):
    own = names(pictures)
    contents = [(pictures / name).read_bytes() for name in own]
    (tmp_path / "list.txt").write_text("".join(f"{pictures / name}\n" for name in own))
    make_parquet(tmp_path / "a.parquet", contents[:9], own[:9])
    make_parquet(tmp_path / "b.parquet", contents[9:], own[9:])
    make_tar(tmp_path / "a.tar", zip(own, contents, strict=True))
    expected = [row["caption"] for row in rows(alone / "caption.parquet")]
    sources = {"list": "list.txt", "parquet": ["a.parquet", "b.parquet"], "tar": "a.tar"}
    for kind, given in sources.items():
        paths = [tmp_path / name for name in ([given] if isinstance(given, str) else given)]
        assert job("caption", runs, paths, tmp_path / kind) == 0
        merged(tmp_path / kind, to=tmp_path / "x.parquet")
        assert [row["caption"] for row in rows(tmp_path / "x.parquet")] == expected
        if kind == "parquet":
            assert [row["image"] for row in rows(tmp_path / "x.parquet")] == own


def test_captions_do_not_depend_on_the_others_of_a_batch(alone, runs, pictures, tmp_path):
    expected = rows(alone / "caption.parquet")
    for size in (1, 5, 23):
        folder = tmp_path / str(size)
        assert job("caption", runs, pictures, folder, f"--batch-size={size}", "--rows-per-part=50") == 0
        for row, other in zip(rows(part_path(folder, 0)), expected, strict=True):
            assert row["caption"] == other["caption"]
            assert row["log_prob"] == pytest.approx(other["log_prob"], abs=2e-4)


def test_several_and_sampled_captions(runs, pictures, tmp_path):
    for name, words in {"beams": ["--beams=3"], "sampled": ["--sample", "--seed=5"]}.items():
        for number in (1, 2):
            assert (
                job("caption", runs, pictures, tmp_path / name, "--num-captions=2", *words, f"--shard={number}/2") == 0
            )
        assert job("caption", runs, pictures, tmp_path / f"{name} whole", "--num-captions=2", *words) == 0
        assert parts(tmp_path / name) == parts(tmp_path / f"{name} whole")
        for row in rows(part_path(tmp_path / name, 0)):
            assert row["captions"][0] == row["caption"]
            assert len(row["captions"]) == len(row["log_probs"]) == 2
            assert row["log_probs"] == sorted(row["log_probs"], reverse=True)


@pytest.fixture
def spoilt(pictures, tmp_path):
    """The pictures with a bad one, and one whose name is no UTF-8."""
    folder = tmp_path / "pictures"
    shutil.copytree(pictures, folder)
    (folder / "06.png").write_bytes((folder / "06.png").read_bytes()[:60])
    (folder / "08.png").rename(folder / os.fsdecode(b"08 \xff.png"))
    return folder


def test_bad_pictures_stop_a_job_or_have_rows_with_the_reason(runs, spoilt, tmp_path, capsys):
    assert job("caption", runs, spoilt, tmp_path / "job") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: 06.png: image cannot be decoded")
    assert "--on-bad-image skip" in error
    assert error.count("\n") == 1
    assert job("caption", runs, spoilt, tmp_path / "job", "--on_bad_image=skip") == 0
    assert capsys.readouterr().err == "1 images cannot be decoded: their rows have the reason in the column error\n"
    assert job("caption", runs, spoilt, tmp_path / "again", "--skip-bad") == 0
    assert parts(tmp_path / "job") == parts(tmp_path / "again")
    merged(tmp_path / "job", to=tmp_path / "x.parquet")
    assert "1 of them with an error" in capsys.readouterr().out
    found = {row["image"]: row for row in rows(tmp_path / "x.parquet")}
    assert len(found) == 23
    assert found["06.png"]["caption"] is None
    assert found["06.png"]["error"].startswith("image cannot be decoded")
    assert found["08 \\udcff.png"]["caption"]


def test_text_files_beside_pictures(runs, spoilt, tmp_path, capsys):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "00.txt").write_text("mine")
    words = ["--skip-bad", "--sidecars", tmp_path / "texts"]
    assert job("caption", runs, spoilt, tmp_path / "job", *words) == 0
    assert "1 text files were there with other content" in capsys.readouterr().err
    found = {str(path.relative_to(tmp_path / "texts")) for path in (tmp_path / "texts").rglob("*.txt")}
    merged(tmp_path / "job", to=tmp_path / "x.parquet")
    good = [row for row in rows(tmp_path / "x.parquet") if row["error"] is None]
    assert found == {row["image"].replace(".png", ".txt") for row in good}
    assert (tmp_path / "texts" / "00.txt").read_text() == "mine"
    assert (tmp_path / "texts" / "sub" / "01.txt").read_text() == next(
        f"{row['caption']}\n" for row in good if row["image"] == "sub/01.png"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--beams=3"], "another beams (2, now 3)"),
        (["--batch-size=5"], "another batch size (3, now 5)"),
        (["--rows-per-part=9"], "another rows per part (4, now 9)"),
        (["--ckpt", "other"], "another model"),
        (["--tag"], "another command (caption, now tag)"),
        (["--source"], "other pictures (23 of them, now 11)"),
    ],
)
def test_a_folder_holds_one_job(alone, runs, pictures, tmp_path, capsys, words, message):
    folder = tmp_path / "job"
    shutil.copytree(alone / "caption", folder)
    before = parts(folder)
    command, source = "tag" if words == ["--tag"] else "caption", pictures
    if words == ["--source"]:
        source = pictures / "sub"
    words = (
        [] if words[0] in ("--tag", "--source") else [word.replace("other", str(runs / "other.ckpt")) for word in words]
    )
    assert job(command, runs, source, folder, *words) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert parts(folder) == before


def test_parts_of_others_are_refused(alone, runs, pictures, tmp_path, capsys):
    folder = tmp_path / "job"
    shutil.copytree(alone / "caption", folder)
    for content in (b"", b"x", part_path(folder, 0).read_bytes(), part_path(alone / "label", 2).read_bytes()):
        part_path(folder, 2).write_bytes(content)
        assert job("caption", runs, pictures, folder) == 1
        error = capsys.readouterr().err
        assert "part-000002.parquet" in error
        assert error.count("\n") == 1
    (folder / "job.json").unlink()
    assert job("caption", runs, pictures, folder) == 1
    assert "has parts of a job and no job.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--shard=1/2"], "--shard needs --out FOLDER"),
        (["--workers=1"], "--workers needs --out FOLDER"),
        (["--out=x", "--json"], "--json and --out exclude each other"),
        (["--out=x", "--attention=y"], "--attention and --out exclude each other"),
        (["--out=x", "--shard=5/4"], "expected I/N"),
        (["--out=x", "--workers=-1"], "whole number from 0 to 256"),
        (["--out=a file"], "--out a file: is a file"),
    ],
)
def test_options_that_do_not_go_together(runs, pictures, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").touch()
    assert cli.main(["caption", "--ckpt", str(runs / "captioner.ckpt"), str(pictures), *words]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "x").exists()
