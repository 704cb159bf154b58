#!/usr/bin/env bash
# From a fresh clone to a swapped clip: sets up .venv, fetches the weights, swaps a face.
#
#   bash tools/quickstart.sh [CLIP] [SOURCE]
#
# CLIP     a video; without it the tool makes a sample clip by itself
# SOURCE   a photo of the new face, or synthetic:SEED (default synthetic:7)
#
# The result goes to out/ in the folder the command is given in; VIDSWAP_OUT names another.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"

case "${1:-}" in
-h | --help)
    sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac
[ "$#" -le 2 ] || { printf 'error: expected [CLIP] [SOURCE], got %d arguments\n' "$#" >&2; exit 2; }

CLIP="${1:-}"
SOURCE="${2:-synthetic:7}"
OUT="${VIDSWAP_OUT:-$PWD/out}"
STARTED=$SECONDS

# Everything that can be wrong with the call is said before the long part begins.
if [ -n "$CLIP" ] && [ ! -e "$CLIP" ]; then
    printf 'error: %s: no such video\n' "$CLIP" >&2
    exit 3
fi
case "$SOURCE" in
synthetic:*) ;;
*)
    if [ ! -f "$SOURCE" ]; then
        printf 'error: %s: no such photo; give a file or synthetic:SEED\n' "$SOURCE" >&2
        exit 3
    fi
    ;;
esac
mkdir -p "$OUT" 2>/dev/null && [ -w "$OUT" ] || {
    printf 'error: cannot write to %s: set VIDSWAP_OUT to another folder\n' "$OUT" >&2
    exit 4
}

prepare_environment
# Not the `vidswap` script: its first line breaks when the path holds a space or is long.
vidswap() { "$VENV_PYTHON" -m vidswap "$@"; }
step() { # what is done, then the command
    local what="$1" began=$SECONDS status
    shift
    say "$what"
    "$@"
    status=$?
    if [ "$status" -ne 0 ]; then
        # The tool has said what is wrong, in one line of its own.
        printf '== stopped while %s (exit code %d)\n' "$what" "$status" >&2
        exit "$status"
    fi
    say "done in $((SECONDS - began)) s"
}

step "fetching weights (180 MB the first time)" vidswap weights fetch
if [ -z "$CLIP" ]; then
    CLIP="$OUT/sample.mp4"
    if [ ! -s "$CLIP" ]; then
        step "making a sample clip" vidswap sample -o "$CLIP"
    fi
fi
NAME="$(basename "$CLIP")"
STEM="${NAME%.*}_swapped"
# The target's own container, where it can hold the result, keeps all of its streams.
case "$NAME" in
*.mov | *.mkv | *.webm | *.gif) RESULT="$OUT/$STEM.${NAME##*.}" ;;
*) RESULT="$OUT/$STEM.mp4" ;;
esac
SHEET="$OUT/${STEM}_sheet.png"
step "swapping the face" vidswap swap "$CLIP" -s "$SOURCE" -o "$RESULT" --force
# Early, middle and late in the clip; a clip that does not tell its length gives its first frame.
MOMENTS="$("$VENV_PYTHON" - "$CLIP" <<'PYTHON'
import sys

from vidswap.video import probe

seconds = probe(sys.argv[1]).duration_seconds or 0.0
print(*(f"--at {seconds * part:.2f}" for part in ((0.15, 0.5, 0.85) if seconds > 0.5 else (0.0,))))
PYTHON
)" || MOMENTS=""
# Unquoted on purpose: it is a list of options.
# shellcheck disable=SC2086
step "making a contact sheet" vidswap preview "$CLIP" -s "$SOURCE" $MOMENTS -o "$SHEET" --force
say "finished in $((SECONDS - STARTED)) s"
printf 'clip:          %s\ncontact sheet: %s\n' "$RESULT" "$SHEET"
