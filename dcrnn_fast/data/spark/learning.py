"""Learns from train rows on Spark: what is learned is a sum, which the parts of a table add up to in any order."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ...errors import DataError
from ..build.apply import FittedSchema
from ..build.build import meta_of
from ..build.splits import TRAIN
from ..build.train_rows import NumberQuestion, StagedTrainRows, TextQuestion
from ..encoder.encoder import Encoder
from ..packed.arrays import PackedWriter, no_progress
from ..packed.meta import SPLITS
from ..schema.fields import zoned_columns
from ..schema.table import TableSchema
from .frames import check_columns, errors, kept, without_histories
from .packing import new_folder
from .staging import all_in, facts_of, loaded, opened, staged

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def learn(frame: DataFrame, schema: str | Path | Mapping[str, Any], output: str | Path) -> Encoder:
    """Learn from train rows what `prepare` learns from them, and write it to `output`, as a packed folder without rows.

    `frame` holds the train rows alone, with the columns that features are made of. It is read once: until learning ends, Spark keeps what
    is read in its workers' memory and on their disks. `schema` is a path or a dict; its `files` and `split` must be valid, and are not
    read. `output` is a path or an address, such as s3://bucket/learned; `prepare(output)` opens it, and its `meta.encoding` encodes other
    rows alike. The driver holds the vocabularies.

    Raises DataError for an invalid schema, one with `histories`, a frame without rows or without a column, times that are used as text,
    cells that are not what their column is used as, and an `output` that exists.
    """
    table = without_histories(schema)
    check_columns("frame", frame, table, learns=True)
    with new_folder(output) as (_, _, scratch):
        with kept(staged(frame, table, all_in(TRAIN), zoned_columns(table.derived_features))) as pieces:
            fitted = fit(table, pieces, *facts_of(pieces))
        with PackedWriter(scratch, meta_of(table, fitted, dict.fromkeys(SPLITS, 0))) as writer:
            writer.finish()
        return Encoder.load(scratch)


def fit(table: TableSchema, pieces: DataFrame, rows: Sequence[int], zoned: Mapping[str, bool]) -> FittedSchema:
    """What is learned from the train rows in some pieces, whose facts these are. Raises DataError if there are none."""
    if not rows[TRAIN]:
        raise DataError(f"schema {table.name!r}: the frame has no train rows")
    with errors():
        return FittedSchema.fit(table, SparkTrainRows(table, pieces, zoned), no_progress)


class SparkTrainRows:
    """The train rows in the pieces of a staged frame, as :class:`.build.train_rows.TrainRows`. All questions of a kind are one job."""

    def __init__(self, schema: TableSchema, pieces: DataFrame, zoned: Mapping[str, bool]) -> None:
        self._schema, self._pieces, self._zoned = schema, pieces, zoned

    def texts(self, questions: Sequence[TextQuestion]) -> Iterator[list[str]]:
        """As :class:`.build.train_rows.TrainRows` says."""

        if not questions:
            return

        def counted(rows: StagedTrainRows) -> Iterator[pa.RecordBatch]:
            for number, question in enumerate(questions):
                texts, counts = rows.text_counts(question)
                cells = pa.table({"text": texts, "n": counts}).filter(pc.field("n") > 0)
                for batch in cells.group_by("text").aggregate([("n", "sum")]).to_batches():
                    numbers = pa.repeat(pa.scalar(number, pa.int32()), batch.num_rows)
                    yield pa.RecordBatch.from_arrays([numbers, *batch.columns], names=["question", "text", "n"])

        least = ", ".join(str(question.min_count) for question in questions)
        parts = self._mapped("texts", counted, "question int, text string, n long").groupBy("question", "text").sum("n")
        found = parts.toDF("question", "text", "n").where(f"n >= array({least})[question]").toArrow()
        for number in range(len(questions)):
            answer = found.filter(pc.field("question") == number).sort_by([("n", "descending"), ("text", "ascending")])
            yield answer["text"].to_pylist()

    def numbers(self, questions: Sequence[NumberQuestion]) -> list[Future[Any]]:
        """As :class:`.build.train_rows.TrainRows` says."""
        answers: list[Any] = list(questions)
        while asked := {number: answer for number, answer in enumerate(answers) if isinstance(answer, NumberQuestion)}:
            for row in self._answers(asked).collect():
                answers[row.question] = loaded(row.part)
        futures = [Future[Any]() for _ in answers]
        for future, answer in zip(futures, answers, strict=True):
            future.set_result(answer)
        return futures

    def _answers(self, asked: Mapping[int, NumberQuestion]) -> DataFrame:
        """The answers by number: each task summarises its numbers for each question, and a task for each question adds these up."""

        def summaries(rows: StagedTrainRows) -> Iterator[pa.RecordBatch]:
            for number, question in asked.items():
                with _finite(question):
                    yield _numbered(number, question.of(rows.numbers_of(question.column)))

        def answer(parts: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:  # Spark reads these types
            found = ((number.as_py(), loaded(part.as_py())) for batch in parts for number, part in zip(*batch.columns, strict=True))
            number, total = reduce(lambda one, more: (one[0], one[1] + more[1]), found)
            with _finite(asked[number]):
                yield _numbered(number, asked[number].then(total))

        columns = "question int, part binary"
        return self._mapped("numbers", summaries, columns).groupBy("question").applyInArrow(answer, columns)

    def zoned(self, name: str) -> bool | None:
        """As :class:`.build.train_rows.TrainRows` says."""
        return self._zoned.get(name)

    def _mapped(self, kind: str, of: Callable[[StagedTrainRows], Iterator[pa.RecordBatch]], columns: str) -> DataFrame:
        """What a function makes of the texts or numbers of each partition's train rows."""
        schema = self._schema

        def mapped(pieces: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            with opened(pieces, schema) as (table, splits, database):
                yield from of(StagedTrainRows(table, splits, database))

        return self._pieces.select("splits", kind).mapInArrow(mapped, columns)


@contextmanager
def _finite(question: NumberQuestion) -> Iterator[None]:
    try:
        yield
    except OverflowError:
        raise DataError(f"holds a number that is {question.problem}", column=question.column) from None


def _numbered(number: int, content: Any) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"question": pa.array([number], pa.int32()), "part": [pickle.dumps(content)]})
