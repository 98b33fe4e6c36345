# On a new machine, `make run` and `make test` also install everything they need.
.DEFAULT_GOAL := help
.PHONY: help setup run test check docs reference lock images clean

PYTHON_FILES := pipeline components trainer serving tests benchmarks scripts setup.py
SEGPIPE := .venv/bin/segpipe
# Not read from the environment: `make clean` deletes this folder, and WORK may be set there for another purpose.
WORK = work
ENGINE ?= docker
REGISTRY ?= registry.example.com/segpipe
TAG ?= 0.2.0

help:  ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.ready  ## Install the pinned packages into .venv, for the stack that this machine can run.

# The environment is reinstalled if it lacks the stack SEGPIPE_STACK or one of SEGPIPE_EXTRAS.
comma := ,
missing = $(filter-out $(shell cat .venv/.ready 2>/dev/null),$(SEGPIPE_STACK) $(subst $(comma), ,$(SEGPIPE_EXTRAS)))
.venv/.ready: scripts/setup.sh scripts/installer.sh pyproject.toml $(wildcard requirements/*.txt) $(if $(missing),reinstall)
	@scripts/setup.sh

.PHONY: reinstall
reinstall:

run: setup  ## Make a synthetic data set and run the whole pipeline on it.
	@$(SEGPIPE) data make "$(WORK)/synthetic"
	@$(SEGPIPE) run --data "$(WORK)/synthetic" --model unet --preset smoke --out "$(WORK)"

test: setup check  ## Run all checks and tests.
	@.venv/bin/pytest -m "slow or not slow" --numprocesses 2 --dist loadfile

check: setup docs  ## Check format, lint, types, imports between packages, and links in the documentation.
	@.venv/bin/ruff format --check --quiet $(PYTHON_FILES)
	@.venv/bin/ruff check --quiet $(PYTHON_FILES)
	@.venv/bin/mypy --no-error-summary
	@found=$$(.venv/bin/lint-imports --no-cache --no-logo) || { echo "$$found"; exit 1; }

docs: setup  ## Build the documentation into .cache/site; fail on dead links.
	@NO_MKDOCS_2_WARNING=true .venv/bin/mkdocs build --strict --quiet

reference: setup  ## Regenerate docs/commands.md and docs/settings.md.
	@.venv/bin/python scripts/reference.py

lock:  ## Compile requirements/current.txt and requirements/older.txt from pyproject.toml.
	@scripts/lock.sh

images:  ## Build the images REGISTRY/NAME:TAG with ENGINE (docker or podman).
	$(ENGINE) build --file kubernetes/images/pipeline.Dockerfile --target pipeline --tag $(REGISTRY)/pipeline:$(TAG) .
	$(ENGINE) build --file kubernetes/images/pipeline.Dockerfile --target pipeline-gpu --tag $(REGISTRY)/pipeline-gpu:$(TAG) .
	$(ENGINE) build --file kubernetes/images/pipeline.Dockerfile --target beam-worker --tag $(REGISTRY)/beam-worker:$(TAG) .
	$(ENGINE) build --file kubernetes/images/serving-tools.Dockerfile --tag $(REGISTRY)/serving-tools:$(TAG) .

clean:  ## Delete the output of `make run`, but not .venv.
	rm -rf "$(WORK)"
