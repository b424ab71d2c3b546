"""Laws of the smoke run: every twin once, after what it needs, and the first failure ends it."""

import os
import re

import pytest

from scripts.smoke import FAST, OFFLINE, STAGES, commands, needs, smoke

NAMES = sorted(path.stem for path in OFFLINE.glob("*.yaml"))


def header_names_another_run(name):
    """Whether the command in a twin's header has something in capitals to fill in."""
    command = re.search(r"^# Command: (.*(?:\n#  +.*)*)", (OFFLINE / f"{name}.yaml").read_text(), re.MULTILINE)
    return bool(re.search(r"[= ][A-Z][A-Z_]+", command[1].split(" (")[0]))


def test_the_table_holds_the_twins_whose_command_names_another_run():
    assert {name for name in NAMES if header_names_another_run(name)} == set(STAGES)


def test_every_twin_runs_once_after_what_it_needs(tmp_path):
    order = list(commands(NAMES, tmp_path))
    assert sorted(order) == NAMES
    assert all(order.index(other) < order.index(name) for name in NAMES for other in needs(name))


def test_what_others_need_leaves_a_checkpoint(tmp_path):
    lines = commands(NAMES, tmp_path)
    needed = set().union(*map(needs, NAMES))
    fast = {name for name, line in lines.items() if FAST[0] in line}
    assert fast == set(NAMES) - needed
    assert f"--model.init_args.text_from={tmp_path / 'ucm_text_autoencoder'}" in lines["ucm_captioning"]


def test_a_new_twin_needs_no_entry(tmp_path):
    line = commands([*NAMES, "new"], tmp_path)["new"]
    assert line == ["fit", "--config", str(OFFLINE / "new.yaml"), "--run_dir", str(tmp_path / "new"), *FAST]


def test_a_name_without_a_file_is_an_error(tmp_path):
    with pytest.raises(SystemExit, match="emotion_teacher: no such file"):
        commands([name for name in NAMES if name != "emotion_teacher"], tmp_path)


@pytest.mark.parametrize("error", [None, ValueError("broken twin"), SystemExit(0)])
def test_the_first_failure_ends_it_with_the_end_of_the_output(capfd, tmp_path, error):
    seen = []

    def run(line):
        seen.append(line)
        os.environ["LEFT"] = "behind"
        os.write(1, b"much\n" * 100 + b"the reason\n")
        if len(seen) == 3 and error is not None:
            raise error
        return int(len(seen) == 3)

    assert smoke(run, NAMES, tmp_path) == 1
    printed = capfd.readouterr().out
    assert len(seen) == 3
    assert "LEFT" not in os.environ
    assert len(re.findall(r" s  ok$", printed, re.MULTILINE)) == 2
    assert "FAILED" in printed
    assert "the reason" in printed
    assert printed.count("much") < 50
    assert f"failed: python cli.py fit --config {seen[2][2]}" in printed


def test_the_last_line_counts_the_twins(capfd, tmp_path):
    assert smoke(lambda line: 0, NAMES, tmp_path) == 0
    assert f"{len(NAMES)} twins ran in 0 s" in capfd.readouterr().out
