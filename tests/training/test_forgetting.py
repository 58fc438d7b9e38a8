"""``forget`` in a schema: ids that the last runs did not see give their rows to new ones."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from dcrnn_fast.training import evaluate, load_model, train
from dcrnn_fast.training.folder.checkpoint import IDLE, READS
from dcrnn_fast.training.folder.layout import RunFolder
from dcrnn_fast.training.init import continued_data, grown_encoding, read_earlier
from tests.training.runs import SEVERAL, SHARED, Notes, StoppedError, outcome, stop_at, write_log
from tests.training.runs import config_of as config_of_log
from tests.training.tiny import newest_checkpoint, tiny_config, write_table

KNOWN = {"vocabulary": {"city": ["<oov>", "a", "<missing>", "b"]}, "scaling": {}}


def config_of(schema, **changes):
    return tiny_config(schema, **{"model__first_order": True, "optimiser__epochs": 1} | changes)


def day(folder, seed, *, renamed, **changes):
    """The schema of a day's rows, on which some colours have other names."""
    path = write_table(folder, seed=seed, **{"forget": 1} | changes)
    table = path.with_name("tiny.csv")
    table.write_text(re.sub(r"^c\d", lambda found: renamed.get(found[0], found[0]), table.read_text(), flags=re.MULTILINE))
    return path


def colours(folder):
    return json.loads((folder / "encoder.json").read_text())["vocabulary"]["colour"]


def next_colours(schema, earlier):
    return continued_data(config_of(schema), read_earlier(earlier)).meta.vocabulary["colour"]


@pytest.fixture(scope="module")
def yesterday(schema, tmp_path_factory):
    """A run that went on without the colours c3 and c5. Do not write into it."""
    folder = tmp_path_factory.mktemp("forgetting")
    train(config_of(schema), folder / "before")
    train(config_of(day(folder, 1, renamed={"c3": "c1", "c5": "c1"})), folder / "run", init=folder / "before")
    return folder / "run"


@pytest.fixture(scope="module")
def today(tmp_path_factory):
    """A day without c3 and c5, on which violet is new."""
    return day(tmp_path_factory.mktemp("today"), 2, renamed={"c3": "violet", "c5": "c1"})


@pytest.fixture(scope="module")
def continued(yesterday, today, tmp_path_factory):
    """A finished run on ``today`` from ``yesterday``, its results and what it said. Do not write into it."""
    folder, notes = tmp_path_factory.mktemp("runs") / "continued", Notes()
    return folder, train(config_of(today), folder, init=yesterday, report=notes), notes.lines


def row_of(run, colour):
    """Its row in the table of ids, behind those of the shapes."""
    return dict(load_model(run / "model.safetensors")[1]["fields"])["shape"] + colours(run).index(colour)


def test_idle_counts_the_runs_in_a_row_that_did_not_read_an_id(yesterday, today, tmp_path):
    idle = load_file(RunFolder(yesterday).optimiser)[IDLE]
    assert idle.dtype == torch.int32
    assert [idle[row_of(yesterday, colour)] for colour in ("c1", "c3", "c5")] == [0, 1, 1]
    train(config_of(day(tmp_path / "day", 2, renamed={"c5": "c1"})), tmp_path / "run", init=yesterday)
    idle = load_file(RunFolder(tmp_path / "run").optimiser)[IDLE]
    assert [idle[row_of(yesterday, colour)] for colour in ("c1", "c3", "c5")] == [0, 0, 2]


def test_a_new_id_takes_the_place_of_one_that_was_not_seen(yesterday, today, continued):
    before, now = colours(yesterday), colours(continued[0])
    assert now == ["violet" if at == min(map(before.index, ("c3", "c5"))) else colour for at, colour in enumerate(before)]
    for split in ("train", "test"):  # the earlier weights read it as out of vocabulary
        assert continued[1]["init"]["metrics"][split] == evaluate(yesterday, data=str(today), split=split)["metrics"]
    drift = continued[1]["init"]["oov"]
    assert (drift["colour"]["new_ids"], drift["colour"]["gone"], "gone" in drift["shape"]) == (1, 1, False)
    assert len([line for line in continued[2] if "are gone" in line]) == 1


def test_new_ids_that_find_no_place_follow_behind(yesterday, tmp_path):
    schema = day(tmp_path / "day", 2, renamed={"c5": "violet", "c1": "teal"})
    before, now = colours(yesterday), next_colours(schema, yesterday)
    assert len(now) == len(before) + 1
    assert {*now} == {*before, "violet", "teal"} - {"c5"}
    assert [colour for colour in now if colour in before] == [colour for colour in before if colour != "c5"]


@pytest.mark.parametrize("case", ["no forget", "forget 2", "the new rows hold it"])
def test_an_id_stays(yesterday, tmp_path, case):
    forget = {"no forget": None, "forget 2": 2}.get(case, 1)
    gone = "c1" if case == "the new rows hold it" else "c5"
    schema = day(tmp_path / "day", 2, renamed={gone: "violet"}, forget=forget)
    assert next_colours(schema, yesterday) == [*colours(yesterday), "violet"]


@pytest.mark.parametrize("embedding", ["dense", "sparse"])
def test_the_row_starts_afresh_and_others_go_on(today, schema, tmp_path, embedding):
    config = {"model__embedding": embedding}
    train(config_of(schema, **config), tmp_path / "before")
    train(config_of(day(tmp_path / "day", 1, renamed={"c5": "c1"}), **config), tmp_path / "run", init=tmp_path / "before")
    with pytest.raises(StoppedError):
        train(config_of(today, seed=1, **config), tmp_path / "next", init=tmp_path / "run", report=stop_at(1))
    earlier = load_model(tmp_path / "run" / "model.safetensors")[0].state_dict()
    known, now = load_file(RunFolder(tmp_path / "run").optimiser), newest_checkpoint(tmp_path / "next").tensors
    row, table = row_of(tmp_path / "run", "c5"), "model.features.embedding.weight"
    others = torch.arange(len(known[READS])) != row
    assert torch.equal(now[table][others], earlier["features.embedding.weight"][others])
    assert not (now[table][row] == earlier["features.embedding.weight"][row]).any()
    assert earlier["features.first_order.table.weight"][row].any()
    assert not now["model.features.first_order.table.weight"][row].any()
    state = ["exp_avg", "exp_avg_sq"] if embedding == "dense" else ["sum"]
    names = {f"optimiser.{table}.{key}": f"{table}.{key}" for key in state}
    names |= {"optimiser.model.features.first_order.table.weight.sum": "model.features.first_order.table.weight.sum"}
    names |= {f"before.{name}": name for name in (READS, IDLE, "first_order.curvature")}
    for name, before in names.items():
        assert known[before][row].any(), name
        assert not now[name][row].any(), name
        assert torch.equal(now[name][others], known[before][others]), name


def test_a_stopped_run_that_forgets_goes_on_to_the_same_bits(continued, yesterday, today, tmp_path):
    with pytest.raises(StoppedError):
        train(config_of(today), tmp_path / "run", init=yesterday, report=stop_at(4))
    train(config_of(today), tmp_path / "run", init=yesterday, resume=True)
    assert outcome(tmp_path / "run") == outcome(continued[0])


def without(schema, item, columns):
    """The same schema, of rows in which another item stands for one in some columns."""
    file = schema.with_name("log.parquet")
    rows = pq.read_table(file)
    for name in columns:
        texts = pc.replace_substring(rows[name].combine_chunks(), item, "i0")
        rows = rows.set_column(rows.column_names.index(name), name, pa.chunked_array([texts]))
    pq.write_table(rows, file)
    return schema


@pytest.mark.parametrize(("columns", "place"), [(["item", "last_item"], "i3"), (["item"], None)])
def test_fields_that_share_ids_count_and_change_together(run_of, tmp_path, columns, place):
    run = run_of(SHARED)
    day = without(write_log(tmp_path / "day", SHARED, seed=1), "i3", columns)
    train(config_of_log(SHARED, day), tmp_path / "run", init=run.folder)
    novel = write_log(tmp_path / "next", SHARED, seed=2, rename="i3", forget=1)
    vocabulary = continued_data(config_of_log(SHARED, novel), read_earlier(tmp_path / "run")).meta.vocabulary
    before = json.loads((run.folder / "encoder.json").read_text())["vocabulary"]["item"]
    expected = ["novel" if text == place else text for text in before] + ["novel"] * (place is None)
    assert vocabulary["item"] == vocabulary["last_item"] == expected


def test_fields_of_several_values_forget_too(run_of, tmp_path):
    run, days = run_of(SEVERAL), [write_log(tmp_path / f"{seed}", SEVERAL, seed=seed, rename="i3", forget=1) for seed in (1, 2)]
    train(config_of_log(SEVERAL, days[0]), tmp_path / "run", init=run.folder)
    text = pq.read_table(file := days[1].with_name("log.parquet"))
    rows = {name: json.loads(json.dumps(text[name].to_pylist()).replace("novel", "later")) for name in text.column_names}
    pq.write_table(pa.table(rows), file)
    metrics = train(config_of_log(SEVERAL, days[1]), tmp_path / "next", init=tmp_path / "run")
    known, now = (json.loads((folder / "encoder.json").read_text())["vocabulary"] for folder in (tmp_path / "run", tmp_path / "next"))
    assert now == {field: ["later" if text == "i3" else text for text in texts] for field, texts in known.items()}
    assert {field: share["gone"] for field, share in metrics["init"]["oov"].items()} == {"tags": 1, "seen": 1, "item": 1}


@pytest.mark.parametrize(
    ("now", "unseen", "options", "expected"),
    [
        (["c", "d", "e"], [0, 1, 2, 3], {}, ["c", "<missing>", "d", "e"]),  # cells that are missing or unseen keep their ids
        (["c"], [3, 1], {}, ["a", "<missing>", "c"]),  # the longest unseen one leaves first
        (["c"], [1, 3], {"but": "city"}, ["a", "<missing>", "b"]),  # a field of scenarios forgets nothing
        (["c"], [], {"but": "city"}, ["a", "<missing>", "b"]),  # nor grows
    ],
)
def test_an_encoding_grows_into_the_places_of_ids_that_are_unseen(now, unseen, options, expected):
    unseen = {"city": np.array(unseen, int)}
    grown = grown_encoding(KNOWN, {"city": ["<oov>", *now]}, unseen=unseen, **options)
    assert grown["vocabulary"]["city"] == ["<oov>", *expected]
    assert grown_encoding(KNOWN, grown["vocabulary"], unseen=unseen, **options) == grown, "it has grown already"


def test_other_spellings_of_known_truth_values_are_no_new_ids():
    known = {"vocabulary": {"member": ["<oov>", "false", "true"]}}
    assert grown_encoding(known, {"member": ["<oov>", "0", "1"]}) == known
    assert grown_encoding(known, {"member": ["<oov>", "1", "maybe"]})["vocabulary"]["member"][3:] == ["1", "maybe"]
