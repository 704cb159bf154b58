"""Latents of an export in place of inversion (composer level): ``vidswap swap --latents FILE``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vidswap.cache import content_key
from vidswap.errors import InputError, UsageError
from vidswap.latent_files import LatentRows
from vidswap.records import Pivot
from vidswap.runs import input_key
from vidswap.session import Session
from vidswap.video import VideoInfo
from vidswap.works import Work


class GivenLatents:
    """Stage: the pivot of each face from a file, by its time and track.

    The latents of an export are smoothed already, as a swap smooths them.

    :param path: ``latents.safetensors`` of an export of this clip, with the settings of this run that
        say where faces are.
    :raises InputError: it cannot be read, or is no such file.
    :raises UsageError: it belongs to another generator, other weights, or another clip.
    """

    def __init__(self, path: Path, session: Session, info: VideoInfo) -> None:
        self.rows = LatentRows(path)
        self.key = content_key(Path(path))
        """What the file holds."""
        generator = session.generator
        if self.rows.generator != generator.identifier:
            raise UsageError(
                f"the latents in {path} belong to the generator {_short(self.rows.generator)}, this run uses "
                f"{_short(generator.identifier)}: export them again"
            )
        if self.rows.n_styles != generator.n_styles:
            raise InputError(
                f"{path} holds {self.rows.n_styles} styles a face where {generator.name} has "
                f"{generator.n_styles}: export them again"
            )
        if self.rows.target != input_key(info) or self.rows.time_base != info.time_base:
            raise UsageError(
                f"the latents in {path} are of another clip than {info.path.name}: name its own export"
            )
        if session.config.inversion.tune_steps > 0 and info.kind == "video":
            raise UsageError(
                "--latents are of the generator as it is, and these settings tune it for the clip: "
                "add --set inversion.tune_steps=0"
            )
        self._row_of = {
            (int(pts), int(track)): row
            for row, (pts, track) in enumerate(zip(self.rows.pts, self.rows.track, strict=True))
        }

    def __call__(self, work: Work) -> Work:
        return work.with_faces(
            replace(face, pivot=self._pivot(work, face.face.track_id)) for face in work.faces
        )

    def _pivot(self, work: Work, track: int) -> Pivot:
        row = self._row_of.get((work.frame.pts, track))
        if row is None:
            raise UsageError(
                f"{self.rows.path} has no latent of person {track} at {work.frame.pts_seconds:.3f} s: export "
                "the whole clip with the same settings (faces, start), or leave --latents out"
            )
        error = float(self.rows.error[row])
        return Pivot(self.rows.code(row), self.rows.generator, error=error, started_from="cache")


def _short(identifier: str) -> str:
    name, dash, digest = identifier.rpartition("-")
    return f"{name}{dash}{digest[:12]}"
