# The two commands: `make demo` trains on the embedded data, `make test` runs every test. Both make a virtual environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(wildcard csrc/* csrc/cpu/* csrc/cuda/*)
CPP_AND_CUDA := $$(git ls-files '*.h' '*.cpp' '*.cu' '*.inl')
BUILD_REQUIREMENTS := 'torch>=2.10' numpy 'pybind11>=2.13' 'setuptools>=77' ninja

# PyTorch's threads spin while they wait for one another, which on a busy machine costs more than the work itself.
export OMP_WAIT_POLICY := passive

.PHONY: demo test lint format sanitize abi resources cuda-check ctest bench quality gpu clean

# Without build isolation the extension is compiled against the PyTorch that will load it, and PyTorch is unpacked once instead of twice.
# The link gives kernels/ its installed name, dcrnn_fast.kernels, to mypy, import-linter and editors too.
define install
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(BUILD_REQUIREMENTS)
	$(BIN)/python -m pip install --quiet --no-build-isolation -e '.[$(1)]'
	ln -sfn ../kernels dcrnn_fast/kernels
	touch $@
endef

$(VENV)/.train: $(SOURCES)
	$(call install,train)

$(VENV)/.dev: $(SOURCES)
	$(call install,dev)

demo: $(VENV)/.train
	$(BIN)/dcrnn-fast demo

# One thread a test process: tests run side by side, and a busy second thread makes every small operation wait.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal --benchmark-disable

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run --Werror $(CPP_AND_CUDA)

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_AND_CUDA)

# The C++ kernels' tests on a build with AddressSanitizer and UBSan, and two planted defects that these must find.
sanitize: $(VENV)/.dev
	$(BIN)/python scripts/sanitize.py

# A build against one PyTorch tested in another, the oldest and the newest or as ABI='2.10.0 2.13.0' says; gigabytes, so not in CI.
abi: $(VENV)/.dev
	$(BIN)/python scripts/abi.py $(ABI)

# The library and the example in C++, and the CUDA kernels compiled for the CPU and run under sanitizers, with planted defects; no GPU needed.
ctest: $(VENV)/.dev
	cmake -B build/cmake -DPython3_EXECUTABLE=$(abspath $(BIN))/python
	cmake --build build/cmake -j $$(nproc)
	ctest --test-dir build/cmake --output-on-failure -j $$(nproc)

bench: $(VENV)/.dev
	env -u OMP_WAIT_POLICY $(BIN)/python -m pytest bench/ --benchmark

# What the compiler makes of every Triton tile configuration on every architecture; no GPU needed.
resources: $(VENV)/.dev
	$(BIN)/python scripts/triton_resources.py

# What the compiler makes of every CUDA C++ kernel on every architecture; needs nvcc, but no GPU. Without nvcc it says so.
cuda-check: $(VENV)/.dev
	$(BIN)/python scripts/cuda_check.py

# What needs a GPU: tests, sanitizers, tile sizes and benchmarks, with the environment's own Python: it brings PyTorch for the card.
gpu:
	env -u OMP_WAIT_POLICY $(PYTHON) scripts/gpu.py $(GPU_OPTIONS)

quality: $(VENV)/.dev
	$(BIN)/python -m bench.quality

clean:
	rm -rf $(VENV) build dist *.egg-info dcrnn_fast/*.so dcrnn_fast/_build_failure*.txt dcrnn_fast/kernels
