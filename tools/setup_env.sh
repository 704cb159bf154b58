# Shared by quickstart.sh and test.sh (sourced, not run): finds a Python, makes the virtual
# environment, installs this project into it, fetches the weights. Sets $VENV_PYTHON.
# Variables: PYTHON (interpreter to use), VIDSWAP_VENV (folder, default .venv beside README.md).

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${VIDSWAP_VENV:-$ROOT/.venv}"
LOG=""

say() { printf '== %s\n' "$*"; }
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# A Python that runs and whose version the packages support. pyenv's shims exist for versions
# that are not switched on, so each candidate is asked, not just looked up.
python_fits() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' \
        >/dev/null 2>&1
}

find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        python_fits "$PYTHON" || fail "PYTHON=$PYTHON is no Python 3.10 to 3.13 with venv"
        printf '%s\n' "$PYTHON"
        return
    fi
    for candidate in python3 python3.11 python3.12 python3.13 python3.10 python; do
        if python_fits "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    fail "no Python 3.10 to 3.13 with the venv module was found: install one (Debian: python3-venv) or set PYTHON=/path/to/python"
}

# What an installation depends on: requirements, exact versions, the place. The same state means
# that nothing needs to be done. One set of extras for all scripts keeps it one state.
environment_state() {
    cat "$ROOT/setup.py" "$ROOT/pyproject.toml" "$ROOT/tools/constraints.txt" | cksum
    printf '%s\n' "$ROOT"
}

# Only one script at a time may build the environment. The lock sits on this file itself, so
# that nothing is left behind.
with_lock() {
    if command -v flock >/dev/null 2>&1; then
        exec 9<"$ROOT/tools/setup_env.sh"
        flock -n 9 || { say "another run is setting up $VENV: waiting"; flock 9; }
    fi
    "$@"
    exec 9<&-
}

install_project() {
    local stamp="$VENV/.vidswap-state" python started=$SECONDS
    if [ -x "$VENV_PYTHON" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$(environment_state)" ]; then
        say "environment ready: $VENV"
        return
    fi
    if ! "$VENV_PYTHON" -c 'import pip' >/dev/null 2>&1; then
        python="$(find_python)" || exit 1
        say "making $VENV with $("$python" --version 2>&1)"
        # --clear: a folder left by an interrupted or moved environment is not worth mending.
        "$python" -m venv --clear "$VENV" || fail "cannot make $VENV: is the disk full or the folder read-only?"
    fi
    LOG="$VENV/install.log"
    say "installing packages, about 2 GB the first time (log: $LOG)"
    if ! run_logged "$VENV_PYTHON" -m pip install --no-input --disable-pip-version-check \
        -c "$ROOT/tools/constraints.txt" -e "$ROOT[test]"; then
        fail "pip could not install the packages ($(last_error)): check the network and $LOG, then run this again"
    fi
    environment_state >"$stamp"
    say "packages installed in $((SECONDS - started)) s"
}

# Runs a command with its output in $LOG and the current step shown on one line.
run_logged() {
    local pid line status shown=""
    : >"$LOG"
    "$@" >"$LOG" 2>&1 9>&- &
    pid=$!
    trap 'kill "$pid" 2>/dev/null; exit 130' INT TERM
    while kill -0 "$pid" 2>/dev/null; do
        if [ -t 1 ]; then
            line="$(grep -E '^(Collecting|Installing|Building|  Downloading)' "$LOG" | tail -n 1 | cut -c 1-76)"
            printf '\r   %-76s' "$line"
        else
            line="$(grep -oE '^(Installing collected packages|Building editable)' "$LOG" | tail -n 1)"
            if [ "$line" != "$shown" ]; then
                printf '   %s\n' "$line"
                shown="$line"
            fi
        fi
        sleep 1
    done
    if [ -t 1 ]; then printf '\r%-80s\r' ''; fi
    wait "$pid"
    status=$?
    trap - INT TERM
    return "$status"
}

last_error() {
    local line
    # The cause first; pip's last line is often only "a subprocess failed".
    line="$(grep -E 'No space left|ERROR: (No matching|Could not)' "$LOG" | tail -n 1)"
    [ -n "$line" ] || line="$(grep -E '^(ERROR|error)' "$LOG" | tail -n 1)"
    line="$(printf '%s' "$line" | sed 's/^ *//' | cut -c 1-200)"
    printf '%s' "${line:-no reason given}"
}

prepare_environment() {
    VENV_PYTHON="$VENV/bin/python"
    if [ -d "$VENV/Scripts" ] || [ "${OS:-}" = "Windows_NT" ]; then
        VENV_PYTHON="$VENV/Scripts/python.exe"
    fi
    mkdir -p "$(dirname "$VENV")" || fail "cannot make $(dirname "$VENV")"
    with_lock install_project
}
