"""The Triton and the CUDA C++ kernels on a GPU against the eager reference, its compiled forms, torchrec's mathematics, and the floors.

Ratios are times over times: above 1 is slower than the peer named. Every candidate is checked on all of the rows that it is timed on. One
that fails is recorded with its error's first line in the column "failed". Without a GPU nothing is measured: under Triton's interpreter
a small case runs on the CPU, as a smoke test.
"""

import gc

import pytest
import torch

from dcrnn_fast import CrossRNN, DCNv2, SharingPlan, backends, functional, kernels, reference
from dcrnn_fast.kernels.tile_file import file_name

from .candidates import check, gathers, products, step
from .interleave import measured, rounds
from .test_dcn import CrossNetMath

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
CARD = file_name(torch.cuda.get_device_name()) if CUDA else "interpreted"
STEPS, SHARE_RATIO = 3, 0.5
STRETCH = 2e-3 if CUDA else 0.0
DTYPES = {"bfloat16": (torch.bfloat16, 5e-2), "tf32": (torch.float32, 2e-3)}
BATCHES, DIMS, TASKS = (8192, 256, 2048, 65536), (624, 256, 128, 1024), (2, 1, 4)
OURS = [name for name in ("triton", "cuda") if backends.REASONS[name] is None and (CUDA or name == "triton")]
AUTOTUNED_TASKS = 2
"""max-autotune compiles for minutes a case: only for this many tasks."""

pytestmark = [
    pytest.mark.skipif(not OURS, reason=f"no kernels for a GPU here: {backends.REASONS['triton']}; {backends.REASONS['cuda']}"),
    pytest.mark.skipif(not CUDA and not kernels.INTERPRETED, reason="no CUDA device"),
]


def pytest_generate_tests(metafunc):
    full = metafunc.config.getoption("--benchmark")
    grids = {
        ("dim", "batch", "tasks"): [(d, b, t) for t in TASKS for d in DIMS for b in BATCHES] if full else [(17, 9, 2)],
        ("dim", "batch"): [(d, b) for d in DIMS for b in BATCHES] if full else [(17, 9)],
        ("dim", "tasks"): [(d, t) for t in TASKS for d in DIMS] if full else [(17, 2)],
    }
    names = next(names for names in grids if set(names) <= set(metafunc.fixturenames))
    ids = ["-".join(f"{name[0].upper()}{value}" for name, value in zip(names, case, strict=True)) for case in grids[names]]
    metafunc.parametrize(names, grids[names], ids=ids)


@pytest.fixture(autouse=True)
def _clean(measuring):
    if measuring and not CUDA:
        pytest.skip("no CUDA device: nothing can be measured")
    torch.manual_seed(0)
    torch._dynamo.reset()
    yield
    gc.collect()
    if CUDA:
        torch.cuda.empty_cache()


@pytest.fixture(params=DTYPES)
def dtype(request):
    """The name; float32 products are computed in tf32 by PyTorch and by the kernels alike."""
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32" if request.param == "tf32" else before
    yield request.param
    torch.backends.cuda.matmul.fp32_precision = before


def first_line(error):
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"


class Candidates:
    """Those that work, as calls to time, and what the others failed with."""

    def __init__(self):
        self.calls, self.failed = {}, {}

    def add(self, name, make, checked):
        """Add what ``make`` makes if it passes ``checked``, which runs it once: compiled forms compile here."""
        try:
            made = make()
            self.calls[name] = checked(made)
        except Exception as error:
            self.failed[name] = first_line(error)
            gc.collect()
            if CUDA:
                torch.cuda.empty_cache()

    def figures(self, seconds):
        """A row: times, and ratios of each of ours to the others. Where all of ours fail, or the timing, there are no times."""
        found, ours = {}, [name for name in OURS if name in self.calls]
        if ours:
            try:
                times = rounds(self.calls, seconds=seconds, stretch=STRETCH)
                for name in ours:
                    found |= measured(times, name)
            except Exception as error:
                self.failed["timing"] = first_line(error)
        return {**found, "failed": self.words()}

    def words(self):
        """What failed, as a cell of the results."""
        return "; ".join(f"{name}: {why}" for name, why in self.failed.items())

    def require_ours(self):
        """Fail the test, after the row was recorded, where what failed is ours."""
        ours = {name: why for name, why in self.failed.items() if name.startswith((*OURS, "timing"))}
        assert not ours, ours


def graphed(module, x0):
    """A forward without gradients as a CUDA graph; what is timed is the replay."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.no_grad(), torch.cuda.stream(side):
        for _ in range(3):
            module(x0)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        out = module(x0)

    class Replay(torch.nn.Module):
        def forward(self, _):
            graph.replay()
            return out

    return Replay()


def marked(module):
    """A module whose every call begins a step of the compiler's CUDA graphs: they may write over the last one's results."""

    class Marked(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.module = module

        def forward(self, x):
            torch.compiler.cudagraph_mark_step_begin()
            return self.module(x)

    return Marked()


def compare(found, ours, theirs, exact, x0, seed, ceiling, *, compiled, autotuned, graphs):
    """Add ours, modules by name, the eager peer ``theirs``, its name and its module, and its compiled forms."""

    def checked(module):
        check({"": module}, exact, x0, seed, rows=None, ceiling=ceiling)
        return lambda: step(module, x0, seed)

    theirs, peer = theirs
    for name, module in {**ours, theirs: peer}.items():
        found.add(name, lambda module=module: module, checked)
    if compiled:
        found.add("compile", lambda: torch.compile(peer, fullgraph=True, dynamic=False), checked)
    if autotuned:
        found.add("max-autotune", lambda: marked(torch.compile(peer, fullgraph=True, dynamic=False, mode="max-autotune")), checked)
    if graphs:
        for name, module in {**ours, theirs: peer}.items():
            found.add(f"{name}, CUDA graph", lambda module=module: graphed(module, x0), checked)


@pytest.mark.parametrize("training", [False, True], ids=["forward", "training"])
def test_cross_rnn(dim, batch, tasks, dtype, training, measuring, seconds, record, lacks):
    key = {"pass": "forward+backward" if training else "forward", "dtype": dtype, "D": dim, "B": batch, "T": tasks}
    if not lacks(f"cross_rnn_{CARD}", key):
        pytest.skip("measured already")
    kind, ceiling = DTYPES[dtype]
    plan = SharingPlan.from_ratio("rows", tasks, dim, SHARE_RATIO, steps=STEPS)
    peer = reference.CrossRNN(plan, dtype=kind, device=DEVICE)
    ours = {name: CrossRNN(plan, dtype=kind, device=DEVICE, backend=name) for name in OURS}
    exact = reference.CrossRNN(plan, dtype=torch.float64, device=DEVICE)
    for module in (*ours.values(), exact):
        module.load_state_dict(peer.state_dict())
    x0 = torch.randn(batch, dim, dtype=kind, device=DEVICE)
    seed = torch.randn(tasks, batch, dim, dtype=kind, device=DEVICE) if training else None
    found = Candidates()
    options = {"compiled": measuring, "autotuned": measuring and tasks == AUTOTUNED_TASKS, "graphs": CUDA and batch == 256 and not training}
    compare(found, ours, ("eager", peer), exact, x0, seed, ceiling, **options)
    found.add("floor", lambda: products(dim, batch, tasks, 2, STEPS, kind, training, DEVICE), lambda run: run)
    record(f"cross_rnn_{CARD}", key, found.figures(seconds))
    found.require_ours()


@pytest.mark.parametrize("training", [False, True], ids=["forward", "training"])
def test_dcn(dim, batch, dtype, training, measuring, seconds, record, lacks):
    """DCNv2, untied and without a gate, against torchrec's CrossNet."""
    key = {"pass": "forward+backward" if training else "forward", "dtype": dtype, "D": dim, "B": batch}
    if not lacks(f"dcn_{CARD}", key):
        pytest.skip("measured already")
    kind, ceiling = DTYPES[dtype]
    ours = {name: DCNv2(dim, STEPS, dtype=kind, backend=name) for name in OURS}
    first = ours[OURS[0]]
    peer, exact = (CrossNetMath(dim, STEPS, dtype).copy_from(first).to(DEVICE) for dtype in (kind, torch.float64))
    for module in ours.values():
        module.load_state_dict(first.state_dict())
    for module in ours.values():
        module.to(DEVICE)
    x0 = torch.randn(batch, dim, dtype=kind, device=DEVICE)
    seed = torch.randn(batch, dim, dtype=kind, device=DEVICE) if training else None
    found = Candidates()
    compare(found, ours, ("crossnet", peer), exact, x0, seed, ceiling, compiled=measuring, autotuned=False, graphs=False)
    found.add("floor", lambda: products(dim, batch, 1, 1, STEPS, kind, training, DEVICE), lambda run: run)
    record(f"dcn_{CARD}", key, found.figures(seconds))
    found.require_ours()


@pytest.mark.parametrize("training", [False, True], ids=["forward", "training"])
def test_param_gather(dim, tasks, dtype, training, seconds, record, lacks):
    key = {"pass": "forward+backward" if training else "forward", "dtype": dtype, "D": dim, "T": tasks}
    if dtype == "tf32" or not lacks(f"param_gather_{CARD}", key):
        pytest.skip("no products in it" if dtype == "tf32" else "measured already")
    found = Candidates()
    for name in OURS:

        def ours(*banks, name=name):
            return functional.param_gather(*banks, backend=name)

        try:
            found.calls |= gathers(dim, tasks, training, {name: ours}, dtype=DTYPES[dtype][0], device=DEVICE)
        except Exception as error:
            found.failed[name] = first_line(error)
    record(f"param_gather_{CARD}", key, found.figures(seconds))
    found.require_ours()


@pytest.mark.skipif(not CUDA, reason="no CUDA device: PyTorch counts the memory of GPUs alone")
def test_memory(dim, batch, tasks, dtype, record, lacks):
    """Peak memory of a training step beyond what was there before it."""
    key = {"dtype": dtype, "D": dim, "B": batch, "T": tasks}
    if not lacks(f"memory_{CARD}", key):
        pytest.skip("measured already")
    kind, _ = DTYPES[dtype]
    plan = SharingPlan.from_ratio("rows", tasks, dim, SHARE_RATIO, steps=STEPS)
    x0 = torch.randn(batch, dim, dtype=kind, device=DEVICE)
    seed = torch.randn(tasks, batch, dim, dtype=kind, device=DEVICE)
    options = {"dtype": kind, "device": DEVICE}
    made = {
        **{name: lambda name=name: CrossRNN(plan, backend=name, **options) for name in OURS},
        **{f"{name}, recompute": lambda name=name: CrossRNN(plan, backend=name, recompute=True, **options) for name in OURS},
        "eager": lambda: reference.CrossRNN(plan, **options),
        "compile": lambda: torch.compile(reference.CrossRNN(plan, **options), fullgraph=True, dynamic=False),
    }
    figures, found = {}, Candidates()
    for name, make in made.items():

        def peak(module, name=name):
            step(module, x0, seed)  # compilation, and the libraries' own memory
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            step(module, x0, seed)
            figures[f"{name}, MB"] = round((torch.cuda.max_memory_allocated() - before) / 1e6, 1)

        found.add(name, make, peak)
    if "eager, MB" in figures:
        peers = [name for name in made if name != "eager" and f"{name}, MB" in figures]
        figures |= {f"{name}/eager": round(figures[f"{name}, MB"] / max(figures["eager, MB"], 1e-9), 4) for name in peers}
    record(f"memory_{CARD}", key, {**figures, "failed": found.words()})
    found.require_ours()
