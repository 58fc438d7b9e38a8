"""What waits is scored together, in its order, within bounds. A ranker that waits for a signal stands for a slow one."""

import asyncio
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dcrnn_fast.serving.http.batching import Batcher, Job, Limits
from dcrnn_fast.serving.http.request import Refused


class Slow:
    """Scores each row by its id, once it may go on; notes the rows of each call."""

    def __init__(self):
        self.may_go_on, self.batches = threading.Semaphore(0), []

    def predict_encoded(self, ids, dense):
        self.batches.append(ids[:, 0].tolist())
        assert self.may_go_on.acquire(timeout=30)
        if ids[0, 0] < 0:
            raise ValueError("negative")
        return {"click": (ids[:, 0] if dense is None else ids[:, 0] + dense[:, 0]).numpy().astype(np.float32)}


def score(requests, *, slow=None, at_once=None, threads=1, scored=str, waiting=str, **options):
    """What becomes of jobs (first id, rows, further options) that come while a job with the id 1000 is scored: scores or the error."""
    slow = slow or Slow()

    async def run():
        limits = Limits(**{"queue_rows": 100, "batch_rows": 10, "inline_rows": 0} | options)
        metrics = SimpleNamespace(batch_rows=SimpleNamespace(observe=scored), queue_rows=SimpleNamespace(set=waiting))
        batcher = Batcher(limits, metrics, threads)

        def submit(first, rows=1, *, ranker=slow, dense=None, **more):
            ids = torch.arange(first, first + rows)[:, None]
            job = Job(ranker, ids, None if dense is None else torch.full((rows, 1), dense), **more)
            try:
                batcher.submit(job)
            except Refused as error:
                job.done.set_exception(error)
            return job.done

        done = [submit(1000, options.get("inline_rows", 0) + 1)]
        while not slow.batches:
            await asyncio.sleep(0)
        done += [submit(*one[:-1], **one[-1]) if isinstance(one[-1], dict) else submit(*one) for one in requests]
        if at_once:
            at_once(batcher, done)
        slow.may_go_on.release(100)
        found = await asyncio.gather(*done, return_exceptions=True)
        batcher.close()
        return found[1:]

    found = asyncio.run(run())
    return [one["click"].tolist() if isinstance(one, dict) else one for one in found]


def test_what_waits_is_scored_together_in_its_order_up_to_the_limit():
    slow, rows, waiting = Slow(), [], []
    jobs = [(0, 4), (10, 6), (20, 1), (30, 25), (60, 2)]
    assert score([(0, 2, {"dense": 0.5}), (5, 1, {"dense": 0.25})]) == [[0.5, 1.5], [5.25]]
    found = score(jobs, slow=slow, scored=rows.append, waiting=waiting.append)
    assert found == [list(range(first, first + rows)) for first, rows in jobs]
    assert slow.batches == [[1000], [*range(4), *range(10, 16)], [20], list(range(30, 55)), [60, 61]]
    assert sorted(rows) == [1, 1, 2, 10, 25]
    assert (max(waiting), waiting[-1]) == (38, 0)


def test_jobs_of_two_rankers_are_not_scored_together():
    slow, other = Slow(), Slow()
    other.may_go_on.release()
    assert score([(0,), (1, 1, {"ranker": other}), (2,)], slow=slow) == [[0], [1], [2]]
    assert slow.batches[1:] == [[0], [2]]


def test_a_full_queue_and_a_deadline_that_passed_refuse():
    taken, refused = score([(0, 5), (9, 1)], queue_rows=5)
    assert taken == [0, 1, 2, 3, 4]
    assert (refused.reason, "5 rows are waiting, and with 1 more" in str(refused)) == ("overload", True)
    slow, now = Slow(), time.monotonic()
    late, timely = score([(0, 1, {"deadline": now - 1}), (1, 1, {"deadline": now + 600})], slow=slow)
    assert (late.reason, timely, slow.batches[1:]) == ("deadline", [1], [[1]])


def test_a_job_that_fails_or_that_nobody_waits_for_leaves_the_others_alone():
    gone, kept = score([(0,), (1,)], at_once=lambda _, done: done[1].cancel())
    assert (type(gone), kept) == (asyncio.CancelledError, [1])
    slow, other = Slow(), Slow()
    other.may_go_on.release(2)
    wrong, right = score([(-1, 1, {"ranker": other}), (1,)], slow=slow)
    assert (str(wrong), right) == ("negative", [1])


@pytest.mark.parametrize(("threads", "batches"), [(1, 1), (2, 2)])
def test_as_many_threads_score_at_once(threads, batches):
    slow = Slow()

    def until_begun(batcher, done):
        end = time.monotonic() + 30
        while len(slow.batches) < batches:
            batcher._score()
            assert time.monotonic() < end

    assert score([(0,)], slow=slow, at_once=until_begun, threads=threads) == [[0]]
