"""Learns from train rows on Spark: what is learned is a sum, which the parts of a table add up to in any order."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import reduce
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ...errors import DataError
from ..build.apply import FittedSchema
from ..build.splits import TRAIN
from ..build.train_rows import TOO_LARGE, NumberQuestion, StagedTrainRows, TextQuestion
from ..packed.arrays import no_progress
from ..schema.table import TableSchema
from .frames import errors
from .staging import loaded, opened

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def fit(table: TableSchema, pieces: DataFrame, rows: Sequence[int], zoned: Mapping[str, bool]) -> FittedSchema:
    """What is learned from the train rows in some pieces, whose facts these are. Raises DataError if there are none."""
    if not rows[TRAIN]:
        raise DataError(f"schema {table.name!r}: the frame has no train rows")
    with errors():
        return FittedSchema.fit(table, SparkTrainRows(table, pieces), zoned, no_progress)


class SparkTrainRows:
    """The train rows in the pieces of a staged frame, as :class:`.build.train_rows.TrainRows`. All questions of a kind are one job."""

    def __init__(self, schema: TableSchema, pieces: DataFrame) -> None:
        self._schema, self._pieces = schema, pieces

    def texts(self, questions: Sequence[TextQuestion]) -> Iterator[list[str]]:
        """As :class:`.build.train_rows.TrainRows` says."""

        if not questions:
            return

        def counted(rows: StagedTrainRows) -> Iterator[pa.RecordBatch]:
            for number, question in enumerate(questions):
                cells = rows.text_counts(question).filter(pc.field("n") > 0)
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
                yield _part(number, question, question.of, rows.numbers_of(question.column))

        def answer(parts: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:  # Spark reads these types
            found = ((number.as_py(), loaded(part.as_py())) for batch in parts for number, part in zip(*batch.columns, strict=True))
            number, total = reduce(lambda one, more: (one[0], one[1] + more[1]), found)
            yield _part(number, asked[number], asked[number].then, total)

        columns = "question int, part binary"
        return self._mapped("numbers", summaries, columns).groupBy("question").applyInArrow(answer, columns)

    def _mapped(self, kind: str, of: Callable[[StagedTrainRows], Iterator[pa.RecordBatch]], columns: str) -> DataFrame:
        """What a function makes of the texts or numbers of each partition's train rows."""
        schema = self._schema

        def mapped(pieces: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            with opened(pieces, schema) as (table, splits, database):
                yield from of(StagedTrainRows(table, splits, database))

        return self._pieces.select("splits", kind).mapInArrow(mapped, columns)


def _part(number: int, question: NumberQuestion, of: Callable[[Any], Any], given: Any) -> pa.RecordBatch:
    try:
        part = pickle.dumps(of(given))
    except OverflowError:
        raise DataError(f"holds a number that is {TOO_LARGE}", column=question.column) from None
    return pa.RecordBatch.from_pydict({"question": pa.array([number], pa.int32()), "part": [part]})
