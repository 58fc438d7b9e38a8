"""A calibrated run's file gives its calibrated probabilities in every format, by the graph alone."""

import shutil

import numpy as np
import pytest
import torch

from dcrnn_fast import DCRNN, Ranker
from dcrnn_fast.data import Encoder
from dcrnn_fast.errors import ExportError
from dcrnn_fast.serving import export, load_exported, model_id
from dcrnn_fast.serving.export import export as exporting
from dcrnn_fast.serving.export import formats, package
from dcrnn_fast.serving.export import load as exported
from dcrnn_fast.serving.export.export import Calibrated
from dcrnn_fast.training import calibrate
from dcrnn_fast.training.evaluate.calibration_file import Calibration, Isotonic, Platt, read_calibration
from dcrnn_fast.training.folder.weights import read_weights

from .test_export import ROWS, assert_same
from .test_export_onnx import needs_onnx

TASKS = ("see", "click", "buy")
COUNTS = {"rows": 9, "positives": 3}
LINE = Platt(method="platt", slope=0.7, intercept=-1.25, **COUNTS)
FLAT = Platt(method="platt", slope=0.0, intercept=-2.5, **COUNTS)
ONE = Isotonic(method="isotonic", knots=[0.25], calibrated=[-1.0], **COUNTS)
TIES = Isotonic(method="isotonic", knots=[-2.0, -0.5, -0.25, 0.0, 1.5], calibrated=[-3.0, -3.0, -1.0, 0.5, 0.5], **COUNTS)
MANY = Isotonic(method="isotonic", knots=np.linspace(-6, 6, 64).tolist(), calibrated=np.sinh(np.linspace(-2, 2, 64)).tolist(), **COUNTS)
STEEP = Isotonic(method="isotonic", knots=[-9.0, 0.0, 5e-324, 9.0], calibrated=[-30.0, -30.0, 30.0, 30.0], **COUNTS)
EXTREMES = [0.0, 1e-45, 1e-30, 1e-7, 0.25, 0.5, 0.75, 1 - 2**-24, 1.0]


class Given(torch.nn.Module):
    """Gives the columns of dense as the probabilities, of which later tasks of a chain are products."""

    def __init__(self, chain):
        super().__init__()
        self.chain = chain

    def forward(self, ids, dense):
        p = dense.unbind(1)
        if not self.chain:
            return dict(zip(TASKS, p, strict=True))
        return dict(zip(TASKS, dense.cumprod(1).unbind(1), strict=True)) | {"click_given_see": p[1], "buy_given_click": p[2]}


def calibration_of(maps, chain):
    names = ("see", "click_given_see", "buy_given_click") if chain else TASKS
    return Calibration(weights="", split="valid", maps=dict(zip(names, maps, strict=True)))


@pytest.mark.parametrize(("chain", "rate"), [(True, 1.0), (True, 0.05), (False, 1.0)])
@pytest.mark.parametrize("maps", [(LINE, FLAT, LINE), (TIES, ONE, MANY), (MANY, LINE, STEEP)], ids=["platt", "isotonic", "both"])
def test_the_module_computes_what_the_calibration_applies(maps, chain, rate):
    drawn = np.random.default_rng(0).random((2000, 3)).astype(np.float32)
    p = torch.from_numpy(np.concatenate([drawn, np.repeat(np.float32(EXTREMES), 3).reshape(-1, 3)]))
    calibration = calibration_of(maps, chain)
    plain = Given(chain)
    scores = {name: values.numpy() for name, values in plain(None, p).items()}
    found = {name: values.numpy() for name, values in Calibrated(plain, calibration, TASKS, rate)(torch.zeros(0), p).items()}
    expected = calibration.apply(scores, TASKS, rate)
    assert_same(found, expected, rtol=3e-7)
    if chain:
        assert (found["buy"] <= found["click"]).all()
        assert (found["click"] <= found["see"]).all()


def ranker_of(maps, *, chain=True, rate=1.0, seed=0):
    """A ranker of drawn weights, so large that its probabilities lie far apart, and that some are 0 or 1 in float32."""
    vocabulary = {"item": ["<oov>", *map(str, range(49))], "shop": list(range(5))}
    encoder = Encoder(tasks=TASKS, num_embeddings={"item": 50, "shop": 7}, dense=[], vocabulary=vocabulary, scaling={})
    torch.manual_seed(seed)
    options = {"embedding_dim": 4, "steps": 3, "rank": None, "tower_dims": [8], "backend": "reference"}
    model = DCRNN(encoder.num_embeddings, tasks=TASKS, relation="chain" if chain else "independent", **options)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    model.negative_rate = rate
    return Ranker(model, encoder, calibration_of(maps, chain), "ab")


def graph(ranker):
    return exporting.traced(ranker.model, ranker.calibration)


def through_pt2(ranker, path):
    exporting.write_program(graph(ranker), {package.ABOUT: "{}", package.ENCODER: "{}"}, path / "model.pt2")
    with (path / "model.pt2").open("rb") as file:
        program = exported._load_program(file, path)
    return torch.inference_mode()(lambda ids, dense: program(ids))


def through_onnx(ranker, path):
    formats.write_onnx(graph(ranker), {}, ranker.names, path / "model.onnx")
    return formats.onnx_program(path / "model.onnx", ranker.names)


@pytest.mark.parametrize("write", [through_pt2, pytest.param(through_onnx, marks=needs_onnx)])
@pytest.mark.parametrize(
    "options",
    [{"maps": (LINE, FLAT, LINE), "rate": 0.05}, {"maps": (TIES, ONE, MANY), "rate": 0.05}, {"maps": (TIES, LINE, MANY), "chain": False}],
    ids=["platt", "isotonic", "independent"],
)
def test_a_file_gives_the_calibrated_probabilities(options, write, tmp_path):
    ranker = ranker_of(**options)
    predict = write(ranker, tmp_path)
    assert exporting.compare(ranker, predict, rows=200, seed=0) <= exporting.TOLERANCE
    ids, _ = exporting.draw(ranker.encoder.num_embeddings, 0, 200, seed=0)
    found = {name: np.asarray(values) for name, values in predict(ids, None).items()}
    if "chain" not in options:
        assert (found["buy"] <= found["click"]).all()
    spread = np.ptp(ranker.predict_encoded(ids, None)["buy"])
    assert spread > 0.01, "the probabilities lie so near each other that the comparison says little"


@pytest.mark.parametrize("map_at_fault", range(3))
def test_a_map_that_is_a_little_off_is_found(map_at_fault):
    ranker = ranker_of((LINE, TIES, LINE), rate=0.05)
    maps = list(ranker.calibration.maps.values())
    off = maps[map_at_fault]
    moved = {"intercept": off.intercept + 1e-3} if isinstance(off, Platt) else {"calibrated": [y + 1e-3 for y in off.calibrated]}
    maps[map_at_fault] = off.model_copy(update=moved)
    other = Ranker(ranker.model, ranker.encoder, calibration_of(maps, chain=True))
    with pytest.raises(ExportError, match="differs by"):
        exporting.compare(ranker, other.predict_encoded, rows=300, seed=0)


def test_rounding_that_a_steep_step_magnifies_is_no_difference(monkeypatch):
    ranker = ranker_of((LINE, LINE, LINE))
    p = Ranker(ranker.model, ranker.encoder).predict_encoded(torch.tensor([[1, 1]]), None)["see"][0]
    z = float(np.log(np.float64(p)) - np.log1p(-np.float64(p)))
    steep = Isotonic(method="isotonic", knots=[z - 1e-4, z + 1e-4], calibrated=[-1.0, 1.0], **COUNTS)
    ranker.calibration = calibration_of((steep, LINE, LINE), chain=True)
    plain = Ranker(ranker.model, ranker.encoder)

    def file(nudge):
        def predict(ids, dense):
            scores = {name: values * np.float32(1 + nudge) for name, values in plain.predict_encoded(ids, dense).items()}
            return ranker.calibration.apply(scores, TASKS)

        return predict

    monkeypatch.setattr(exporting, "draw", lambda sizes, num_dense, rows, seed: (torch.tensor([[1, 1]]).repeat(rows, 1), None))
    off = abs(file(5e-7)(torch.tensor([[1, 1]]), None)["see"] - ranker.predict_encoded(torch.tensor([[1, 1]]), None)["see"])
    assert off > exporting.TOLERANCE, "the step is not steep enough"
    assert exporting.compare(ranker, file(5e-7), rows=50, seed=0) <= exporting.TOLERANCE
    with pytest.raises(ExportError, match="see differs by"):
        exporting.compare(ranker, file(-1e-5), rows=50, seed=0)


@pytest.fixture(scope="module", params=["platt", "isotonic"])
def calibrated(request, shop, tmp_path_factory):
    """A calibrated run and its file."""
    folder = tmp_path_factory.mktemp("calibrated")
    shutil.copytree(shop / "run", folder / "run")
    calibrate(folder / "run", method=request.param)
    export(folder / "run", folder / "shop.pt2")
    return folder, request.param


def test_the_file_of_a_calibrated_run_scores_as_it_and_has_its_id(calibrated, shop):
    folder, method = calibrated
    run, file = Ranker.load(folder / "run"), load_exported(folder / "shop.pt2")
    assert_same(file.predict(ROWS), run.predict(ROWS))
    assert file.about["calibrated"] == {"click": method, "buy_given_click": method}
    _, about, weights = read_weights(folder / "run" / "model.safetensors")
    calibration, encoding = read_calibration(folder / "run" / "calibration.json", about, weights), about["encoding"]
    assert file.id == file.about["model"] == run.id == model_id(weights, encoding, calibration)
    others = model_id("", encoding, calibration), model_id(weights, "", calibration), model_id(weights, encoding, None)
    assert len({file.id, *others}) == 4
    assert Ranker.load(shop / "run").id == others[2]
