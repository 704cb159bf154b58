"""Steering: what a mixer lets in of the source's pose and expression is taken out again.

A mixer moves the smile of the source's photo, or its open eyes, into every frame. Latent directions
(:mod:`vidswap.mixing.directions`) can move them back, and how far is measured on the picture that was
drawn: an integral controller a track, whose error is the difference of the target's mesh and the drawn
one's. It costs no pass of the generator, since each frame corrects the next, and as the leak hardly
changes along a track it is slow on purpose. Mouth, eyes and brows are too fast for that and are foreseen
instead (:mod:`vidswap.mixing.response`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidswap.mixing.directions import Directions
from vidswap.mixing.response import LIMITS, Response
from vidswap.models.aligned_mesh import MEASURES, face_measures

Amounts = NDArray[np.float64]
"""``[D]`` steps along the directions."""

_LIMIT = 0.2
"""Steps in all (their norm). They cost identity, a nod most: half a step is 0.07. Two sources on a talking
man (identity and pose): limit 0.7: 0.400 and 1.8 degrees, 0.498 and 2.6; 0.35: 0.384 and 1.8, 0.488 and 2.3;
0: 0.379 and 2.9, 0.469 and 3.2."""
_GAIN = 0.35
_FASTEST = 0.08
"""Steps a frame. A blink is over before it has moved the lids."""
_BEGIN_GAIN, _BEGIN_ROUNDS = 0.6, 4


_CALMED = frozenset({"mouth", "smile"})
"""Measures that are brought to rest in a source. How far eyes open is in part the person's own."""
_CALM_ROUNDS, _MOST_CALMING = 5, 0.6
"""Steps of each at most. A broad smile taken out whole leaves its folds behind: on one photo the identity
went from 0.27 to 0.43 with 2 steps, 0.37 with 1, 0.32 with 0.6."""
_LEFT_ALONE = frozenset({"gaze_x", "gaze_y"})
"""The gaze changes too quickly: steered, it was as far off as before."""


_CLOSED = 0.03
"""Opening of a mouth up to which it may be closed: pressed lips were measured at 0.00 to 0.03."""
_SHUT = 0.022
"""Opening of a drawn mouth up to which it is closed, and cannot be more so: such lips were measured at 0.016
to 0.02."""
_MISSED = 0.25
"""Steps by which a drawn mouth may miss the target's: 2.5 pixels where the eyes are 100 apart."""


@dataclass(frozen=True)
class Steering:
    """Directions that are steered along, and their measures."""

    changes: Tensor
    """``[D, n_styles, 512]``."""
    units: NDArray[np.float64]
    """``[D]`` by how much a step changes its measure."""
    columns: tuple[int, ...]
    """Where each direction's measure stands in :data:`vidswap.models.aligned_mesh.MEASURES`."""

    @classmethod
    def along(cls, directions: Directions) -> Steering:
        names = [name for name in MEASURES if name in directions.changes and name not in _LEFT_ALONE]
        return cls(
            torch.stack([directions.changes[name] for name in names]),
            np.array([directions.units[name][0] for name in names]),
            tuple(MEASURES.index(name) for name in names),
        )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(MEASURES[column] for column in self.columns)

    @property
    def quick(self) -> list[int]:
        """Where the measures that are foreseen stand, in the order of the limits; all or none."""
        names = self.names
        return [names.index(name) for name in LIMITS] if set(LIMITS) <= set(names) else []

    def rest(self) -> Amounts:
        """No steering."""
        return np.zeros(len(self.columns))

    def apply(self, code: Tensor, amounts: Amounts, share: float = 1.0) -> Tensor:
        """Move a code ``[1, n_styles, 512]`` by ``share`` of the amounts."""
        steps = torch.as_tensor(share * amounts, dtype=code.dtype, device=code.device)
        return code + torch.einsum("d,dsw->sw", steps, self.changes)[None]

    def amounts_of(self, edits: Mapping[str, float]) -> Amounts:
        """Steps ``[D]`` of edits by name, of those that are measured here."""
        return np.array([edits.get(name, 0.0) for name in self.names])

    def measures(self, mesh: NDArray[np.floating]) -> Amounts:
        """The measures of a face in steps ``[D]``. :param mesh: ``[468, 3]`` in the crop."""
        points = torch.from_numpy(np.asarray(mesh, np.float32))[None]
        found = face_measures(points, torch.zeros(1, 2, 5, 2))  # no gaze among the columns
        return found[0, list(self.columns)].double().numpy() / self.units

    def wanted(self, mesh: NDArray[np.floating]) -> Amounts:
        """The measures ``[D]`` that a drawn face is to have beside a target's ``[468, 3]``.

        Lips that are all but closed are meant to be: a parted pair shows teeth at once.
        """
        found = self.measures(mesh)
        if "mouth" in self.names:
            place = self.names.index("mouth")
            gap = found[place] * self.units[place]
            found[place] *= float(np.clip(gap / _CLOSED, 0.0, 1.0)) ** 2
        return found

    def follow(self, amounts: Amounts, error: Amounts, hidden: NDArray[np.bool_] | None = None) -> Amounts:
        """The amounts for the next frame.

        :param error: ``[D]`` by how much the target's measures exceed the drawn face's.
        :param hidden: ``[D]`` what is covered, and so not known.
        """
        step = np.clip(_GAIN * error, -_FASTEST, _FASTEST)
        if hidden is not None:
            step = np.where(hidden, 0.0, step)
        step[self.quick] = 0.0
        return _limited(amounts + step)

    @torch.no_grad()
    def begin(
        self,
        mixed: Tensor,
        target: Tensor,
        measured: Callable[[Tensor], Tensor],
        edits: Mapping[str, float] = MappingProxyType({}),
    ) -> tuple[Amounts, Response]:
        """The amounts for the first frame of a track, by a few rounds on the cheap path.

        :param mixed: ``[1, n_styles, 512]``. :param target: likewise, the pivot.
        :param measured: a code to its ``[8]`` measures.
        :param edits: steps by name in which the drawn face is to differ from the target, and ``mixed`` does.
        """

        def steps(code: Tensor) -> Amounts:
            return measured(code)[list(self.columns)].double().cpu().numpy() / self.units

        wanted = steps(target) + self.amounts_of(edits)
        amounts, response = self.rest(), Response.unknown()
        for _ in range(_BEGIN_ROUNDS):
            answered = steps(self.apply(mixed, amounts))
            step = _BEGIN_GAIN * (wanted - answered)
            step[self.quick] = 0.0
            amounts = _limited(amounts + step)
        if self.quick:
            response = response.learn(wanted[self.quick], answered[self.quick])
        return amounts, response

    @torch.no_grad()
    def calming(self, code: Tensor, rest: Tensor, measured: Callable[[Tensor], Tensor]) -> Amounts:
        """Steps that take the smile and the open mouth of a source's photo out of its code.

        :param code: ``[1, n_styles, 512]``. :param rest: likewise, of a face at rest, such as the mean face.
        :param measured: a code to its ``[8]`` measures.
        """
        amounts = self.rest()
        if not _CALMED <= set(self.names):
            return amounts
        columns = list(self.columns)
        own = [index for index, name in enumerate(self.names) if name in _CALMED]
        # A mouth that is narrower or more closed than the mean one is left as it is.
        wanted = torch.minimum(measured(rest), measured(code))[columns].double().cpu().numpy()
        for _ in range(_CALM_ROUNDS):
            found = measured(self.apply(code, amounts))[columns].double().cpu().numpy()
            steps = _BEGIN_GAIN * (wanted - found) / self.units
            amounts[own] = np.clip(amounts + steps, -_MOST_CALMING, _MOST_CALMING)[own]
        return amounts

    def with_quick(
        self, amounts: Amounts, response: Response, wanted: Amounts, hidden: NDArray[np.bool_] | None = None
    ) -> Amounts:
        """The amounts with those that are foreseen for a target's measures ``[D]``.

        :param hidden: ``[D]`` what is covered: nothing is added for it.
        """
        out = amounts.copy()
        if self.quick:
            out[self.quick] = response.amounts(wanted[self.quick])
            if hidden is not None:
                out = np.where(hidden, amounts, out)
        return out

    def redraw(
        self, drawn: Sequence[tuple[Amounts, Amounts]], wanted: Amounts,
        hidden: NDArray[np.bool_] | None = None,
    ) -> Amounts | None:  # fmt: skip
        """Steps for drawing a face again whose mouth came out otherwise than foreseen; None where it did not.

        A generator's mouth snaps: between closed lips and parted ones there are codes that it does not draw
        half open, and which way they fall is not to be foreseen.

        :param drawn: what was drawn so far: the steps ``[D]``, and the drawn face's measures.
        :param wanted: measures that it is to have. :param hidden: ``[D]`` what is covered.
        """
        misses = [self.mouth_miss(wanted, answered) for _, answered in drawn]
        if min(map(abs, misses)) <= _MISSED:
            return None
        place = self.names.index("mouth")
        if hidden is not None and hidden[place]:
            return None
        tried = [float(steps[place]) for steps, _ in drawn]
        if min(misses) < 0 < max(misses):  # between those that were drawn too far open and not enough
            order = np.argsort(misses)
            step = float(np.interp(0.0, np.array(misses)[order], np.array(tried)[order]))
        else:
            step = tried[-1] + misses[-1]
        step = float(np.clip(step, *LIMITS["mouth"]))
        if min(abs(step - other) for other in tried) < _MISSED / 8:
            return None
        out = drawn[0][0].copy()
        out[place] = step
        return out

    def mouth_miss(self, wanted: Amounts, answered: Amounts) -> float:
        """Steps by which a mouth was to be farther open than it was drawn; 0 where none is steered."""
        place = self.names.index("mouth") if self.quick else None
        return 0.0 if place is None else float(wanted[place] - answered[place])

    def learnt(
        self, response: Response, wanted: Amounts, drawn: Amounts, added: Amounts,
        hidden: NDArray[np.bool_] | None = None,
    ) -> Response:  # fmt: skip
        """The response after a frame: measures ``[D]`` that were wanted and that the drawn face has, and the
        amounts that the drawing had."""
        if not self.quick:
            return response
        known = None if hidden is None else ~hidden[self.quick]
        shut = np.array([self.names[place] == "mouth" for place in self.quick])
        shut &= (drawn * self.units)[self.quick] <= _SHUT
        return response.learn(wanted[self.quick], (drawn - added)[self.quick], known, at_most=shut)


def _limited(amounts: Amounts) -> Amounts:
    return amounts * min(1.0, _LIMIT / max(float(np.linalg.norm(amounts)), 1e-9))
