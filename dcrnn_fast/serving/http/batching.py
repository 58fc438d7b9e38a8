"""Requests that wait are scored together: a queue with a limit, deadlines, and the threads that score."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...support.model_inputs import inputs_checked
from ..ranker import Scores
from .metrics import Metrics
from .request import unavailable
from .served import Served


class Limits(NamedTuple):
    """A server's limits: bytes of a body, rows of a request, rows that wait, rows that are scored together, and connections.

    With one thread, up to ``inline_rows`` rows are scored on that of the event loop.
    """

    body_bytes: int = 1_048_576
    rows: int = 10_000
    queue_rows: int = 100_000
    batch_rows: int = 512
    connections: int = 1000
    inline_rows: int = 512


@dataclass(eq=False)
class Job:
    """Encoded rows that wait for their scores: ids [B, F] int64, dense [B, Nd] float32 or None, B >= 1.

    ``ranker`` has encoded them, and scores them. ``deadline`` is the value of :func:`time.monotonic` until which scoring must begin.
    ``done`` receives the scores, a refusal, or what the ranker raised. Made while an event loop runs.
    """

    ranker: Served
    ids: Tensor
    dense: Tensor | None
    deadline: float = math.inf
    done: asyncio.Future[Scores] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def rows(self) -> int:
        """B."""
        return len(self.ids)


class Batcher:
    """A queue of jobs. A free one of ``threads`` threads scores at once all that waits, up to ``batch_rows`` rows.

    A larger job is scored alone. Jobs leave the queue in their order, and a thread never waits for more of them. Each computes with one
    thread of PyTorch's. All methods are for the thread of the event loop. Instead of a single other thread, that one scores batches of at
    most ``inline_rows`` rows itself: two threads that take turns with Python's lock take longer than one.
    """

    def __init__(self, limits: Limits, metrics: Metrics, threads: int) -> None:
        self._limits, self._inline_rows = limits, limits.inline_rows if threads == 1 else 0
        self._scored, self._waiting = metrics.batch_rows.observe, metrics.queue_rows.set
        self._jobs: deque[Job] = deque()
        self._rows, self._free, self._closed = 0, threads, False
        self._threads = ThreadPoolExecutor(threads, "scoring", torch.set_num_threads, (1,))

    def submit(self, job: Job) -> None:
        """Let a job wait. Raises a :class:`dcrnn_fast.serving.http.request.Refused` if the queue is closed or cannot take its rows."""
        if self._closed:
            raise unavailable("stopping", "the server is stopping; ask another one")
        if self._rows + job.rows > self._limits.queue_rows:
            most = f"and with {job.rows:,} more they would be over {self._limits.queue_rows:,}"
            raise unavailable("overload", f"{self._rows:,} rows are waiting, {most}; ask again")
        self._jobs.append(job)
        self._count(job.rows)
        asyncio.get_running_loop().call_soon(self._score)  # with those that have come at the same time

    def close(self) -> None:
        """Refuse what waits and what comes. A batch that is being scored ends."""
        self._closed = True
        while self._jobs:
            self._refuse(self._jobs.popleft(), "stopping", "the server is stopping, and its time for what waits is over; ask another one")

    def _count(self, rows: int) -> None:
        self._rows += rows
        self._waiting(self._rows)

    def _refuse(self, job: Job, reason: str, message: str) -> None:
        self._count(-job.rows)
        if not job.done.done():
            job.done.set_exception(unavailable(reason, message))

    def _score(self) -> None:
        """Give free threads what waits."""
        while self._free and (batch := self._next()):
            if sum(job.rows for job in batch) <= self._inline_rows:
                self._give(batch, partial(_scores_of, batch))
                continue
            self._free -= 1
            scores = asyncio.get_running_loop().run_in_executor(self._threads, _scores_of, batch)
            scores.add_done_callback(partial(self._take, batch))

    def _next(self) -> list[Job]:
        """The jobs at the head of the queue that are scored together, if there are any."""
        batch: list[Job] = []
        now, rows = time.monotonic(), 0
        while self._jobs:
            job = self._jobs[0]
            if job.deadline < now:
                self._refuse(job, "deadline", "the deadline passed before scoring began; ask again, or allow more X-Deadline-Ms")
            elif not batch or (job.ranker is batch[0].ranker and rows + job.rows <= self._limits.batch_rows):
                batch.append(job)
                rows += job.rows
                self._count(-job.rows)
            else:
                break
            self._jobs.popleft()
        return batch

    def _take(self, batch: Sequence[Job], done: asyncio.Future[Scores]) -> None:
        """Give jobs their scores, and let the thread that is free go on."""
        self._free += 1
        self._score()
        self._give(batch, done.result)

    def _give(self, batch: Sequence[Job], result: Callable[[], Scores]) -> None:
        waiting = [job for job in batch if not job.done.done()]  # for others nobody waits any more
        try:
            scores = result()
        except Exception as error:
            for job in waiting:
                job.done.set_exception(error)
            return
        self._scored(sum(job.rows for job in batch))
        start = 0
        for job in batch:
            rows = slice(start, start + job.rows)
            start = rows.stop
            if job in waiting:
                job.done.set_result({name: values[rows] for name, values in scores.items()})


def _scores_of(batch: Sequence[Job]) -> Scores:
    # Each operation of PyTorch's gives Python's lock away, and the event loop may keep it for a while; NumPy's do not.
    ids, dense = batch[0].ids, batch[0].dense
    if len(batch) > 1:
        ids = torch.from_numpy(np.concatenate([job.ids.numpy() for job in batch]))
        dense = None if dense is None else torch.from_numpy(np.concatenate([job.dense.numpy() for job in batch if job.dense is not None]))
    with inputs_checked():  # the encoder gives no others
        return batch[0].ranker.predict_encoded(ids, dense)
