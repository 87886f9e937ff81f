# make demo: set everything up and run the main job on the embedded data.  make test: set everything up and run all tests.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .stamp-install
# 0 installs without the native operators where there is no C++ compiler; their tests are then skipped.
NATIVE ?= 0
NATIVE_SOURCES := setup.py $(shell find runtimes/native -name '*.cpp' -o -name '*.h')

.PHONY: demo test lint types tests runtimes trainers fuzz benchmarks docs clean

demo: $(STAMP)
	$(BIN)/compress run examples/demo.yaml -o out/demo

test: lint types tests

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy does not follow the finder of an editable install; a link under a dot-folder shows it the package by its name.
types: $(STAMP)
	mkdir -p .typing && ln -sfn .. .typing/sparsepack
	$(BIN)/mypy --strict -p sparsepack
	$(BIN)/mypy --strict --explicit-package-bases tests
	$(BIN)/mypy --strict --explicit-package-bases benchmarks

# Two test processes, one thread each: networks this small are slower with more.
tests: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

# The optional runtimes: OpenVINO, and ONNX Runtime Web where there is Node; without it that group is skipped.
runtimes: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps openvino
	required=openvino-cpu; \
	if command -v npm >/dev/null; then \
	  npm install --silent --no-audit --no-fund --ignore-scripts --prefix .venv/node onnxruntime-web@1.30.0; \
	  required=$$required,onnxruntime-web-node; \
	fi; \
	OMP_NUM_THREADS=1 SPARSEPACK_NODE_MODULES=.venv/node/node_modules SPARSEPACK_REQUIRE_RUNTIMES=$$required \
	  $(BIN)/pytest -rs tests/test_other_runtimes.py

# The example for PyTorch Lightning. Its own requirements are here already, but for what it fetches files with.
trainers: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps pytorch-lightning torchmetrics lightning-utilities
	OMP_NUM_THREADS=1 SPARSEPACK_REQUIRE_TRAINERS=1 $(BIN)/pytest -rs tests/test_trainers.py

# Hostile files against every reader: 200,000 of them; the tests run 4,000.
fuzz: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m hostile.fuzz

docs: $(STAMP)
	$(BIN)/python benchmarks/tables.py
	$(BIN)/compress methods --markdown > docs/methods.md
	$(BIN)/python -m sparsepack.runtimes.report.schema > docs/measurement.schema.json

$(STAMP): pyproject.toml constraints.txt $(NATIVE_SOURCES)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch setuptools wheel
	SPARSEPACK_REQUIRE_NATIVE=$(NATIVE) $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[dev]'
	touch $(STAMP)

clean:
	rm -rf .venv .typing .stamp-install build dist out *.egg-info runtimes/native/*.so
