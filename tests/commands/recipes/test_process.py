"""Processes of stages: one call at a time, output kept, nothing left running."""

import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

import cli
from commands import stage_state
from commands.recipes import process
from tests.commands.recipes.fakes import ALL, error_of, recipe


def test_interrupted_stages_share_one_minute(monkeypatch):
    """However many do not end, and one that has ended is not waited for."""
    monkeypatch.setattr(process, "_PATIENCE", 0.3)
    heard = []

    class Stubborn:
        def __init__(self, name):
            self.name = name

        def poll(self):
            return None

        def interrupt(self):
            heard.append(f"interrupt {self.name}")

        def kill(self):
            heard.append(f"kill {self.name}")

    begun = time.monotonic()
    process.end_all([Stubborn("a"), Stubborn("b"), Stubborn("c")])
    assert time.monotonic() - begun < 0.6
    assert heard == [f"{what} {name}" for what in ("interrupt", "kill") for name in "abc"]


def test_two_calls_do_not_work_in_one_folder(stages, capsys, monkeypatch):
    monkeypatch.setattr(process, "_WAIT", 0.0)
    with process.locked(Path("runs/seed-1")):
        assert "this recipe is already running in 'runs/seed-1'" in error_of(capsys)
    assert recipe(stages) == ALL


def test_output_is_shown_and_kept(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text("stages: {score: {command: score nowhere.json references.json}}")
    capfd.readouterr()
    assert cli.main(["recipe", "r.yaml", "--run_dir", "runs"]) == 1
    out, err = capfd.readouterr()
    assert (out + err).count("nowhere.json: no such file") == 1  # what is missing is said once
    assert "error: stage 'score' failed (exit code 1): its output is in" in err
    log = Path("runs/score/stage.log").read_text().splitlines()
    assert log[0].endswith("python cli.py score nowhere.json references.json")
    assert log[1].startswith("error: nowhere.json")
    assert stage_state.read_state(Path("runs/score"))["status"] == "failed"


@pytest.mark.parametrize("jobs", [1, 2])
def test_interrupted_recipe_ends_its_stage_and_says_how_to_go_on(tmp_path, monkeypatch, capfd, jobs):
    monkeypatch.chdir(tmp_path)
    silent = socket.create_server(("127.0.0.1", 0))  # whoever asks it for a file waits
    address = f"http://127.0.0.1:{silent.getsockname()[1]}"
    fetch = f"data prepare coco --parts annotations --base_url {address} --root"
    more = f", another: {{command: {fetch} also}}" if jobs == 2 else ""
    Path("r.yaml").write_text(f"stages: {{score: {{command: {fetch} waits}}{more}}}")
    over = threading.Event()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may have it ignored

    def interrupt():
        asking = [silent.accept() for _ in range(jobs)]
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)
        over.wait(60)  # the stage goes on waiting, however slow the machine is
        for connection, _ in asking:
            connection.close()

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    more_options = ["--jobs", "2"] if jobs == 2 else []
    assert cli.main(["recipe", "r.yaml", "--run-dir", "runs", *more_options]) == 130
    over.set()
    thread.join()
    silent.close()
    message = capfd.readouterr().err.splitlines()[-1]
    where, again = ("s 'score', 'another'", " --jobs 2") if jobs == 2 else (" 'score'", "")
    assert f"interrupted in stage{where}; resume with: python cli.py recipe r.yaml --run-dir runs{again}" in message
    assert stage_state.read_state(Path("runs/score"))["status"] == "interrupted"
    assert jobs == 1 or stage_state.read_state(Path("runs/another"))["status"] == "interrupted"


def test_log_keeps_what_a_terminal_shows_in_the_end(tmp_path):
    path = tmp_path / "log"
    with path.open("wb") as file:
        log = process.LogText(file)
        for chunk in (
            b"\x1b[31mred\x1b[0m\r\nepoch 1 10%\r\x1b[2Kepoch 1 50%\r\x1b[2Kepoch 1",
            b" 99%\r\nval 1%\x1b[",
            b"1A\x1b[2K\rboth done\r\nend",
        ):
            log.feed(chunk)
        log.close()
    assert path.read_text() == "red\nboth done\nend\n"
