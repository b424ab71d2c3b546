"""What all tests share: no network but loopback, no hub, caches of their own, the real data if it is there."""

import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
# hypothesis keeps tables there, by default in the checkout
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(Path(tempfile.gettempdir()) / "captioners-hypothesis"))
os.environ["WANDB_MODE"] = "disabled"
os.environ["CAPTION_REPORT"] = "off"  # a page at the end of every run would take minutes; its tests ask for it
# tokenizers below 0.23 print a remark whenever a process is started after they used threads
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# two workers of the suite share the machine; one thread each is faster and repeatable
os.environ.setdefault("OMP_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # a shell's background jobs ignore Ctrl-C, and so would all that tests start and interrupt
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
import torch

from commands.trainer import runs
from datamodules.readers import download
from tests.file_server import serving_files

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the real data, else the test is skipped and says so."""
    path = Path(os.environ.get("CAPTION_DATA", "../shared/data"))
    path = path if path.is_absolute() else ROOT / path
    if not path.is_dir():
        pytest.skip(f"no real data at {path}: set CAPTION_DATA to its folder")
    return path


@pytest.fixture(autouse=True)
def _only_loopback(monkeypatch):
    """Any connection to another machine fails the test."""
    connect = socket.socket.connect

    def checked(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to reach {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", checked)


@pytest.fixture(autouse=True)
def _own_environment():
    """What a test's run writes into the environment (Lightning: LOCAL_RANK, seeds) ends with it."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def _own_wandb_run():
    """W&B gives an open run to whoever asks next: no test may meet or leave one."""
    assert getattr(sys.modules.get("wandb"), "run", None) is None, "a fixture left a W&B run open"
    yield
    assert getattr(sys.modules.get("wandb"), "run", None) is None, "the test left a W&B run open"


@pytest.fixture(autouse=True)
def _own_interrupts():
    """An interrupted Trainer ignores Ctrl-C from then on; the tests after it must not."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.fixture(autouse=True, scope="session")
def _own_state(tmp_path_factory):
    """What the commands note of this user outside of run folders goes to a folder of the tests."""
    before = os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    yield
    os.environ.pop("XDG_STATE_HOME")
    if before is not None:
        os.environ["XDG_STATE_HOME"] = before


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    """Caches and runs go to the test's folder; nothing may be left in the checkout."""
    monkeypatch.setenv("CAPTION_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CAPTION_RUN_DIR", raising=False)
    before = {path.name for path in ROOT.iterdir()}
    with runs.ownership():
        yield
    left = (
        {path.name for path in ROOT.iterdir()} - before - {"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache"}
    )
    until = time.monotonic() + 20
    while left == {"runs"} and (ROOT / "runs").exists() and time.monotonic() < until:
        time.sleep(0.2)  # a test of another process has a folder there as long as its command runs
    # processes that tests start note the lines they reach, when these are counted
    left = {name for name in left if (ROOT / name).exists() and not name.startswith(".coverage")}
    assert not left, f"the test left {left} in the checkout"


@pytest.fixture(autouse=True)
def _seeded(monkeypatch):
    """Every test starts from the same random state and leaves no seed behind for the next."""
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    torch.manual_seed(0)


@pytest.fixture
def file_server(monkeypatch):
    """Files on the loopback interface, and downloads that do not wait before they try again."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "_pause", lambda failures: 0.0)
    with serving_files() as server:
        yield server


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on the loopback interface that answers, and caches that are empty."""
    import huggingface_hub

    from core.hub import only_local
    from tests.hub_server import serving

    variables = ("HF_HUB_OFFLINE", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
    for name in (*variables, "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "hub").mkdir()
    with serving(tmp_path / "hub") as server:
        constants = huggingface_hub.constants
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))  # nobody's own
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        only_local.cache_clear()
        yield server
    only_local.cache_clear()
