#!/bin/sh
# Compiles the pinned requirement files. The date is the newest at which TFX 1.16 and its Beam agree.
set -eu
cd "$(dirname "$0")/../requirements"
uv=../.cache/uv/bin/uv
for name in segpipe dev; do
    "$uv" pip compile --quiet --python-version 3.10 --exclude-newer 2025-01-15 "$name.in" --output-file "$name.txt"
done
