#!/usr/bin/env bash
# Sets up .venv with what the tests need, fetches the weights if that can be, runs the tests.
#
#   bash tools/test.sh [pytest arguments]
#
# VIDSWAP_TEST_NEED_WEIGHTS=1: stop when the weights cannot be had, instead of skipping the tests
# that need them.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"

prepare_environment
if ! "$VENV_PYTHON" -m vidswap weights fetch; then
    [ -z "${VIDSWAP_TEST_NEED_WEIGHTS:-}" ] || fail "the weights could not be fetched (see above)"
    say "no weights: the tests that need them are skipped"
    export VIDSWAP_TEST_OFFLINE=1
fi
cd "$ROOT" || exit 1
exec "$VENV_PYTHON" -m pytest "$@"
