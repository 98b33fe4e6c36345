# Two commands do everything on a fresh machine: `make run` and `make test`.
.DEFAULT_GOAL := help
.PHONY: help setup run test check docs reference lock images clean

PYTHON_FILES := pipeline components trainer serving tests benchmarks scripts setup.py
SEGPIPE := .venv/bin/segpipe
# Not from the environment, where a name like this may stand for all that somebody has.
WORK = work
ENGINE ?= docker
REGISTRY ?= registry.example.com/segpipe
TAG ?= 0.2.0

help:  ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.ready  ## Install the pinned packages of the stack that this machine can run into .venv.

# Another stack is another environment.
.venv/.ready: scripts/setup.sh scripts/installer.sh pyproject.toml $(wildcard requirements/*.txt) $(if $(SEGPIPE_STACK),$(shell grep -qsx '$(SEGPIPE_STACK)' .venv/.ready || echo another-stack))
	@scripts/setup.sh

.PHONY: another-stack
another-stack:

run: setup  ## Run the whole pipeline on a synthetic data set that it makes itself.
	@$(SEGPIPE) data make "$(WORK)/synthetic"
	@$(SEGPIPE) run --data "$(WORK)/synthetic" --model unet --preset smoke --out "$(WORK)"

test: setup check  ## Run every check and every test.
	@.venv/bin/pytest -m "slow or not slow" --numprocesses 2 --dist loadfile

check: setup docs  ## Check format, lint, types, which package imports which, and the links of the documentation.
	@.venv/bin/ruff format --check --quiet $(PYTHON_FILES)
	@.venv/bin/ruff check --quiet $(PYTHON_FILES)
	@.venv/bin/mypy --no-error-summary
	@found=$$(.venv/bin/lint-imports --no-cache --no-logo) || { echo "$$found"; exit 1; }

docs: setup  ## Build the documentation into .cache/site; a dead link is an error.
	@NO_MKDOCS_2_WARNING=true .venv/bin/mkdocs build --strict --quiet

reference: setup  ## Write the pages of commands and settings anew.
	@.venv/bin/python scripts/reference.py

lock:  ## Compile the lock of each stack anew from pyproject.toml.
	@scripts/lock.sh

images:  ## Build the container images as REGISTRY/NAME:TAG, with ENGINE (docker or podman).
	$(ENGINE) build --file kubernetes/images/pipeline.Dockerfile --target pipeline --tag $(REGISTRY)/pipeline:$(TAG) .
	$(ENGINE) build --file kubernetes/images/pipeline.Dockerfile --target pipeline-gpu --tag $(REGISTRY)/pipeline-gpu:$(TAG) .
	$(ENGINE) build --file kubernetes/images/pipeline.Dockerfile --target beam-worker --tag $(REGISTRY)/beam-worker:$(TAG) .
	$(ENGINE) build --file kubernetes/images/serving-tools.Dockerfile --tag $(REGISTRY)/serving-tools:$(TAG) .

clean:  ## Remove what `make run` wrote; the environment stays.
	rm -rf "$(WORK)"
