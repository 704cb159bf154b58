"""Moments of a clip as people write them."""

from __future__ import annotations

import re

_TIME = re.compile(r"(?:(?:(\d+):)?(\d{1,2}):)?(\d+(?:\.\d*)?|\.\d+)", re.ASCII)
_SIXTY = 60
_LONGEST = 60


def parse_time(text: str) -> float:
    """Seconds of ``12.5`` or ``[HH:]MM:SS[.mmm]``.

    :raises ValueError: with the reason, for other texts, and minutes or seconds of 60 and more after a colon.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None or len(text) > _LONGEST:
        raise ValueError("give seconds (12.5) or HH:MM:SS.mmm")
    hours, minutes, seconds = int(match[1] or 0), int(match[2] or 0), float(match[3])
    if match[2] is not None and seconds >= _SIXTY:
        raise ValueError("seconds after a colon go up to 59.999")
    if match[1] is not None and minutes >= _SIXTY:
        raise ValueError("minutes go up to 59")
    return hours * 3600 + minutes * 60 + seconds
