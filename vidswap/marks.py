"""What may be chosen about the mark of an output: a label in the picture, and who signs (composer level).

The mark itself is not a matter of settings: every output has it.
"""

from __future__ import annotations

from pathlib import Path

from vidswap.config import MarkConfig
from vidswap.errors import UsageError
from vidswap.provenance import SignerFiles, VisibleLabel, check_signer, undrawable, visible_label
from vidswap.records import Frame
from vidswap.video import write_region

_LONGEST_TEXT = 80


def signer_of(mark: MarkConfig) -> SignerFiles | None:
    """The user's own certificate, or None for the local one.

    :raises UsageError: only one of certificate and key is named.
    """
    if (mark.sign_cert is None) != (mark.sign_key is None):
        given, missing = ("certificate", "--sign-key") if mark.sign_cert else ("key", "--sign-cert")
        raise UsageError(f"a {given} of your own signs only as a pair: give {missing} FILE as well")
    if mark.sign_cert is None or mark.sign_key is None:
        return None
    return SignerFiles(Path(mark.sign_cert).expanduser(), Path(mark.sign_key).expanduser())


def check_mark(mark: MarkConfig, size_wh: tuple[int, int] | None = None) -> None:
    """Refuse, before hours of work, what could not be marked as asked in the end.

    :param size_wh: of the upright frames; None: not known yet.
    :raises UsageError: a certificate that cannot sign, a text that cannot be drawn or does not fit.
    :raises OutputError: the local certificate cannot be made.
    """
    check_signer(signer_of(mark))
    text = mark.visible_label
    if text is None:
        return
    if not text.strip() or len(text) > _LONGEST_TEXT:
        raise UsageError(f"--visible-label: expected 1 to {_LONGEST_TEXT} characters, got {text[:90]!r}")
    try:
        missing = undrawable(text, font=mark.label_font)
    except OSError as error:
        raise UsageError(
            f"mark.label_font: cannot read {mark.label_font!r} ({error}): name a .ttf or .otf file"
        ) from error
    if missing:
        raise UsageError(
            f"--visible-label: the font has no glyph for {missing!r} of {text!r}: use other characters, or "
            "name a font that has it (--set mark.label_font=FILE.ttf)"
        )
    if size_wh is not None and label_of(mark, size_wh) is None:
        raise UsageError(
            f"--visible-label: {text!r} does not fit into frames of {size_wh[0]}x{size_wh[1]}: shorten "
            "it, or leave it out"
        )


def label_of(mark: MarkConfig, size_wh: tuple[int, int]) -> VisibleLabel | None:
    """The label for upright frames of a size; None when none is asked for, or there is no room."""
    if mark.visible_label is None:
        return None
    return visible_label(size_wh, text=mark.visible_label, corner=mark.label_corner, font=mark.label_font)


def labelled(frame: Frame, mark: MarkConfig) -> Frame:
    """The frame with its visible label, if one is asked for."""
    label = label_of(mark, frame.upright_size_wh)
    return frame if label is None else write_region(frame, label.box_xyxy, label.rgb, label.alpha)
