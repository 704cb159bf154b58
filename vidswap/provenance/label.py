"""The visible label: a small badge in a corner that says what the picture is."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vidswap.records import FloatArray

Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]
LABEL_TEXT = "AI-generated"

_TEXT_OF_HEIGHT = 0.028
_SMALLEST_TEXT_PX = 9
_PAPER, _INK = 0.07, 0.97
_OPACITY = 0.72


@dataclass(frozen=True)
class VisibleLabel:
    """A badge and where it goes, in upright pixels of the frame."""

    rgb: FloatArray = field(repr=False)
    """``[h, w, 3]`` in [0, 1]."""
    alpha: FloatArray = field(repr=False)
    """``[h, w]`` opacity in [0, 1]."""
    box_xyxy: tuple[int, int, int, int]
    """Left, top, right, bottom in whole pixels; the size is that of ``rgb``."""

    def over(self, region: FloatArray) -> FloatArray:
        """The badge laid over the frame's pixels in the box, ``[h, w, 3]`` RGB in [0, 1]."""
        if region.shape != self.rgb.shape:
            raise ValueError(f"region: expected {self.rgb.shape}, got {region.shape}")
        alpha = self.alpha[..., None]
        return (region * (1 - alpha) + self.rgb * alpha).astype(np.float32)


def visible_label(
    size_wh: tuple[int, int],
    *,
    text: str = LABEL_TEXT,
    corner: Corner = "bottom-right",
    font: str | None = None,
) -> VisibleLabel | None:
    """The badge for frames of a size: light text on a dark rounded field.

    Its height follows the shorter side of the frame. Made once a size and shared: do not
    write into its arrays.

    Args:
        size_wh: the upright frame, in pixels.
        font: TrueType or OpenType file; None: a built-in font, which has English letters only.

    Returns:
        The badge, or None when the frame is too small to hold legible text.

    Raises:
        ValueError: the size or the corner is none.
        OSError: the font cannot be read.
    """
    if min(size_wh) < 1:
        raise ValueError(f"size_wh: expected > 0, got {size_wh}")
    if corner not in ("top-left", "top-right", "bottom-left", "bottom-right"):
        raise ValueError(f"corner: expected top-left … bottom-right, got {corner!r}")
    return _label(size_wh, text, corner, font)


def undrawable(text: str, *, font: str | None = None) -> str | None:
    """The first character of a label that the font has no glyph for, or None.

    Raises:
        OSError: the font cannot be read.
    """
    drawn_with = _font(font, 16)

    def shape(character: str) -> bytes:
        image = Image.new("L", (32, 32))
        ImageDraw.Draw(image).text((4, 4), character, fill=255, font=drawn_with)
        return image.tobytes()

    unknown = shape("\uffff")
    for character in text:
        if not character.isprintable() or (not character.isspace() and shape(character) == unknown):
            return character
    return None


@lru_cache(maxsize=8)
def _label(size_wh: tuple[int, int], text: str, corner: str, font_path: str | None) -> VisibleLabel | None:
    width, height = size_wh
    text_px = max(_SMALLEST_TEXT_PX, round(min(size_wh) * _TEXT_OF_HEIGHT))
    font = _font(font_path, text_px)
    left, top, right, bottom = font.getbbox(text)
    pad_x, pad_y = round(text_px * 0.6), round(text_px * 0.4)
    # Even sizes and places, so that planes with halved chroma change nowhere else.
    badge_w = _even_up(int(np.ceil(right - left)) + 2 * pad_x)
    badge_h = _even_up(int(np.ceil(bottom - top)) + 2 * pad_y)
    margin = _even_up(round(text_px * 0.8))
    if badge_w + margin > width or badge_h + margin > height:
        return None
    x = margin if "left" in corner else (width - badge_w - margin) // 2 * 2
    y = margin if "top" in corner else (height - badge_h - margin) // 2 * 2
    if x + badge_w > width or y + badge_h > height:
        return None

    scale = 4  # the field's round corners are drawn large and averaged down
    field_image = Image.new("L", (badge_w * scale, badge_h * scale), 0)
    ImageDraw.Draw(field_image).rounded_rectangle(
        (0, 0, badge_w * scale - 1, badge_h * scale - 1), radius=badge_h * scale * 0.3, fill=255
    )
    shape = np.asarray(field_image.resize((badge_w, badge_h), Image.Resampling.BOX), np.float32)
    ink_image = Image.new("L", (badge_w, badge_h), 0)
    origin = ((badge_w - (right - left)) / 2 - left, (badge_h - (bottom - top)) / 2 - top)
    ImageDraw.Draw(ink_image).text(origin, text, fill=255, font=font)
    ink = np.asarray(ink_image, np.float32) / 255

    alpha = np.maximum(shape / 255 * _OPACITY, ink).astype(np.float32)
    grey = _PAPER + (_INK - _PAPER) * ink
    rgb = np.repeat(grey[..., None], 3, axis=2).astype(np.float32)
    rgb.setflags(write=False)
    alpha.setflags(write=False)
    return VisibleLabel(rgb, alpha, (x, y, x + badge_w, y + badge_h))


def _font(path: str | None, size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px) if path is None else ImageFont.truetype(path, size_px)


def _even_up(value: int) -> int:
    return value + value % 2
