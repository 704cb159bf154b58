"""Contact sheets: target, inversion, mask, swap and result of a few frames side by side (composer level)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from vidswap import warp
from vidswap.cache import temporary_beside
from vidswap.config import RunConfig
from vidswap.errors import InputError, NoFaceError, UsageError
from vidswap.identities import prepare_reference, to_image
from vidswap.kept_faces import kept_work
from vidswap.marks import signer_of
from vidswap.pipeline import Swapper, claim_of
from vidswap.provenance import mark_output
from vidswap.records import Frame
from vidswap.regenerate import Regenerate, SeatFaces
from vidswap.reports import Log, PreviewReport, Progress, Telling, quiet
from vidswap.runs import kept_chunks
from vidswap.session import Session
from vidswap.sources import check_reference
from vidswap.stages import CropFaces, FindFaces, InvertFaces, PasteFaces, Selection, smooth_latents
from vidswap.video import VideoInfo, check_output, grab_frame, output_kind, probe, read_region
from vidswap.witnesses import CROP_SIZE, SeeOccluders
from vidswap.works import FaceWork, Work

_COLUMNS = ("target", "inversion", "mask", "swap", "result")
_HEADER = 28


def preview(
    target: str | Path,
    source: str | Sequence[str],
    *,
    config: RunConfig | None = None,
    at_seconds: Sequence[float] = (0.0,),
    reference: str | Path | None = None,
    output: str | Path = "preview.png",
    force: bool = False,
    progress: Callable[[Progress], None] | None = None,
    log: Log = quiet,
) -> PreviewReport:
    """Swap single frames and show every step of it.

    :param at_seconds: times of the frames, counted from the start of the clip.
    :param reference: picture of the person to be swapped, in place of the setting ``faces.select``.
    :param output: a picture, PNG or JPEG; one row a face, columns target, inversion, mask, swap, result,
        512 px each.
    :raises InputError: a time beyond the clip's end.
    :raises NoFaceError: when none of the frames shows a face, or that of the reference.
    """
    target, output = Path(target), Path(output)
    started = time.perf_counter()
    check_output(output, target, force=force)
    if output_kind(output) != "image":
        raise UsageError(f"the sheet is one picture: name {output} .png or .jpg")
    check_reference(reference)
    info = probe(target)
    length = info.duration_seconds
    for seconds in at_seconds:
        if length is not None and seconds > length:
            raise InputError(f"{target} is {length:.2f} s long: there is no frame at {seconds:g} s")
    swapper = Swapper(config or RunConfig(), log)
    who = None if reference is None else prepare_reference(swapper.session, os.fspath(reference))
    telling = Telling(progress, log, len(at_seconds))
    selection = Selection(swapper.config.faces.select, swapper.source(source, telling.doing), reference=who)
    works = _Works(swapper.session, info, selection, telling.doing)
    rows: list[list[np.ndarray]] = []
    labels: list[str] = []
    times: list[float] = []
    counts: list[int] = []
    for seconds in at_seconds:
        frame = grab_frame(target, seconds)
        work, draw = works(frame)
        selection.heard(work.sought)
        found = _rows(swapper.session, work, draw)
        rows += found
        labels += [f"{frame.pts_seconds:.3f} s"] * len(found)
        times.append(frame.pts_seconds)
        counts.append(len(found))
        telling.frames(len(counts))
    if not rows:
        at = f"the frames at {', '.join(map(str, at_seconds))} s"
        sought, person = selection.sought, selection.reference
        if sought is not None and person is not None and sought.people:
            raise NoFaceError(f"{target}, {at}: {sought.describe(person.label)}")
        raise NoFaceError(f"{target}: no face in {at}")
    _write(rows, labels, output, target, swapper)
    return PreviewReport(
        output=output,
        at_seconds=tuple(times),
        faces=tuple(counts),
        device=str(swapper.session.device),
        seconds_total=time.perf_counter() - started,
    )


class _Works:
    """Faces of single frames with their pivots: as a swap of the whole clip has found them, where one was
    made with these settings; else each inverted on its own, as the first of a clip."""

    def __init__(
        self, session: Session, info: VideoInfo, selection: Selection, doing: Log
    ) -> None:
        self.session, self.selection, self.doing = session, selection, doing
        self._kept = kept_chunks(session, info, selection)
        self._draw_kept = Regenerate(session, doing)  # one for all: it refines the source once a track

    def __call__(self, frame: Frame) -> tuple[Work, Regenerate]:
        """The faces of a frame, and the stage that draws their new faces."""
        session, crop = self.session, CropFaces(self.session.config.composite)
        entry = self._kept.at(frame.pts)
        if entry is not None:
            work = crop(kept_work(entry, frame, self.selection))
            for face in work.faces:
                begun = None if self._draw_kept.is_refined(face) else self._begun(face, frame)
                if begun is not None:
                    self._draw_kept.refine(begun)
            return work, self._draw_kept
        work = FindFaces(session, session.new_finder(), self.selection.fresh())(frame)
        return InvertFaces(session)(crop(work)), Regenerate(session, self.doing)

    def _begun(self, face: FaceWork, frame: Frame) -> FaceWork | None:
        """A face as it was where its track begins: what the run refined its source by, and kept."""
        smooth, track = self.session.config.smooth, face.face.track_id
        near = [kept_work(entry, frame, self.selection) for entry in self._kept.first_of(track, smooth.lag)]
        if near and smooth.latent > 0 and smooth.lag > 0:
            near[0] = smooth_latents(smooth.latent)(near[0], list(enumerate(near))[1:])
        return next((each for work in near[:1] for each in work.faces if each.face.track_id == track), None)


def _rows(session: Session, work: Work, draw: Regenerate) -> list[list[np.ndarray]]:
    """Pictures of one frame, a row a face; every stage is run by hand."""
    work = SeatFaces(session.config)(draw(SeeOccluders(session)(work)))
    paste = PasteFaces(session.config)
    swaps = [paste.finish(face, work, whole=True) for face in work.faces]
    finished, _ = PasteFaces(session.config)(work)
    return [
        _row(session, work, face, swap.image, swap.mask, finished)
        for face, swap in zip(work.faces, swaps, strict=True)
    ]


def _row(
    session: Session, work: Work, face: FaceWork, image: np.ndarray, mask: np.ndarray, finished: Frame
) -> list[np.ndarray]:
    generator = session.generator
    code = torch.from_numpy(face.pivot.latent)[None].to(session.device)
    with torch.no_grad():
        inversion = to_image(generator.synthesize(code, size=generator.resolution))
    box = (0, 0, *work.frame.upright_size_wh)
    quad = face.quad / work.frame.display_scale_xy
    result, _ = warp.crop(read_region(finished, box), quad, CROP_SIZE)
    grey = np.repeat(mask[..., None], 3, axis=2)
    return [_fit(picture) for picture in (face.crop.image, inversion, grey, image, result)]


def _fit(picture: np.ndarray) -> np.ndarray:
    data = (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
    image = Image.fromarray(data)
    if image.width != CROP_SIZE:
        image = image.resize((CROP_SIZE, CROP_SIZE), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _write(
    rows: list[list[np.ndarray]], labels: list[str], output: Path, target: Path, swapper: Swapper
) -> None:
    """Marked like every output: it shows the new face."""
    sheet = Image.new("RGB", (CROP_SIZE * len(_COLUMNS), (CROP_SIZE + _HEADER) * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(18)
    for y, (row, label) in enumerate(zip(rows, labels, strict=True)):
        top = y * (CROP_SIZE + _HEADER)
        for x, (picture, name) in enumerate(zip(row, _COLUMNS, strict=True)):
            draw.text((x * CROP_SIZE + 8, top + 4), f"{label}  {name}" if x == 0 else name, "black", font)
            sheet.paste(Image.fromarray(picture), (x * CROP_SIZE, top + _HEADER))
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(output)
    try:
        sheet.save(temporary, Image.registered_extensions()[output.suffix.lower()])
        mark_output(
            temporary, output, target=target, claim=claim_of(swapper.session),
            signer=signer_of(swapper.config.mark),
        )  # fmt: skip
    finally:
        temporary.unlink(missing_ok=True)
