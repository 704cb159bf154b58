"""Where the clips of a batch run: this process, several, or other machines.

An engine is made by name with :func:`make_engine`; to add one, write its file and its line in
:data:`ENGINES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from vidswap.errors import UsageError
from vidswap.jobs import Job, JobResult, OnEvent


class Engine(Protocol):
    """Runs jobs, each of them once, in any order."""

    def run(self, jobs: Sequence[Job], on_event: OnEvent) -> list[JobResult]:
        """Work through the jobs.

        ``on_event`` is called in the caller's thread: ``started``, ``progress`` and ``ended`` of
        each job. A clip that cannot be done is a failed result; the others go on.

        :return: a result for each job, in the order of ``jobs``.
        :raises WeightsError: no clip can be done. :raises KeyboardInterrupt: the user stopped
            it; all that the engine started has ended then.
        """
        ...


def _local(**options: Any) -> Engine:
    from vidswap.engines.local import LocalEngine

    return LocalEngine(**options)


def _ray(**options: Any) -> Engine:
    from vidswap.engines.ray import RayEngine

    return RayEngine(**options)


ENGINES: dict[str, Callable[..., Engine]] = {"local": _local, "ray": _ray}
_OPTIONS = {"local": {"jobs", "log"}, "ray": {"jobs", "log", "address", "cpus", "gpus"}}


def make_engine(name: str, **options: Any) -> Engine:
    """The engine of a name, with its own options (``jobs``, ``log``; Ray's ``address``, ``cpus``, ``gpus``).

    Options that are None are as good as not given.

    :raises UsageError: for an unknown name, or options that make no sense.
    """
    if name not in ENGINES:
        raise UsageError(f"--engine: {name!r} is unknown; choose one of {', '.join(ENGINES)}")
    given = {option: value for option, value in options.items() if value is not None}
    for option in sorted(given.keys() - _OPTIONS[name]):
        raise UsageError(f"--{option} is no option of --engine {name}: leave it out, or use --engine ray")
    return ENGINES[name](**given)
