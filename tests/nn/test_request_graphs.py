"""Requests on a GPU take recorded work, with the logits of a call with as many rows. A CPU's stand-in for CUDA graphs records here."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from dcrnn_fast.nn import inference
from dcrnn_fast.nn.inference import ROWS
from tests.nn.test_inference import made, rows
from tests.recorded_operators import RecordedOperators


@pytest.fixture
def recorder(monkeypatch):
    """What a model that is prepared now records its requests with."""
    found = RecordedOperators()
    monkeypatch.setattr(inference, "recorder_for", lambda model: found)
    return found


MODELS = {
    "default": {},
    "plain PyTorch": {"backend": "reference"},
    "transfer": {"relation": "transfer"},
    "no numbers": {"num_dense": 0},
    "projected numbers": {"dense_bins": 0},
    "trunk": {"sharing": "trunk"},
}


@pytest.mark.parametrize("batch", [1, 3, 8, 100, 512])
@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_a_request_has_the_logits_of_the_model(recorder, options, batch):
    model = made(torch.float64, **options)
    prepared = model.prepare_inference()
    prepared(*rows(model, 512))
    ids, dense = rows(model, batch)
    found = prepared(ids, dense)
    torch.testing.assert_close(found, model(ids, dense).detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(prepared.predict(ids, dense), model.predict(ids, dense), rtol=1e-6, atol=1e-12)
    assert recorder.launches == 3


def test_a_request_has_the_bits_of_a_call_with_as_many_rows_as_the_graph(recorder):
    model = made(backend="reference")
    ids, dense = rows(model, 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "recorder_for", lambda model: None)
        unrecorded = model.prepare_inference()
    prepared = model.prepare_inference()
    assert torch.equal(prepared(ids, dense), unrecorded(ids, dense))
    assert torch.equal(prepared(ids[:5], dense[:5]), unrecorded(ids, dense)[:5])


def test_more_rows_than_the_largest_graph_has_are_computed_without(recorder):
    model = made(torch.float64)
    prepared, (ids, dense) = model.prepare_inference(), rows(model, ROWS[-1] + 1)
    torch.testing.assert_close(prepared(ids, dense), model(ids, dense).detach())
    assert recorder.launches == 0


def test_a_result_stays_when_the_next_request_comes(recorder):
    model = made()
    prepared, (ids, dense) = model.prepare_inference(), rows(model, 2)
    first = prepared(ids[:1], dense[:1])
    before = first.clone()
    prepared(ids[1:], dense[1:])
    assert torch.equal(first, before)


def test_an_id_outside_its_field_is_refused_by_name(recorder):
    model = made()
    prepared, (ids, dense) = model.prepare_inference(), rows(model, 5)
    ids[3, 1] = 9
    with pytest.raises(IndexError, match=r"field 'item' \(column 1\) has id 9, expected \[0, 9\)"):
        prepared.predict(ids, dense)


def test_a_request_that_cannot_be_recorded_names_the_way_out(recorder, monkeypatch):
    def waiting(work):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(recorder, "record", waiting)
    with pytest.raises(RuntimeError, match=r"a request of 1 rows cannot .*: operation not permitted .*; set DCRNN_FAST_CUDA_GRAPHS=0"):
        made().prepare_inference()


def test_requests_of_many_threads_have_their_own_results(recorder):
    model = made(torch.float64)
    prepared, (ids, dense) = model.prepare_inference(), rows(model, 64)
    expected = model(ids, dense).detach()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda row: prepared(ids[row : row + 1], dense[row : row + 1]), range(64)))
    torch.testing.assert_close(torch.cat(found), expected, rtol=1e-10, atol=1e-10)
