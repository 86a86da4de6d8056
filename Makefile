# Everything a person or CI runs. Set-up is part of each command: Python 3.11, 3.12 or 3.13 with pip and venv is all that is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PACKAGES := daemon drift features model streams
# The Go client is checked where Go is: in the path, or where its own installation puts it.
GO := $(or $(shell command -v go),$(wildcard /usr/local/go/bin/go))
BENCHMARKS := $(filter-out harness tables,$(basename $(notdir $(wildcard benchmarks/*.py))))
# ONNX Runtime's official builds report usage to their vendor unless told not to; TensorFlow's start-up notes are no news.
export ORT_DISABLE_TELEMETRY := 1
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: help demo demo-kafka train test check types format kafka setup bench lock docs picture clean

help:  ## Show the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

demo: $(READY)  ## The whole loop on a simulated fleet, in about five minutes, without Kafka
	$(BIN)/dwcp-learner demo

demo-kafka: $(READY)  ## The same through Apache Kafka, which it starts itself
	$(BIN)/python tests/testkit/kafka/command.py $(BIN)/dwcp-learner demo --kafka '{servers}'

train: $(READY)  ## A training on a recording: make train DATA=telemetry.csv [OUTPUT=folder]
	$(BIN)/dwcp-learner train --data-path "$(or $(DATA),$(error give a recording: make train DATA=telemetry.csv))" \
		--output-dir "$(or $(OUTPUT),checkpoints/bandwidth_predictor)"

test: $(READY) check  ## All checks and tests, in less than 20 minutes
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: $(READY)  ## Lint, types and the table of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if [ -n "$(GO)" ] && command -v gcc >/dev/null; then \
		cd clients/go && test -z "$$($(GO)fmt -l . | tee /dev/stderr)" && CGO_ENABLED=1 GOFLAGS="-buildvcs=false -mod=readonly" $(GO) vet ./...; \
	else echo "the Go client is not checked: Go or gcc is not here"; fi

format: $(READY)  ## Format and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

kafka: $(READY)  ## One Apache Kafka broker on localhost:9092, until Ctrl-C
	$(BIN)/python tests/testkit/kafka/command.py --port 9092

bench: $(addprefix bench-,$(BENCHMARKS))  ## All benchmarks; results under docs/benchmarks

bench-drift: bench-drift_alerts

bench-%: SHELL := bash
bench-%: .SHELLFLAGS := -o pipefail -c
bench-%: $(READY)
	mkdir -p docs/benchmarks
	$(BIN)/python benchmarks/$*.py | tee -a /dev/stderr | tail -n 1 | $(BIN)/python -m json.tool > docs/benchmarks/$*.json.new
	mv docs/benchmarks/$*.json.new docs/benchmarks/$*.json

docs: $(READY)  ## Write the generated documents: schemas, tables of figures
	$(BIN)/python -m daemon.commands.documents docs
	$(BIN)/python benchmarks/tables.py

picture: demo  ## Draw the picture of the README anew, from a run of the demo
	$(BIN)/python docs/picture.py demo

setup: $(READY)  ## Only the environment

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

lock: $(READY)  ## Resolve requirements.lock anew
	$(BIN)/pip install --quiet uv==0.13.9
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--no-emit-index-url -o requirements.lock

clean:  ## Remove the environment and caches
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache *.egg-info demo
