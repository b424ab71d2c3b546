"""The commands: one line for every mistake, names without folders, and a server that starts and stops."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import cli
from commands.serving.server import address, listen, named
from tests.twins import saved_and_loaded

ROOT = Path(__file__).parents[3]


def test_names_are_the_ends_of_paths():
    assert named(["/a/one", "/a/one/checkpoints/best.ckpt", "/a/one/checkpoints/last.ckpt"]) == {
        "one": "/a/one",
        "one (last)": "/a/one/checkpoints/last.ckpt",
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--port=-1"], "--port -1: expected 0 to 65535"),
        (["--max-upload-mb=nan"], "--max-upload-mb nan: expected 0.001 or more"),
        (["--max-wait-ms=-1"], "--max-wait-ms -1: expected 0 or more"),
        (["--host=no.such.host.invalid"], "--host no.such.host.invalid: this address is not known here"),
        (["--host=192.0.2.1", "--port=0"], "--host 192.0.2.1 --port 0"),
        (["--port=0"], "no checkpoint at 'nowhere'"),
        (["--prot=0"], "unrecognized arguments: --prot=0"),
    ],
)
@pytest.mark.parametrize("name", ["demo", "serve"])
def test_mistakes_take_one_line(name, options, said, capsys):
    assert cli.main([name, "--ckpt", "nowhere", *options]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_port_that_is_taken_takes_one_line(capsys):
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["serve", "--ckpt", "nowhere", f"--port={port}"]) == 1
        assert f"--port {port} is in use" in capsys.readouterr().err


def test_missing_package_names_the_way_to_install_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert cli.main(["demo", "--ckpt", "nowhere"]) == 1
    assert "the package 'uvicorn' is missing: python -m pip install -e '.[serve]'" in capsys.readouterr().err


def test_address_is_one_that_a_browser_takes():
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        assert address("0.0.0.0", listening) == f"http://127.0.0.1:{port}"
        assert address("::1", listening) == f"http://[::1]:{port}"


def test_it_serves_until_it_is_stopped(tmp_path, models):
    checkpoint = str(tmp_path / "model.ckpt")
    saved_and_loaded(models.loaded["rnn"].module, tmp_path / "model.ckpt")
    command = [sys.executable, str(ROOT / "cli.py"), "serve", "--ckpt", checkpoint, "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ, cwd=tmp_path) as process:
        try:
            line = process.stdout.readline()
            where = re.fullmatch(r"serving model on (http://127\.0\.0\.1:\d+) \(Ctrl\+C stops\)\n", line)
            assert where, line
            with urllib.request.urlopen(f"{where[1]}/health", timeout=60) as answer:
                assert json.loads(answer.read()) == {"status": "ok", "models": ["model"]}
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
