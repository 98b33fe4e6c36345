#!/bin/sh
# Selects the stack that this machine can run and installs its pinned packages into .venv.
#
#     SEGPIPE_STACK=current|older   overrides the selection
#     SEGPIPE_EXTRAS=gpu            also installs these extras of pyproject.toml, separated by commas
#     UV_PYTHON_DOWNLOADS=never     does not download a Python
set -eu
cd "$(dirname "$0")/.."
. scripts/installer.sh

# Required by the wheels of ML Metadata and TensorFlow Data Validation for TFX 1.21.
newest_glibc=2.39
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

# Prints the path of the first argument that is a Python interpreter with a version in $versions.
find_python() {
    for candidate; do
        version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        case " $versions " in *" $version "*) command -v "$candidate"; return ;; esac
    done
    return 1
}

glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed 's/glibc //')
stack=${SEGPIPE_STACK:-}
why="SEGPIPE_STACK is set to it"
if [ -z "$stack" ]; then
    stack=older why="glibc ${glibc:-of unknown version} is older than $newest_glibc"
    if [ -n "$glibc" ] && at_least "$newest_glibc" "$glibc"; then stack=current why="glibc $glibc is $newest_glibc or newer"; fi
fi
pyenv=${PYENV_ROOT:-$HOME/.pyenv}/versions
case $stack in
current)
    names="TFX 1.21, TensorFlow 2.21" versions="3.13 3.12 3.11" extra_arguments=
    python=$(find_python python3 python3.13 python3.12 python3.11 "$pyenv"/3.1[321].*/bin/python) || python= ;;
older)
    names="TFX 1.16, TensorFlow 2.16" versions=3.10 extra_arguments="--overrides requirements/older-overrides.txt"
    python=$(find_python python3 python3.10 "$pyenv"/3.10.*/bin/python) || python= ;;
*) fail "SEGPIPE_STACK is '$stack', expected current or older" ;;
esac

say "stack: $stack ($names), because $why; SEGPIPE_STACK=current or older overrides it"
if [ -z "$python" ]; then
    wanted=${versions%% *}
    if ! "$uv" python find --quiet --no-project --managed-python "$wanted" >/dev/null 2>&1; then
        case ${UV_PYTHON_DOWNLOADS:-} in
        never | manual) fail "Python $wanted not found, and UV_PYTHON_DOWNLOADS=$UV_PYTHON_DOWNLOADS forbids its download. Install Python $wanted and put it on the PATH, or unset that variable" ;;
        esac
        say "Python $wanted not found: downloading it (30 MB) into uv's folder; UV_PYTHON_DOWNLOADS=never refuses that"
        "$uv" python install --quiet "$wanted" ||
            fail "could not download Python $wanted. Without a network, install Python $wanted another way and put it on the PATH, or set UV_PYTHON_INSTALL_MIRROR to a mirror of python-build-standalone"
    fi
    python=$("$uv" python find --quiet --no-project --managed-python "$wanted")
fi

extras=pipeline,kubeflow,dev${SEGPIPE_EXTRAS:+,$SEGPIPE_EXTRAS}
# TensorFlow's GPU libraries need NVIDIA's driver. WSL has the driver of Windows in a different folder.
for driver in /proc/driver/nvidia/version /usr/lib/wsl/lib/libcuda.so.1; do
    if [ -e "$driver" ]; then extras=$extras,gpu; break; fi
done
say "installing $stack.txt into .venv with $("$python" --version): about 1 GB to download, 3 GB on disk"
"$uv" venv --quiet --clear --no-project --python "$python" .venv
export VIRTUAL_ENV=.venv
# Hides uv's lines about single packages. A pipe loses uv's exit code, so a file keeps it.
{
    # shellcheck disable=SC2086
    "$uv" pip install --require-hashes --constraints "requirements/$stack.txt" --build-constraints "requirements/$stack.txt" $extra_arguments \
        --requirements pyproject.toml $(printf '%s' "$extras" | tr ',' '\n' | sed 's/^/--extra /') 2>&1 || echo "$?" > .venv/.failed
} | sed -u -e '/^ [+~-] /d' -e '/^Using Python/d' -e '/Downloaded/d' -e 's/^/    /' >&2
[ ! -e .venv/.failed ] || fail "could not install the pinned packages: see uv's message above"
"$uv" pip install --quiet --no-deps --no-build-isolation --editable .
echo "$stack $extras" | tr ',' ' ' > .venv/.ready
