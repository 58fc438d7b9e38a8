"""Requests that wait are scored together: a queue with a limit, deadlines, and the threads that score."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..export.load import ExportedRanker
from ..ranker import Ranker, Scores


class Refused(Exception):  # noqa: N818 (it is an answer, not a failure)
    """A request that is not scored. ``reason``: "overload", the queue is full; "deadline", it waited too long; "stopping"."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(eq=False)
class Job:
    """Encoded rows that wait for their scores: ids [B, F] int64, dense [B, Nd] float32 or None, B >= 1.

    ``ranker`` has encoded them, and scores them. ``deadline`` is the value of :func:`time.monotonic` until which scoring must begin, or
    None. ``done`` receives the scores, a :class:`Refused`, or what the ranker raised.
    """

    ranker: Ranker | ExportedRanker
    ids: Tensor
    dense: Tensor | None
    deadline: float | None = None
    done: Future[Scores] = field(default_factory=Future)

    @property
    def rows(self) -> int:
        """B."""
        return len(self.ids)


class Batcher:
    """A queue of jobs, and ``threads`` threads that each score, at once, all that waits, up to ``max_batch_rows`` rows.

    A larger job is scored alone. Jobs leave the queue in their order, and a thread never waits for more of them. ``scored`` is called with
    the rows of each batch, ``waiting`` with the rows in the queue whenever they change. Each thread computes with one thread of PyTorch's.

    >>> ranker = Ranker.load("runs/shop")  # doctest: +SKIP
    >>> batcher = Batcher(max_queue_rows=1000, max_batch_rows=512, threads=1)  # doctest: +SKIP
    >>> job = Job(ranker, *ranker.encoder.encode({"item": ["i1"]}))  # doctest: +SKIP
    >>> batcher.submit(job)  # doctest: +SKIP
    >>> job.done.result()["click"]  # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        max_queue_rows: int,
        max_batch_rows: int,
        threads: int,
        scored: Callable[[int], Any] = lambda rows: None,
        waiting: Callable[[int], Any] = lambda rows: None,
    ) -> None:
        self._max_queue_rows, self._max_batch_rows = max_queue_rows, max_batch_rows
        self._scored, self._waiting = scored, waiting
        self._jobs: deque[Job] = deque()
        self._rows, self._closed = 0, False
        self._changed = threading.Condition()
        for number in range(threads):
            threading.Thread(target=self._work, name=f"scoring-{number}", daemon=True).start()

    def submit(self, job: Job) -> None:
        """Let a job wait. Raises :class:`Refused` where the queue cannot take its rows, or is closed."""
        with self._changed:
            if self._closed:
                raise Refused("stopping", "the server is stopping; ask another one")
            if self._rows + job.rows > self._max_queue_rows:
                raise Refused(
                    "overload",
                    f"{self._rows:,} rows are waiting, and with {job.rows:,} more they would be over {self._max_queue_rows:,}; ask again",
                )
            self._jobs.append(job)
            self._count(job.rows)
            self._changed.notify()

    def close(self) -> None:
        """Refuse what waits and what comes. A batch that is being scored ends."""
        with self._changed:
            self._closed = True
            left = list(self._jobs)
            self._jobs.clear()
            self._count(-self._rows)
            self._changed.notify_all()
        _refuse(left, "stopping", "the server is stopping, and its time for what waits is over; ask another one")

    def _count(self, rows: int) -> None:
        self._rows += rows
        self._waiting(self._rows)

    def _work(self) -> None:
        torch.set_num_threads(1)
        while batch := self._next():
            self._score(batch)

    def _next(self) -> list[Job]:
        """The jobs at the head of the queue that are scored together; none when it is closed."""
        batch: list[Job] = []
        while not batch and not self._closed:
            late: list[Job] = []
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                now, rows = time.monotonic(), 0
                while self._jobs:
                    job = self._jobs[0]
                    if job.deadline is not None and job.deadline < now:
                        late.append(job)
                    elif not batch or (job.ranker is batch[0].ranker and rows + job.rows <= self._max_batch_rows):
                        batch.append(job)
                        rows += job.rows
                    else:
                        break
                    self._jobs.popleft()
                    self._count(-job.rows)
            _refuse(late, "deadline", "the deadline passed before scoring began; ask again, or allow more X-Deadline-Ms")
            batch = [job for job in batch if job.done.set_running_or_notify_cancel()]
        return batch

    def _score(self, batch: Sequence[Job]) -> None:
        try:
            dense = None if batch[0].dense is None else torch.cat([job.dense for job in batch if job.dense is not None])
            scores = batch[0].ranker.predict_encoded(torch.cat([job.ids for job in batch]), dense)
        except BaseException as error:
            for job in batch:
                job.done.set_exception(error)
            return
        self._scored(sum(job.rows for job in batch))
        start = 0
        for job in batch:
            rows = slice(start, start + job.rows)
            start = rows.stop
            job.done.set_result({name: values[rows] for name, values in scores.items()})


def _refuse(jobs: Sequence[Job], reason: str, message: str) -> None:
    for job in jobs:
        if job.done.set_running_or_notify_cancel():
            job.done.set_exception(Refused(reason, message))
