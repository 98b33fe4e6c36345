#!/bin/sh
# Tests training on a GPU, measures its speed, and writes a log and a table.
#
#     scripts/gpu-check.sh FOLDER [SECONDS]
#
# Writes gpu-check.log, table.md and a JSON file for each measurement to FOLDER. No part starts after SECONDS (default
# 1800) in total. If a part fails or times out, the others still run, and the exit code is 1. If TensorFlow can use no
# GPU, nothing runs and the exit code is 2.
#
#     PYTHON=.venv/bin/python        interpreter with TensorFlow
#     TORCH_PYTHON=                  interpreter with PyTorch, to compare with; default: no comparison
#     PARTS="tests fcn8 unet segnet pspnet"
#     SIZE="352 480" BATCH=16 PRECISION=mixed_bfloat16 STEPS=20 TURNS=3
#     SEGPIPE_GPU_TESTS_ON_CPU=      1 runs everything on the CPU, to check the script itself
#     RECORDS=                       TFRecord file of Transform with images of SIZE; default: synthetic images
set -u
[ $# -ge 1 ] || { sed -n '2,/^set/{/^set/d;s/^#\( \|$\)//p}' "$0" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
cd "$(dirname "$0")/.." || exit 2
python=${PYTHON:-.venv/bin/python}
log=$folder/gpu-check.log
end=$(($(date +%s) + ${2:-1800}))
failed=0
export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-1}"
# Without a GPU, the tests would be skipped and the models measured on the CPU.
[ -n "${SEGPIPE_GPU_TESTS_ON_CPU:-}" ] || "$python" -c 'import sys; sys.tracebacklimit = 0
from components import gpu, tensorflow_start
tensorflow_start.prepare()
gpu.require_gpu(gpu.usable_gpus())' || exit 2

say() { echo "$*" | tee -a "$log"; }

# part NAME SECONDS COMMAND...: runs a command with a time limit.
part() {
    title=$1 limit=$2; shift 2
    left=$((end - $(date +%s)))
    if [ "$left" -lt 10 ]; then say "$title: not started, no time left"; failed=1; return; fi
    [ "$limit" -lt "$left" ] || limit=$left
    say "== $title, at most $limit s: $*"
    began=$(date +%s)
    timeout --kill-after=10 "$limit" "$@" >>"$log" 2>&1
    code=$?
    say "$title: exit code $code after $(($(date +%s) - began)) s"
    [ "$code" -eq 0 ] || failed=1
}

# measure MODEL on|off CONTENDERS: measures a model with or without XLA.
measure() {
    # SIZE is two words.
    # shellcheck disable=SC2086
    part "$1, XLA $2" 300 "$python" -m benchmarks.training --model "$1" --xla "$2" --only "$3" \
        --size ${SIZE:-352 480} --batch "${BATCH:-16}" --precision "${PRECISION:-mixed_bfloat16}" \
        --steps "${STEPS:-20}" --turns "${TURNS:-3}" --records "${RECORDS:-$work/train.gz}" \
        ${TORCH_PYTHON:+--torch-python "$TORCH_PYTHON"} --json "$folder/$1-xla-$2.json"
}

: >"$log"
rm -f "$folder"/*-xla-*.json "$folder/table.md"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
part machine 60 sh -c 'nvidia-smi; uname -a; nproc; "$0" --version' "$python"
for chosen in ${PARTS:-tests fcn8 unet segnet pspnet}; do
    case $chosen in
    tests) part tests 600 "$python" -m pytest -p no:cacheprovider -rs --durations=10 tests/gpu ;;
    *)
        measure "$chosen" on "segpipe,segpipe-data,keras${TORCH_PYTHON:+,torch}"
        measure "$chosen" off segpipe,segpipe-data
        ;;
    esac
done
if ls "$folder"/*-xla-*.json >/dev/null 2>&1; then
    if "$python" -m benchmarks.gpu_table "$folder" >"$folder/table.md" 2>>"$log"; then say "table: $folder/table.md"; else failed=1; fi
fi
echo "log: $log"
exit "$failed"
