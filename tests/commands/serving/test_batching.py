"""Requests share batches of their key, get their own answers, and nobody waits for ever."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from commands.serving.batching import Batcher, BusyError


def test_each_gets_its_own_answer_and_batches_have_one_key():
    batches = []

    def compute(key, items):
        batches.append((key, list(items)))
        return [(key, item) for item in items]

    batcher = Batcher(compute, max_batch=4, max_wait=0.05)
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda n: batcher.submit(n % 2, n), range(20)))
    batcher.close()
    assert answers == [(n % 2, n) for n in range(20)]
    assert all(len(items) <= 4 and {n % 2 for n in items} == {key} for key, items in batches)
    assert len(batches) < 20


def test_a_lone_request_waits_no_longer_than_it_may():
    batcher = Batcher(lambda key, items: items, max_batch=100, max_wait=0.05)
    begun = time.monotonic()
    assert batcher.submit("key", 3) == 3
    assert 0.04 < time.monotonic() - begun < 5
    batcher.close()


def test_an_error_belongs_to_those_who_asked():
    def compute(key, items):
        return [1 // item for item in items]

    batcher = Batcher(compute, max_wait=0)
    with pytest.raises(ZeroDivisionError):
        batcher.submit("key", 0)
    assert batcher.submit("key", 1) == 1
    assert batcher.alive
    batcher.close()
    assert not batcher.alive


def test_too_many_are_refused_and_those_that_wait_are_answered():
    go, begun = threading.Event(), threading.Event()

    def compute(key, items):
        begun.set()
        go.wait(60)
        return items

    batcher = Batcher(compute, max_batch=1, max_wait=0, max_waiting=2)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(batcher.submit, "key", 0)
        begun.wait(60)
        others = [pool.submit(batcher.submit, "key", n) for n in (1, 2)]
        while batcher.waiting < 2:
            time.sleep(0.001)
        with pytest.raises(BusyError, match="2 requests are waiting already"):
            batcher.submit("key", 3)
        go.set()
        assert [first.result(60), *(other.result(60) for other in others)] == [0, 1, 2]
    batcher.close()
    with pytest.raises(BusyError, match="stopping"):
        batcher.submit("key", 4)
