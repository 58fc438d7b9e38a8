# `make demo` trains on the embedded data, `make test` runs every test. Every target but gpu and clean first makes a virtual environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py scripts/sources.py $(wildcard csrc/* csrc/cpu/* csrc/cuda/*)
CPP_AND_CUDA := $$(git ls-files '*.h' '*.cpp' '*.cu' '*.inl')
BUILD_REQUIREMENTS := 'torch>=2.10' numpy 'pybind11>=2.13' 'setuptools>=77' ninja

# While PyTorch's threads wait for one another they keep the CPU busy, which on a loaded machine costs more than the work itself.
export OMP_WAIT_POLICY := passive

.PHONY: demo test torchrec onnx server serve-fuzz spark fuzz lint format sanitize abi resources resources-oldest cuda-check ctest bench measure load-servers quality study gpu clean

# Without build isolation, pip compiles the extension against the PyTorch that will load it, and unpacks PyTorch once instead of twice.
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

$(VENV)/.server: $(SOURCES)
	$(call install,server)

demo: $(VENV)/.train
	$(BIN)/dcrnn-fast demo

# One thread for each test process: the processes share the cores, and more threads make every small operation wait.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

# Tests dcrnn_fast.torchrec with the versions that fit PyTorch 2.13. They stay in build/, out of the virtual environment. With another
# PyTorch it says so and passes.
TORCHREC := build/torchrec-1.8.0
$(TORCHREC)/.installed: | $(VENV)/.dev
	rm -rf $(TORCHREC)
	$(BIN)/python -m pip install --quiet --no-deps --target $(TORCHREC) torchrec==1.8.0 fbgemm-gpu-cpu==1.8.0 torchmetrics==1.0.3 \
		tensordict pyvers lightning-utilities pyre-extensions typing-inspect mypy-extensions cloudpickle tqdm
	touch $@

torchrec: $(VENV)/.dev $(TORCHREC)/.installed
	@if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.__version__.startswith("2.13."))'; then \
		OMP_NUM_THREADS=1 PYTHONPATH=$(abspath $(TORCHREC)) $(BIN)/python -m pytest tests/torchrec tests/test_docstrings.py -k torchrec; \
	else echo 'torchrec: skipped: fbgemm-gpu-cpu 1.8.0 fits PyTorch 2.13, and another one is installed'; fi

# Tests the export to ONNX with packages of the extra onnx. They stay in build/, out of the virtual environment.
build/onnx/.installed: | $(VENV)/.dev
	rm -rf build/onnx
	$(BIN)/python -m pip install --quiet --no-deps --target build/onnx onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 onnx_ir ml_dtypes \
		flatbuffers
	touch $@

onnx: $(VENV)/.dev build/onnx/.installed
	OMP_NUM_THREADS=1 PYTHONPATH=$(abspath build/onnx) $(BIN)/python -m pytest tests/serving/test_export_onnx.py tests/serving/test_export_calibrated.py -rs

# Builds the server of compiled models in C++, server/, with the operators: build/server/dcrnn_fast_server. docs/guide/server.md
server: $(VENV)/.server
	cmake -B build/server -DPython3_EXECUTABLE=$(abspath $(BIN))/python -DDCRNN_FAST_SERVER=ON -DDCRNN_FAST_TESTS=OFF -DDCRNN_FAST_CUDA=OFF
	cmake --build build/server --target dcrnn_fast_server -j $$(nproc)

# Schemathesis asks a server what its OpenAPI description allows and forbids. It stays in build/. SERVER=URL: one that runs, in any language.
SCHEMATHESIS := schemathesis==4.32.5 graphql-core harfile hypothesis-graphql jsonschema_rs pyrate-limiter requests urllib3 certifi charset-normalizer
build/schemathesis/.installed: | $(VENV)/.dev
	rm -rf build/schemathesis
	$(BIN)/python -m pip install --quiet --no-deps --target build/schemathesis $(SCHEMATHESIS)
	touch $@

serve-fuzz: $(VENV)/.dev build/schemathesis/.installed
	OMP_NUM_THREADS=1 PYTHONPATH=$(abspath build/schemathesis) $(BIN)/python -m tests.server.fuzz $(if $(SERVER),--url $(SERVER))

# Tests examples/spark_encode.py with pyspark, which stays in build/, 400 MB. It needs Java.
build/pyspark/.installed: | $(VENV)/.dev
	rm -rf build/pyspark
	$(BIN)/python -m pip install --quiet --target build/pyspark 'pyspark>=4'
	touch $@

spark: $(VENV)/.dev build/pyspark/.installed
	OMP_NUM_THREADS=1 PYTHONPATH=$(abspath build/pyspark) $(BIN)/python -m pytest tests/examples/test_spark_encode.py -rs

# Runs every fuzzer for some minutes with a new seed. SANITIZE=1: on the build of make sanitize. FUZZ_SEED=S: the calls of that seed.
MINUTES ?= 1
fuzz: export FUZZ_MINUTES := $(MINUTES)
fuzz: $(VENV)/.dev
	$(if $(SANITIZE),$(BIN)/python -m scripts.checks.sanitize fuzz,OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/fuzz -n auto --dist loadfile)

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

# Runs the C++ kernels' tests on a build with AddressSanitizer and UBSan, which must find two planted defects.
sanitize: $(VENV)/.dev
	$(BIN)/python -m scripts.checks.sanitize

# Tests a build against one PyTorch in another: the oldest and the newest, or as ABI='2.10.0 2.13.0' says. Not in CI: it downloads gigabytes.
abi: $(VENV)/.dev
	$(BIN)/python -m scripts.checks.abi $(ABI)

# Builds and tests the C++ library and its example, and the CUDA kernels compiled for the CPU, under sanitizers that must find planted defects.
# Checks that each file of the server in C++ compiles by itself.
ctest: $(VENV)/.dev
	cmake -B build/cmake -DPython3_EXECUTABLE=$(abspath $(BIN))/python -DDCRNN_FAST_SERVER=CHECK
	cmake --build build/cmake -j $$(nproc)
	ctest --test-dir build/cmake --output-on-failure -j $$(nproc)

# Measures the headline cases (BENCH_OPTIONS='--grid full': all), replaces the committed results, and draws the tables and the figure from them.
bench: $(VENV)/.dev
	env -u OMP_WAIT_POLICY $(BIN)/python -m pytest bench/ --benchmark --record $(BENCH_OPTIONS)
	$(BIN)/python -m bench.pages
	$(BIN)/python -m bench.figure

# Compiles every Triton tile configuration for every architecture, and checks registers, shared memory and instructions. Needs no GPU.
resources: $(VENV)/.dev
	$(BIN)/python -m scripts.resources triton

# The same with the oldest Triton that a supported PyTorch brings. Its result stays in build/.
OLDEST_TRITON ?= 3.6.0
OLDEST := build/triton-$(OLDEST_TRITON)
$(OLDEST)/.installed: | $(VENV)/.dev
	rm -rf $(OLDEST)
	$(BIN)/python -m pip install --quiet --no-deps --target $(OLDEST) triton==$(OLDEST_TRITON)
	touch $@

resources-oldest: $(VENV)/.dev $(OLDEST)/.installed
	PYTHONPATH=$(OLDEST) $(BIN)/python -m scripts.resources triton --output $(OLDEST)/resources.json

# The same for every CUDA C++ kernel. Needs nvcc, but no GPU; without nvcc it says so and passes.
cuda-check: $(VENV)/.dev
	$(BIN)/python -m scripts.resources cuda

# Runs what needs a GPU: tests, sanitizers, tile sizes and benchmarks. Uses the machine's own Python, whose PyTorch fits its GPU.
gpu:
	env -u OMP_WAIT_POLICY $(PYTHON) -m scripts.gpu $(GPU_OPTIONS)

# Measures time or memory on an idle machine: NAME=requests, load, scale, host_cost, compiled_step, embedding_step, training_step, step_parts
# or sizing. OPTIONS=--help lists the options. load needs the system's wrk, and builds the servers that it asks.
NAME ?= --help
measure: $(VENV)/.dev build/onnx/.installed $(if $(filter load,$(NAME)),load-servers)
	PYTHONPATH=$(abspath build/onnx) $(BIN)/python -m bench.measures $(NAME) $(OPTIONS)
	$(BIN)/python -m bench.pages

load-servers: $(VENV)/.dev
	cmake -B build/load -DPython3_EXECUTABLE=$(abspath $(BIN))/python -DDCRNN_FAST_SERVER=ON -DDCRNN_FAST_SERVER_PEERS=ON -DDCRNN_FAST_TESTS=OFF \
		-DDCRNN_FAST_CUDA=OFF
	cmake --build build/load -j $$(nproc)

# Tunes and compares all models, in hours; killed, it goes on. MOVIELENS=PATH: the RecBole wheel, which holds MovieLens-100K.
quality: $(VENV)/.dev
	env -u OMP_WAIT_POLICY $(BIN)/python -m bench.quality --record $(if $(MOVIELENS),--movielens $(MOVIELENS)) $(QUALITY_OPTIONS)
	$(BIN)/python -m bench.pages

# Trains models to answer a question: NAME=ablation, embedding_start, rank, scenarios, selection_bias, synthetic_tasks or weightings.
# OPTIONS='--movielens PATH': the RecBole wheel, which holds MovieLens-100K.
study: $(VENV)/.dev
	$(BIN)/python -m bench.studies $(NAME) $(OPTIONS)
	$(BIN)/python -m bench.pages

clean:
	rm -rf $(VENV) build dist *.egg-info dcrnn_fast/*.so dcrnn_fast/_build_failure*.txt dcrnn_fast/kernels
