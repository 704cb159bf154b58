"""What the stages know of a clip, as files for other tools (composer level). Format version 1.

An export is a folder:

* ``manifest.json``: ``format`` (``vidswap-export``), ``format_version``, ``vidswap``, ``target``
  (name, content key, sizes, rotation, pixel aspect ratio), ``time_base``, ``frames``, ``tracks``
  (a person each: faces, first and last pts), ``reference`` (file name of the picture of the one
  person who was wanted, with its ``#1``, or null), ``what``, ``generator``, ``settings``, ``weights``
  (SHA-256 by name) and ``files`` (bytes and SHA-256 of all but the manifest and pictures).
* ``frames.jsonl``: a line a frame: ``frame`` (from 0 at the first one exported), ``pts``,
  ``seconds``, ``shot``, ``tracks`` seen in it.
* ``landmarks.jsonl``: a line a face: ``frame``, ``pts``, ``track``, ``score``, ``box`` (left,
  top, right, bottom), ``keypoints`` 5 x 2, ``mesh`` 468 x 3 (MediaPipe's order), ``iris`` 2 x 5 x 2
  or null, in display coordinates: the upright picture, square pixels, pixel centres at .5. On request
  ``landmarks.parquet`` in its place, with the same columns (:mod:`vidswap.parquet_rows`).
* ``quads.jsonl``: a line a face: ``frame``, ``pts``, ``track``, ``quad``, corners TL, BL, BR, TR
  of the aligned crop in display coordinates, smoothed as a swap smooths them.
* ``crops/track-T/FFFFFF.png``: the aligned face, 512 x 512, 8 bits, of frame FFFFFF.
* ``masks/track-T/FFFFFF.png``: opacity of the swapped area, 8-bit grey, in upright stored pixels
  of the frame; or ``masks.mkv``, lossless FFV1, all faces together, a picture for every frame
  (Matroska rounds times to 1 ms: ``frames.jsonl`` has the exact ones).
* ``latents.safetensors`` (``.npz`` on request, ``metadata`` as JSON in it): a row a face:
  ``pts``, ``frame``, ``track`` int64 ``[N]``, ``codes`` float32 ``[N, n_styles, 512]`` (W+,
  smoothed as a swap smooths them), ``error`` float32 ``[N]`` (mean squared error of the inversion).
  Metadata, all texts: ``format`` (``vidswap-latents``), ``format_version``, ``time_base``,
  ``generator`` (name and weights hash), ``target`` (content key), ``vidswap``.
* ``embeddings.safetensors``: ``pts``, ``frame``, ``track``, and ``embeddings`` float32 ``[N, 128]``
  of dlib's network; metadata likewise, ``format`` ``vidswap-embeddings``.

A reader takes files of its own format version and older ones, and refuses newer ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from vidswap import __version__, weights
from vidswap.analysis import Analysis
from vidswap.cache import temporary_beside
from vidswap.config import RunConfig
from vidswap.errors import OutputError, UsageError
from vidswap.export_files import ExportFiles, NewFolder, all_files
from vidswap.identities import SourceIdentity, prepare_reference
from vidswap.latent_files import FORMAT_VERSION, Latents, read_latents
from vidswap.machine import usable_cores
from vidswap.parquet_rows import require_pyarrow
from vidswap.reports import Log, Pace, Progress, quiet
from vidswap.runs import input_key, kept_chunks
from vidswap.session import Session
from vidswap.settings import as_dict
from vidswap.sources import check_reference
from vidswap.stages import (
    CropFaces,
    FindFaces,
    FixedLagStage,
    Selection,
    smooth_quads,
)
from vidswap.streaming import Stage, run_stages
from vidswap.video import VideoInfo, check_output, open_frames, probe, real_folder
from vidswap.witnesses import Occlusion, visible_mask
from vidswap.works import Work

__all__ = ["FORMAT_VERSION", "KINDS", "ExportReport", "Latents", "export", "read_latents"]

KINDS = ("masks", "latents", "crops", "landmarks", "quads", "embeddings")
MASK_FORMATS = ("png", "ffv1")
LANDMARK_FORMATS = ("jsonl", "parquet")

_FINDING = (
    "blazeface-full", "blazeface-short", "facemesh", "iris", "lips-features", "lips-points", "dlib-resnet",
)  # fmt: skip
_INVERTING = ("mobilestylegan", "rgb-heads", "encoder")
# Faces are selected as for a swap, which hands each its source; nothing here looks at it.
_NOBODY = SourceIdentity("nobody", torch.zeros(1, 0, 512), torch.zeros(1, 128))


@dataclass(frozen=True)
class ExportReport:
    """What one export did."""

    output: Path
    frames: int
    faces: int
    """Faces over all frames."""
    tracks: int
    seconds_total: float
    warnings: tuple[str, ...] = ()


def export(
    target: str | Path,
    output: str | Path,
    *,
    what: Sequence[str] = ("masks", "latents", "landmarks", "quads"),
    config: RunConfig | None = None,
    face: str | None = None,
    reference: str | Path | None = None,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    mask_format: str = "png",
    npz: bool = False,
    landmark_format: str = "jsonl",
    force: bool = False,
    progress: Callable[[Progress], None] | None = None,
    log: Log = quiet,
) -> ExportReport:
    """Write masks, latents, crops, landmarks, quads and embeddings of a clip's faces.

    Only the stages that are needed run: latents need inversion, and so do masks while
    ``composite.occlusion`` is on (they leave out what is in front of the face). What a swap of the same
    faces has found already is taken from the cache, and what is found here is kept for one.

    :param output: folder, absent or empty unless ``force``; it appears whole or not at all.
    :param what: some of :data:`KINDS`. :param face: ``all`` (also when None), ``largest`` or track numbers
        ``0,2``.
    :param reference: picture of the only person who is wanted, whatever number they get.
    :param mask_format: ``png``, a picture a face, or ``ffv1``, one video.
    :param npz: write the latents as ``.npz`` as well.
    :param landmark_format: ``jsonl``, or ``parquet``, which needs pyarrow.
    :raises UsageError: unknown words, or the output is there. :raises InputError: no such clip or picture.
    :raises NoFaceError: the reference shows no face, or several. :raises OutputError: it cannot be written.
    """
    check_reference(reference, () if face is None else (face,))
    face = "all" if face is None else face
    kinds = _checked(what, face, mask_format, npz, landmark_format)
    target, output = Path(target), real_folder(output)
    if output.suffix and not output.is_dir():
        raise UsageError(f"the output {output} must be a folder: give a name without a suffix")
    began = time.perf_counter()
    info = probe(target)
    check_output(output, target, force=force)
    _require_replaceable(output)
    session = Session(config or RunConfig())
    log(f"exporting {', '.join(sorted(kinds))} on {session.device}")
    person = None if reference is None else prepare_reference(session, os.fspath(reference))
    selection = Selection(face, _NOBODY, reference=person)
    run = _Export(session, info, selection, kinds, mask_format, npz, progress, landmark_format == "parquet")
    try:
        with NewFolder(output, temporary_beside(output.absolute())) as folder:
            run(folder, start_seconds, end_seconds)
    except OSError as error:
        raise OutputError(
            f"cannot write {output} ({error.strerror or error}): free some space or choose another -o"
        ) from error
    warnings = () if run.tracks else (_nobody_found(target, selection),)
    faces = sum(track["faces"] for track in run.tracks.values())
    seconds = time.perf_counter() - began
    return ExportReport(output, run.frames, faces, len(run.tracks), seconds, warnings)


def _nobody_found(target: Path, selection: Selection) -> str:
    """Why an export holds no face, for the user."""
    person, sought = selection.reference, selection.sought
    if person is not None and sought is not None and sought.people:
        return f"{target.name}: {sought.describe(person.label)}"
    return f"no face was found in {target.name}"


def _require_replaceable(output: Path) -> None:
    """A folder is replaced as a whole, so it must hold an export and nothing of anyone else's.

    :raises UsageError: it holds something else.
    """
    if not output.is_dir() or not any(output.iterdir()):
        return
    own = {"manifest.json", "frames.jsonl", "masks.mkv", "latents.npz", "landmarks.parquet", *KINDS}
    own |= {f"{kind}.{suffix}" for kind in KINDS for suffix in ("jsonl", "safetensors")}
    others = sorted({path.name for path in output.iterdir()} - own)
    if others or not (output / "manifest.json").is_file():
        shown = others[0] if others else "no manifest.json"
        raise UsageError(
            f"the output folder {output} is not an export ({shown}) and will not be replaced: "
            "choose another -o"
        )


def _checked(
    what: Sequence[str], face: str, mask_format: str, npz: bool, landmark_format: str
) -> frozenset[str]:
    unknown = [name for name in what if name not in KINDS]
    if unknown or not what:
        raise UsageError(f"--what: expected some of {', '.join(KINDS)}, got {', '.join(what) or 'none'}")
    if mask_format not in MASK_FORMATS:
        raise UsageError(f"--masks: expected {' or '.join(MASK_FORMATS)}, got {mask_format!r}")
    if npz and "latents" not in what:
        raise UsageError("--npz is a form of the latents: add latents to --what")
    if landmark_format not in LANDMARK_FORMATS:
        raise UsageError(f"--format: expected {' or '.join(LANDMARK_FORMATS)}, got {landmark_format!r}")
    if landmark_format == "parquet":
        if "landmarks" not in what:
            raise UsageError("--format parquet is a form of the landmarks: add landmarks to --what")
        require_pyarrow()
    if face not in ("all", "largest") and not all(n.isdigit() for n in face.split(",")):
        raise UsageError(f"--face: expected all, largest or track numbers such as 0,2, got {face!r}")
    return frozenset(what)


@dataclass
class _Occluded:
    """Stage: take out of the masks what is in front of the face, as a swap does."""

    session: Session
    occluders: dict[int, Occlusion] = field(default_factory=dict)

    def __call__(self, work: Work) -> Work:
        made = []
        for face in work.faces:
            solid = visible_mask(face, self.session.config, work.shot, self.occluders)
            made.append(replace(face, solid=solid))
        return work.with_faces(made)


@dataclass
class _Export:
    """One clip on its way into its folder."""

    session: Session
    info: VideoInfo
    selection: Selection
    kinds: frozenset[str]
    mask_format: str
    npz: bool
    progress: Callable[[Progress], None] | None
    parquet: bool = False
    frames: int = 0
    tracks: dict[int, dict[str, int]] = field(default_factory=dict)

    def __call__(self, folder: Path, start: float | None, end: float | None) -> None:
        session, selection = self.session, self.selection
        pace = Pace(self.info.frames_expected(start, end))
        with ExitStack() as stack:
            files = ExportFiles(
                folder, self.kinds, self.mask_format, self.info, self.session,
                self._metadata() if self.parquet else None,
            )  # fmt: skip
            stack.callback(files.abandon)
            reader = stack.enter_context(
                open_frames(self.info.path, start_seconds=start, end_seconds=end, info=self.info)
            )
            kept = kept_chunks(session, self.info, selection, (start, end), keep=self.inverts)
            run = Analysis(session, selection, kept, session.config.runs.chunk_frames)
            stages = self._stages(run)
            works = stack.enter_context(
                run_stages(
                    reader, stages, queue_size=2, source_name="decode", at_once=usable_cores()
                )
            )
            for work in works:
                self._count(work)
                files.append(work)
                run.borders.pop(work.frame.index + 1, None)  # nobody goes on from there
                if self.progress is not None:
                    self.progress(pace(self.frames))
            files.finish(self._metadata(), npz=self.npz)
        self._write_manifest(folder)

    @property
    def occludes(self) -> bool:
        return "masks" in self.kinds and self.session.config.composite.occlusion

    @property
    def inverts(self) -> bool:
        return "latents" in self.kinds or self.occludes

    @property
    def _generator(self) -> str | None:
        """Name and weights hash; None when nothing was inverted."""
        return self.session.generator.identifier if self.inverts else None

    def _stages(self, run: Analysis) -> list[Stage]:
        """The stages of a swap, up to the last one that is needed."""
        session = self.session
        if self.inverts:
            stages = run.stages_of_target()
            if self.occludes:
                stages.append(Stage("occlusion", _Occluded(session)))
            return stages
        smooth = session.config.smooth
        stages = [Stage("find faces", FindFaces(session, session.new_finder(), run.selection))]
        if smooth.quad > 0 and smooth.lag > 0:
            stages.append(Stage("steady quads", FixedLagStage(smooth.lag, smooth_quads(smooth.quad))))
        if self.kinds - {"landmarks", "quads"}:
            stages.append(Stage("crop", CropFaces(session.config.composite)))
        return stages

    def _count(self, work: Work) -> None:
        self.frames += 1
        for face in work.faces:
            pts = work.frame.pts
            track = self.tracks.setdefault(
                face.face.track_id, {"faces": 0, "first_pts": pts, "last_pts": pts}
            )
            track["faces"] += 1
            track["last_pts"] = pts

    def _metadata(self) -> dict[str, str]:
        """What tables say of themselves."""
        return {
            "format_version": str(FORMAT_VERSION),
            "time_base": str(self.info.time_base),
            "generator": self._generator or "",
            "target": input_key(self.info),
            "vidswap": __version__,
        }

    def _write_manifest(self, folder: Path) -> None:
        info, person = self.info, self.selection.reference
        listed = [path for path in all_files(folder) if path.suffix != ".png"]
        known, used = set(weights.names()), _FINDING + (_INVERTING if self.inverts else ())
        used += ("occlusion", "glasses") if self.occludes else ()
        manifest = {
            "format": "vidswap-export",
            "format_version": FORMAT_VERSION,
            "vidswap": __version__,
            "target": {
                "name": info.path.name,
                "content": input_key(info),
                "stored_size_wh": list(info.size_wh),
                "display_size_wh": list(info.display_size_wh),
                "rotation": info.rotation,
                "sample_aspect_ratio": str(info.sample_aspect_ratio),
            },
            "time_base": str(info.time_base),
            "frames": self.frames,
            "tracks": {str(number): self.tracks[number] for number in sorted(self.tracks)},
            # Without folders: an export may be passed on.
            "reference": None if person is None else Path(person.label).name,
            "what": [kind for kind in KINDS if kind in self.kinds],
            "generator": self._generator,
            "settings": as_dict(self.session.config),
            "weights": {name: weights.status(name).sha256 for name in used if name in known},
            "files": {
                path.relative_to(folder).as_posix(): {
                    "bytes": path.stat().st_size, "sha256": _sha256(path),
                }
                for path in listed
            },
        }  # fmt: skip
        # Escapes keep names that are not UTF-8 as well.
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
