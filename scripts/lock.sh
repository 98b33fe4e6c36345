#!/bin/sh
# Compiles the lock file of each stack from pyproject.toml: the newest releases that TFX allows, with hashes.
set -eu
cd "$(dirname "$0")/.."
. scripts/installer.sh

compile() { "$uv" pip compile --quiet --upgrade --no-annotate --no-header --generate-hashes --all-extras "$@" pyproject.toml; }

compile --universal --python-version 3.11 --output-file requirements/current.txt
compile --python-version 3.10 --overrides requirements/older-overrides.txt --output-file requirements/older.txt
