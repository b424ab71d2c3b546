"""A hub that does not answer is found out at once."""

import socket

import pytest

from core.hub import only_local


@pytest.fixture
def hub(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        only_local.cache_clear()
        yield server
    only_local.cache_clear()


def test_a_hub_that_answers_is_asked(hub):
    hub.listen()
    assert not only_local()


def test_a_hub_that_is_not_there_is_not_waited_for(hub):
    assert only_local()


def test_behind_a_proxy_the_library_finds_out(hub, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert not only_local()
