"""Errors that users see, each with the exit code of the command line.

Every failure that a user can mend is a :class:`VidswapError`: one sentence that says what
is wrong, with the value, and what to do. The command line prints it and exits with
``exit_code``; anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from difflib import get_close_matches

DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""Numbers of system errors that say that a disk takes no more."""


class VidswapError(Exception):
    """Base of all errors meant for users."""

    exit_code = 1


class UsageError(VidswapError):
    """Wrong options or arguments; nothing was started (exit code 2)."""

    exit_code = 2


class InputError(VidswapError):
    """The target or source cannot be read (exit code 3)."""

    exit_code = 3


class NoFaceError(InputError):
    """No usable face where one is needed, or several where one is needed (exit code 3)."""


class OutputError(VidswapError):
    """The output cannot be written or verified; disk full included (exit code 4)."""

    exit_code = 4


class WeightsError(VidswapError):
    """Weights are missing, damaged or not what the catalogue says (exit code 5)."""

    exit_code = 5


class BatchError(VidswapError):
    """Part of a batch failed; the rest is done (exit code 6)."""

    exit_code = 6


class Interrupted(VidswapError):
    """The user stopped the run; what is finished is kept (exit code 130)."""

    exit_code = 130


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """The end of a message about a name that is unknown: the known one nearest to it.

    :param otherwise: what to say when none is near.
    """
    near = get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else otherwise
