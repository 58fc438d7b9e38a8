"""What waits is scored together, in its order, within bounds. A ranker that waits for a signal stands for a slow one."""

import threading
import time
from concurrent.futures import CancelledError

import numpy as np
import pytest
import torch

from dcrnn_fast.serving.http.batching import Batcher, Job, Refused


class Slow:
    """Scores each row by its id, once it may go on; notes the rows of each call."""

    def __init__(self):
        self.called, self.may_go_on, self.batches = threading.Semaphore(0), threading.Semaphore(0), []

    def predict_encoded(self, ids, dense):
        self.batches.append(ids[:, 0].tolist())
        self.called.release()
        assert self.may_go_on.acquire(timeout=30)
        if ids[0, 0] < 0:
            raise ValueError("negative")
        return {"click": (ids[:, 0] if dense is None else ids[:, 0] + dense[:, 0]).numpy().astype(np.float32)}

    def job(self, first, rows=1, *, dense=None, **options):
        return Job(self, torch.arange(first, first + rows)[:, None], dense if dense is None else torch.full((rows, 1), dense), **options)


@pytest.fixture
def slow():
    return Slow()


@pytest.fixture
def make(slow):
    made = []

    def begin(**options):
        made.append(Batcher(**({"max_queue_rows": 100, "max_batch_rows": 10, "threads": 1} | options)))
        return made[-1]

    yield begin
    slow.may_go_on.release(100)
    for one in made:
        one.close()


def busy(batcher, slow):
    """A job that is being scored, so that what follows waits."""
    job = slow.job(1000)
    batcher.submit(job)
    assert slow.called.acquire(timeout=30)
    return job


def test_what_waits_is_scored_together_in_its_order_up_to_the_limit(make, slow):
    scored, batcher = [], make()
    batcher._scored = scored.append
    jobs = [busy(batcher, slow), slow.job(0, 4), slow.job(10, 6), slow.job(20, 1), slow.job(30, 25), slow.job(60, 2)]
    for job in jobs[1:]:
        batcher.submit(job)
    slow.may_go_on.release(5)
    for job in jobs:
        assert job.done.result(30)["click"].tolist() == job.ids[:, 0].tolist()
    assert slow.batches == [[1000], [*range(4), *range(10, 16)], [20], list(range(30, 55)), [60, 61]]
    assert sum(scored) == 39


def test_dense_values_go_with_their_rows(make, slow):
    batcher = make()
    busy(batcher, slow)
    jobs = [slow.job(0, 2, dense=0.5), slow.job(5, 1, dense=0.25)]
    for job in jobs:
        batcher.submit(job)
    slow.may_go_on.release(2)
    assert [job.done.result(30)["click"].tolist() for job in jobs] == [[0.5, 1.5], [5.25]]


def test_jobs_of_two_rankers_are_not_scored_together(make, slow):
    batcher, other = make(), Slow()
    busy(batcher, slow)
    jobs = [slow.job(0), other.job(1), slow.job(2)]
    for job in jobs:
        batcher.submit(job)
    slow.may_go_on.release(3)
    other.may_go_on.release()
    assert [job.done.result(30)["click"].tolist() for job in jobs] == [[0], [1], [2]]
    assert slow.batches[1:] == [[0], [2]]


def test_a_full_queue_refuses_and_takes_again_when_it_is_emptied(make, slow):
    batcher = make(max_queue_rows=5)
    busy(batcher, slow)
    job = slow.job(0, 5)
    batcher.submit(job)
    with pytest.raises(Refused, match="5 rows are waiting, and with 1 more") as caught:
        batcher.submit(slow.job(9))
    assert caught.value.reason == "overload"
    slow.may_go_on.release(2)
    job.done.result(30)
    slow.may_go_on.release()
    again = slow.job(7)
    batcher.submit(again)
    assert again.done.result(30)["click"].tolist() == [7]


def test_a_job_whose_deadline_passed_is_refused_and_not_scored(make, slow):
    batcher, now = make(), time.monotonic()
    busy(batcher, slow)
    late, timely = slow.job(0, deadline=now - 1), slow.job(1, deadline=now + 600)
    batcher.submit(late)
    batcher.submit(timely)
    slow.may_go_on.release(2)
    with pytest.raises(Refused, match="deadline passed") as caught:
        late.done.result(30)
    assert caught.value.reason == "deadline"
    assert timely.done.result(30)["click"].tolist() == [1]
    assert slow.batches[1:] == [[1]]


def test_closed_it_refuses_what_waits_and_ends_what_is_being_scored(make, slow):
    rows = []
    batcher = make(waiting=rows.append)
    running, waiting = busy(batcher, slow), slow.job(0, 3)
    batcher.submit(waiting)
    batcher.close()
    slow.may_go_on.release()
    assert running.done.result(30)["click"].tolist() == [1000]
    for refused in (waiting.done.result, lambda: batcher.submit(slow.job(9))):
        with pytest.raises(Refused) as caught:
            refused()
        assert caught.value.reason == "stopping"
    assert rows == [1, 0, 3, 0]


def test_a_job_that_nobody_waits_for_any_more_is_left_out(make, slow):
    batcher = make()
    busy(batcher, slow)
    gone, kept = slow.job(0), slow.job(1)
    batcher.submit(gone)
    batcher.submit(kept)
    assert gone.done.cancel()
    slow.may_go_on.release(2)
    assert kept.done.result(30)["click"].tolist() == [1]
    with pytest.raises(CancelledError):
        gone.done.result()
    assert slow.batches[1:] == [[1]]


def test_an_error_is_that_of_its_batch_alone(make, slow):
    batcher = make()
    wrong, right = slow.job(-1), slow.job(1)
    batcher.submit(wrong)
    assert slow.called.acquire(timeout=30)
    batcher.submit(right)
    slow.may_go_on.release(2)
    with pytest.raises(ValueError, match="negative"):
        wrong.done.result(30)
    assert right.done.result(30)["click"].tolist() == [1]


def test_several_threads_score_at_once(make, slow):
    batcher = make(threads=2)
    jobs = [busy(batcher, slow), busy(batcher, slow)]
    slow.may_go_on.release(2)
    assert [job.done.result(30)["click"].tolist() for job in jobs] == [[1000], [1000]]
