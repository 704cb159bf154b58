"""Seating a regenerated face in the frame: mask, occluders, colour, detail, paste-back."""

from __future__ import annotations

from vidswap.compositing.background import carry_skin_on
from vidswap.compositing.beard import above_beard, beard_beyond, own_head, wears_beard
from vidswap.compositing.color import ColorMatcher, ColorMethod, ColorState
from vidswap.compositing.detail import match_detail
from vidswap.compositing.eyes import deepen_eyes
from vidswap.compositing.frown import FrownState, knit_brows
from vidswap.compositing.glance import Glance
from vidswap.compositing.hairline import bare_forehead, forehead_mask, own_fringe
from vidswap.compositing.inner_mouth import lend_inner_mouth
from vidswap.compositing.jaw import carry_jaw_on
from vidswap.compositing.lids import LidState, lend_lids
from vidswap.compositing.lips import dim_lips, tint_lips
from vidswap.compositing.masks import REGIONS, face_mask, face_outline, parse_regions
from vidswap.compositing.motion import MotionState, Placement, follow, steady_mask
from vidswap.compositing.occlusion import (
    HeldOcclusion,
    combine,
    doubt,
    hold_occlusion,
    residual_occlusion,
    steady_occlusion,
    without_islands,
)
from vidswap.compositing.outline import snap_outline
from vidswap.compositing.paste import BLENDS, Blend, composite
from vidswap.compositing.sheen import lend_sheen
from vidswap.compositing.teeth import TeethState, light_teeth

__all__ = [
    "above_beard",
    "bare_forehead",
    "beard_beyond",
    "BLENDS",
    "REGIONS",
    "Blend",
    "Glance",
    "HeldOcclusion",
    "LidState",
    "MotionState",
    "Placement",
    "FrownState",
    "TeethState",
    "ColorMatcher",
    "ColorMethod",
    "ColorState",
    "carry_jaw_on",
    "carry_skin_on",
    "combine",
    "composite",
    "deepen_eyes",
    "dim_lips",
    "doubt",
    "face_mask",
    "face_outline",
    "follow",
    "forehead_mask",
    "hold_occlusion",
    "knit_brows",
    "lend_inner_mouth",
    "lend_lids",
    "lend_sheen",
    "light_teeth",
    "match_detail",
    "own_fringe",
    "own_head",
    "parse_regions",
    "residual_occlusion",
    "snap_outline",
    "steady_mask",
    "steady_occlusion",
    "tint_lips",
    "wears_beard",
    "without_islands",
]
