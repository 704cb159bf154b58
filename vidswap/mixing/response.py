"""Mouth, eyes and brows that follow at once: how a drawn face answers to its target's is learnt on the way.

An integral controller cannot follow a blink. But a mixer's answer to a target's mouth, eyes or brows is close
to a straight line: it opens the mouth by a part of what the target does, and begins from the source's smile.
The line is fitted to the frames drawn so far (weighted least squares with forgetting, a ridge towards
a usual slope), and what it will miss in the next frame is put right before that frame is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Measures = NDArray[np.float64]
"""``[Q]`` in steps of their directions."""

LIMITS = {"mouth": (-1.0, 1.0), "eyes": (-0.3, 0.5), "brow": (-0.5, 0.5)}
"""Steps that leave faces clean (looked at on drawn faces): lids pulled further smear the cheek. Closed lids
are lent by the target; 0.8 steps towards them put bars on foreheads and glints beside noses. Brows rose and
fell by 0.5 to 0.6 of the target's on a talking man and a turning woman, and by 0.6 to 0.9 with these."""
_OWN_REST = np.array([name == "brow" for name in LIMITS])
"""Measures that rest where the new face has them, and only move as the target's: how high brows are says who
somebody is."""
_KEPT = 0.97
"""Weight of a frame against the next one's."""
_SLOPE = 0.7
_SLOPE_WEIGHT = 2.5
"""Ridge towards ``_SLOPE``, in frames times squared steps."""
_SHARE = 0.9
"""Of the miss that is put right."""


@dataclass(frozen=True)
class Response:
    """Answers of one track's drawn face, for the measures of :data:`LIMITS`."""

    moments: np.ndarray
    """``[Q, 5]`` weighted sums of 1, wanted, answered, wanted², wanted × answered."""

    @classmethod
    def unknown(cls) -> Response:
        """Nothing drawn yet."""
        return cls(np.zeros((len(LIMITS), 5)))

    def learn(
        self,
        wanted: Measures,
        answered: Measures,
        known: NDArray[np.bool_] | None = None,
        at_most: NDArray[np.bool_] | None = None,
    ) -> Response:
        """One more frame.

        :param wanted: the target's measures. :param answered: the drawn face's, less what was added.
        :param known: ``[Q]`` False where a measure could not be seen.
        :param at_most: ``[Q]`` True where a measure had come to its end, as that of lips that touch: without
            it the answer would have been that or less. It teaches only where more was foreseen.
        """
        if at_most is not None and self.moments[:, 0].any():
            taught = ~at_most | (self.foreseen(wanted) > answered)
            known = taught if known is None else known & taught
        seen = np.stack([np.ones_like(wanted), wanted, answered, wanted**2, wanted * answered], 1)
        after = _KEPT * self.moments + seen
        return Response(after if known is None else np.where(known[:, None], after, self.moments))

    def foreseen(self, wanted: Measures) -> Measures:
        """What the drawn face will answer ``[Q]`` if nothing is added."""
        count = self.moments[:, 0]
        total = np.maximum(count, 1e-9)
        x, y, xx, xy = (self.moments[:, column] / total for column in range(1, 5))
        spread, joint = np.maximum(xx - x * x, 0.0), xy - x * y
        slope = (count * joint + _SLOPE_WEIGHT * _SLOPE) / (count * spread + _SLOPE_WEIGHT)
        return np.where(_OWN_REST, x, y) + np.clip(slope, 0.0, 1.5) * (wanted - x)

    def amounts(self, wanted: Measures) -> Measures:
        """Steps ``[Q]`` to add to the next drawing, within :data:`LIMITS`; 0 while nothing was drawn."""
        low, high = np.array(list(LIMITS.values())).T
        steps = np.clip(_SHARE * (wanted - self.foreseen(wanted)), low, high)
        return np.where(self.moments[:, 0] > 0, steps, 0.0)
