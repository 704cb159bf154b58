"""What runs keep of a clip for others: all of its faces that does not depend on the source (composer level).

Faces, steadied quads, pivots and what is in front of them, by the content of the clip and all settings that
they depend on, a chunk of frames an entry. Pivots have 16 bits a number there and pictures 8 bits a sample.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from vidswap.cache import JSON, ContentCache
from vidswap.likeness import Sought
from vidswap.records import Frame, Pivot
from vidswap.session import Session
from vidswap.snapshots import pack, squeeze, unpack, unsqueeze
from vidswap.stages import Selection
from vidswap.witnesses import from_bytes, in_bytes
from vidswap.works import FaceWork, Work

KIND = "target-latents"
"""Kind of the cache's entries."""
_VERSION = 21
State = dict[str, Any]


@dataclass
class KeptChunks:
    """Faces and pivots of a clip on disk, by all that they depend on."""

    cache: ContentCache | None
    """None: nothing is kept or found."""
    key: dict[str, JSON]
    device: torch.device
    _chunk_of: dict[int, int] = field(default_factory=dict, repr=False)
    """Number of the chunk by pts, of the chunks that :meth:`at` has looked through: all up to the last."""
    _last: tuple[int, State | None] = field(default=(-1, None), repr=False)
    """The chunk that it looked at last, and its number."""

    def get(self, index: int) -> State | None:
        """Frames and end state of a chunk, or None."""
        found = None if self.cache is None else self.cache.get(KIND, self._key(index))
        return None if found is None else unpack(found, self.device)

    def put(self, index: int, frames: list[Any], state: State | None) -> None:
        if self.cache is not None:
            self.cache.put(KIND, self._key(index), pack({"frames": frames, "state": state}))

    def forget(self, index: int) -> None:
        if self.cache is not None:
            self.cache.path_of(KIND, self._key(index)).unlink(missing_ok=True)

    def at(self, pts: int) -> State | None:
        """What is kept of the frame shown at ``pts``, or None."""
        index = self._chunk_of.get(pts)
        if index is not None and index != self._last[0]:
            self._last = (index, self.get(index))
        looked_at = max(self._chunk_of.values(), default=-1)
        while index is None:
            looked_at += 1
            self._last = (looked_at, self.get(looked_at))
            if self._last[1] is None:
                return None
            self._chunk_of |= {entry["pts"]: looked_at for entry in self._last[1]["frames"]}
            index = self._chunk_of.get(pts)
        frames = () if self._last[1] is None else self._last[1]["frames"]
        return next((entry for entry in frames if entry["pts"] == pts), None)

    def first_of(self, track_id: int, count: int) -> list[State]:
        """The frame in which a track is first seen and up to ``count`` after it, within the shot."""
        seen = itertools.dropwhile(
            lambda entry: all(face["face"].track_id != track_id for face in entry["faces"]), self._entries()
        )
        near = list(itertools.islice(seen, count + 1))
        return [entry for entry in near if entry["shot"] == near[0]["shot"]]

    def _entries(self) -> Iterator[State]:
        for index in itertools.count():
            chunk = self.get(index)
            if chunk is None:
                return
            yield from chunk["frames"]

    def _key(self, index: int) -> dict[str, JSON]:
        return {**self.key, "chunk": index}


def analysis_key(session: Session, selection: Selection, **clip: JSON) -> dict[str, JSON]:
    """All that the faces and pivots of a clip depend on.

    :param clip: content of the target, range, frames a chunk, hashes of the networks.
    """
    config = session.config
    return {
        "version": _VERSION,
        "generator": session.generator.identifier,
        "encoder": session.encoder is not None,
        "faces": asdict(config.faces),
        "inversion": asdict(config.inversion),
        "quads": [config.smooth.lag, config.smooth.quad],
        "held": config.smooth.occlusion > 0,
        "select": selection.wanted,
        "tracks": sorted(selection.per_track),
        "reference": None if selection.reference is None else selection.reference.key,
        "device": session.device.type,
        "precision": session.precision,
        **clip,
    }


def kept_half(pivot: Pivot) -> np.ndarray:
    """A pivot's latent in the precision that it is kept in."""
    return pivot.latent.astype(np.float16)


def entry_of(work: Work) -> State:
    """A frame's faces, pivots and witnesses, as they are kept for other runs."""
    faces = [
        {
            "face": replace(face.face, embedding=None),
            "quad": face.quad,
            "pivot": replace(face.pivot, latent=kept_half(face.pivot)),
            "occluded": _squeezed(face.occluded),
            "glasses": _squeezed(face.glasses),
            "inversion": _squeezed(face.inversion),
        }
        for face in work.faces
    ]
    return {
        "index": work.frame.index,
        "pts": work.frame.pts,
        "shot": work.shot,
        "sought": None if work.sought is None else [work.sought.people, work.sought.nearest],
        "faces": faces,
    }


def _squeezed(seen: np.ndarray | None) -> State | None:
    return None if seen is None else squeeze(in_bytes(seen))


def _seen(kept: State | None) -> np.ndarray | None:
    return None if kept is None else from_bytes(unsqueeze(kept))


def kept_work(entry: State, frame: Frame, selection: Selection) -> Work:
    """A frame with its kept faces and pivots, as they were before smoothing over time."""
    faces = []
    for kept in entry["faces"]:
        source = selection.per_track.get(kept["face"].track_id, selection.source)
        if source is None:  # nobody is put onto this one
            continue
        pivot = replace(kept["pivot"], latent=kept["pivot"].latent.astype(np.float32))
        made = FaceWork(kept["face"], kept["quad"], source, pivot=pivot)
        occluded, glasses, inversion = (_seen(kept[name]) for name in ("occluded", "glasses", "inversion"))
        faces.append(replace(made, occluded=occluded, glasses=glasses, inversion=inversion))
    sought = None if entry["sought"] is None else Sought(*entry["sought"])
    return Work(frame, entry["shot"], tuple(faces), sought)
