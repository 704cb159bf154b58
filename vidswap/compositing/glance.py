"""A small picture of a face, in RGB and in L*a*b*, made once for all that look at it."""

from __future__ import annotations

from functools import cached_property

import kornia
import torch

from vidswap.compositing.arrays import resize, to_array, to_tensor
from vidswap.records import FloatArray

GLANCE_SIZE = 128


class Glance:
    """What a picture ``[S, S, 3]``, RGB in [0, 1], looks like from afar; not to be written to."""

    def __init__(self, picture: FloatArray) -> None:
        self._picture = picture

    @classmethod
    def of(cls, picture: FloatArray | Glance) -> Glance:
        """The picture's own, or what was given."""
        return picture if isinstance(picture, Glance) else cls(picture)

    def shows(self, picture: FloatArray) -> bool:
        """Whether it was made of this very picture."""
        return self._picture is picture

    def again(self, picture: FloatArray) -> Glance:
        """One of a picture that may have been mended since: this one where it was not."""
        return self if self.shows(picture) else Glance(picture)

    @cached_property
    def rgb(self) -> torch.Tensor:
        """``[1, 3, 128, 128]``."""
        return resize(to_tensor(self._picture), GLANCE_SIZE)

    @cached_property
    def lab(self) -> FloatArray:
        """``[128, 128, 3]`` L*a*b*."""
        return to_array(kornia.color.rgb_to_lab(self.rgb))
