"""Merging: what is missing, doubled or damaged is said, and nothing half is written."""

import shutil

import pytest

import cli
from commands.jobs.parts import part_path
from tests.commands.jobs.made import job, merged, parts


@pytest.fixture
def folder(done, tmp_path):
    shutil.copytree(done, tmp_path / "job")
    return tmp_path / "job"


@pytest.fixture(scope="module")
def done(runs, pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("done") / "job"
    assert job("label", runs, pictures, folder) == 0
    return folder


def outcome(capsys, *words):
    code = cli.main(["merge", *map(str, words)])
    out, error = capsys.readouterr()
    assert error.count("\n") == (code != 0)
    return code, out + error


def test_verify_alone_writes_nothing(folder, capsys):
    before = parts(folder)
    code, said = outcome(capsys, folder, "--verify")
    assert code == 0
    assert "23 images in 6 parts" in said
    assert "nothing is missing, and no image is there twice" in said
    assert parts(folder) == before


def test_missing_parts_are_named(folder, tmp_path, capsys):
    for part in (0, 1, 2, 5):
        part_path(folder, part).unlink()
    for words in (["--verify"], ["--out", tmp_path / "x.parquet"]):
        code, said = outcome(capsys, folder, *words)
        assert code == 1
        assert "4 of 6 parts are missing (0-2, 5), 15 images" in said
    assert not (tmp_path / "x.parquet").exists()


def test_pictures_that_a_source_has_twice_are_named(runs, pictures, tmp_path, capsys):
    (tmp_path / "list.txt").write_text("".join(f"{pictures}/{name}.png\n" for name in ("00", "02", "04", "06", "02")))
    assert job("caption", runs, tmp_path / "list.txt", tmp_path / "job") == 0
    capsys.readouterr()
    code, said = outcome(capsys, tmp_path / "job", "--verify")
    assert code == 0
    assert f"1 images are there again, as the source has them: {pictures}/02.png" in said


def test_every_damaged_byte_is_found(folder, tmp_path, capsys):
    path = part_path(folder, 3)
    whole = path.read_bytes()
    merged(folder, to=tmp_path / "good.parquet")
    for place in range(4, len(whole) - 8, max(1, len(whole) // 60)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        code = cli.main(["merge", str(folder), "--out", str(tmp_path / "x.parquet")])
        error = capsys.readouterr().err
        if code == 0:  # a byte that means nothing, as in the padding or in names of the writer
            assert (tmp_path / "x.parquet").read_bytes() == (tmp_path / "good.parquet").read_bytes(), place
        else:
            assert "part-000003.parquet" in error
            assert error.count("\n") == 1


def test_other_files_and_jobs_are_refused(folder, runs, pictures, tmp_path, capsys):
    shutil.copy(part_path(folder, 1), folder / "part-000001 (copy).parquet")
    assert "is no part of this job" in outcome(capsys, folder, "--verify")[1]
    (folder / "part-000001 (copy).parquet").rename(part_path(folder, 6))
    assert "is no part of this job" in outcome(capsys, folder, "--verify")[1]
    part_path(folder, 6).unlink()
    assert job("tag", runs, pictures, tmp_path / "tags") == 0
    capsys.readouterr()
    assert "holds another job" in outcome(capsys, folder, tmp_path / "tags", "--verify")[1]
    assert "holds no job" in outcome(capsys, tmp_path, "--verify")[1]
    assert "does nothing without --out FILE or --verify" in outcome(capsys, folder)[1]
    assert "is a folder" in outcome(capsys, folder, "--out", tmp_path)[1]
