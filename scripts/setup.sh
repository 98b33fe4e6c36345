#!/bin/sh
# Installs the pinned environment into .venv, with an installer of its own in .cache/uv.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'segpipe: %s\n' "$*" >&2; }

command -v python3 >/dev/null || { say "python3 not found on the PATH; install it: apt-get install python3 python3-venv"; exit 2; }

uv=.cache/uv/bin/uv
if ! "$uv" --version 2>/dev/null | grep -q "$(sed -n 's/^uv==//p' requirements/bootstrap.txt)"; then
    say "installing the installer"
    python3 -m venv --clear .cache/uv 2>/dev/null || { say "python3 cannot make environments; install it: apt-get install python3-venv"; exit 2; }
    .cache/uv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements/bootstrap.txt
fi

# The interpreter is found, never downloaded behind the user's back.
export UV_PYTHON_DOWNLOADS=never
version=$(cat .python-version)
if ! "$uv" python find --quiet --no-project "$version" >/dev/null 2>&1; then
    say "Python $version not found (looked on the PATH, in pyenv and in uv's folder). Get it: apt-get install python$version (Ubuntu 22.04), pyenv install $version, or UV_PYTHON_DOWNLOADS=manual $uv python install $version"
    exit 2
fi

say "installing the pinned environment into .venv"
"$uv" venv --quiet --clear --no-project --python "$version" .venv
export VIRTUAL_ENV=.venv
"$uv" pip sync --quiet requirements/segpipe.txt requirements/dev.txt || {
    say "could not install the pinned packages. Two of them are compiled here, with a C++ compiler and Python's headers: apt-get install g++ python$version-dev"
    exit 1
}
"$uv" pip install --quiet --no-deps --requirement requirements/edges.txt
"$uv" pip install --quiet --no-deps --no-build-isolation --editable .
touch .venv/.ready
