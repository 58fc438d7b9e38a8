"""Packed folders, splits and orders of rows that do not exist or were changed."""

import json

import numpy as np

from dcrnn_fast.data import BlockLoader, PackedMeta, open_packed
from dcrnn_fast.errors import DataError
from tests.data.packed.test_block_loader import numbered
from tests.refusals import refused, row, rows


def an_array_of_another_shape_or_type(replacement, table):
    folder = table.prepare().path
    np.save(folder / "train.ids.npy", replacement, allow_pickle=True)
    open_packed(folder)


def a_tampered_meta(change, table):
    file = table.prepare().path / "meta.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    open_packed(file.parent)


def a_meta_that_is_no_meta(content, table):
    file = table.prepare().path / "meta.json"
    file.write_text(content)
    open_packed(file.parent)


def a_sealed_meta_with_entries_of_wrong_types(change, table):
    file = table.prepare().path / "meta.json"
    content = {**json.loads(file.read_text()), **change}
    known = {key: value for key, value in content.items() if key != "extra"}
    content["digest"] = PackedMeta(**known).computed_digest()
    file.write_text(json.dumps(content))
    open_packed(file.parent, verify=True)


TABLE = [
    row("an empty split", lambda: BlockLoader(numbered(0), 4), DataError, "split 'train' is empty"),
    *rows("a size below one", lambda argument: BlockLoader(numbered(3), **{"batch_size": 2, argument: 0}), ValueError,
        said="(batch_size|block_rows|window_blocks)=0: expected at least 1", values=["batch_size", "block_rows", "window_blocks"]),
    *rows("an epoch or start out of range is refused at the call",
        lambda epoch, start: BlockLoader(numbered(3), 2).batches(epoch, start), ValueError, said="expected", cases=[
        (-1, 0),
        (0, -1),
        (0, 3),
    ]),
    *rows("an array of another shape or type is named with both",
        an_array_of_another_shape_or_type, DataError, said=r"train\.ids\.npy holds .* states int32 \[8, 2\]", values=[
        np.zeros((8, 2), np.int64), np.zeros((8, 3), np.int32),
    ]),
    *rows("an array that would be unpickled is not opened", an_array_of_another_shape_or_type, DataError,
        said=r"train\.ids\.npy cannot be opened .* Python objects", values=[np.array([[print]], object)]),
    *rows("a tampered meta", a_tampered_meta, DataError, said=r"meta\.json does not match its own digest", values=[
        {"rows": {"train": 7, "valid": 0, "test": 2}}, {"funnel": True}, {"fields": {"city": 9, "price": 5}},
    ]),
    *rows("a meta that is no meta", a_meta_that_is_no_meta, DataError, said=r"meta\.json", values=[
        "{", "[]", "{}", '{"format_version": 1}', '{"format_version": 999}', "null", "[" * 99_999, "1" * 5000,
    ]),
    *rows("a sealed meta with entries of wrong types is refused by entry",
        a_sealed_meta_with_entries_of_wrong_types, DataError, within=r"meta\.json.*{}", cases=[
        ({"rows": {"train": "8"}}, r"rows is \{'train': '8'\}, expected the number of rows"),
        ({"rows": {"../train": 8}}, "rows is .* expected the number of rows of train, valid and test"),
        ({"fields": {"city": -1, "price": 5}}, "fields is .* expected the number of ids by column"),
        ({"tasks": "click"}, "tasks is 'click', expected a list of texts"),
        ({"vocabulary": {"city": [1, "a"]}}, "vocabulary is .* expected a list of texts or of rising numbers"),
        ({"scaling": {"price": {"mean": 1, "std": 0, "treatment": "log1p"}}}, r"scaling is .* std \(above 0\)"),
        ({"checksums": {"../../etc/hosts": ""}}, "checksums names .* expected "),
        ({"extra": 1}, "has an unknown one"),
    ]),
    row("a folder without meta is not a packed data set", lambda tmp_path: open_packed(tmp_path), DataError, "not a packed data set"),
    row("an unknown split is named with the known ones",
        lambda table: table.prepare().split("dev"), DataError, "no split 'dev'; it has train, valid, test"),
    row("a folder that cannot be written is named with the remedy",
        lambda table: ((table.folder / "cache").write_text("a file where the cache folder should be"), table.prepare()),
        DataError, r"cannot be written to .*cache.*DCRNN_FAST_CACHE"),
]  # fmt: skip

test_it_is_refused = refused(TABLE)
