"""From what the user names as a source to a cached source latent (composer level)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from vidswap import warp, weights
from vidswap.cache import JSON, content_key
from vidswap.compositing import face_mask
from vidswap.compositing.arrays import resize_map
from vidswap.errors import NoFaceError
from vidswap.faces import align_quad, face_in_crop
from vidswap.glasses import see_glasses
from vidswap.likeness import Reference
from vidswap.mixing import blend_sources
from vidswap.records import AlignedCrop, Face, Pivot
from vidswap.reports import Log, quiet
from vidswap.session import Session
from vidswap.sources import SourceSpec, face_key, parse_reference, parse_sources
from vidswap.video import open_frames, read_region, read_rgb8

CROP_SIZE = 512
_LABELS = " + "
"""Between the labels of mixed people."""
_SOURCE_SIDE = 1600
_VERSION = 9
_NOT_ASKED = ("first", "next", "rest", "warm", "tune", "locality")
"""Beginnings of the settings of inversion that a source's photo does not ask."""
_NOT_LOOKED_FOR = ("select", "lost_seconds")
"""Settings of faces that are about clips."""
_ASKED = ("dlib-resnet", "encoder", "fit-curvature", "glasses", "rgb-heads")
"""Networks that a source's inversion depends on, besides the generator."""


@dataclass(frozen=True)
class SourceIdentity:
    """A person to put onto others."""

    label: str
    """What the user called it."""
    code: Tensor
    """``[1, n_styles, 512]`` source latent."""
    embedding: Tensor
    """``[1, 128]`` identity of the photos themselves (not of their inversions)."""

    @property
    def name(self) -> str:
        """The label without folders, for messages."""
        return _LABELS.join(os.path.basename(part) for part in self.label.split(_LABELS))


def to_tensor(image: np.ndarray, device: torch.device) -> Tensor:
    """``[H, W, 3]`` in [0, 1] to ``[1, 3, H, W]`` in [-1, 1]."""
    array = np.ascontiguousarray(np.asarray(image, dtype=np.float32).transpose(2, 0, 1))
    return torch.from_numpy(array)[None].to(device) * 2 - 1


def to_image(tensor: Tensor) -> np.ndarray:
    """``[1, 3, H, W]`` in [-1, 1] to float32 ``[H, W, 3]`` in [0, 1]."""
    return ((tensor[0].clamp(-1, 1) + 1) * 0.5).permute(1, 2, 0).cpu().numpy().copy()


def aligned_crop(
    picture: np.ndarray,
    face: Face,
    quad: np.ndarray,
    *,
    size: int,
    origin_xy: tuple[float, float] = (0.0, 0.0),
    scale_xy: tuple[float, float] = (1.0, 1.0),
) -> AlignedCrop:
    """Crop a quad of a picture and carry mesh and irises along.

    :param picture: float32 ``[h, w, 3]`` in upright stored pixels.
    :param quad: in display coordinates, like the face.
    :param origin_xy: place of the picture's top left corner, in upright stored pixels.
    :param scale_xy: the frame's ``display_scale_xy``.
    """
    image, inside = warp.crop(picture, np.asarray(quad) / scale_xy, size, origin_xy=origin_xy)
    moved = face_in_crop(face, quad)
    return AlignedCrop(
        image, np.asarray(quad, np.float32), moved.mesh_xyz, moved.iris_xy, inside
    )


def visible_face(crop: AlignedCrop, size: int) -> np.ndarray:
    """Where the crop shows the face, ``[size, size]`` in [0, 1], a little beyond its outline."""
    if crop.mesh_xyz is None:
        return np.ones((size, size), np.float32)
    mask = face_mask(crop.mesh_xyz, size, erode=-24.0, feather=40.0, inside=crop.inside)
    return np.clip(mask * 1.5, 0, 1)


def prepare_source(
    session: Session, specs: Sequence[str], *, log: Log = quiet
) -> SourceIdentity:
    """Invert a source once, or take it from the cache.

    :param specs: photos of one person (their latents are averaged), ``synthetic:SEED``, or several people
        with the share of each, as MFIM mixes them (arXiv 2308.01536): latents and embeddings are averaged.
    :raises UsageError: as :func:`parse_sources`.
    :raises InputError: a photo cannot be read. :raises NoFaceError: no face, or several.
    """
    parsed = parse_sources(specs)
    parts = [_prepare_one(session, spec, log) for spec in parsed]
    if len(parts) == 1:
        return parts[0]
    shares = [1.0 if spec.share is None else spec.share for spec in parsed]
    label = _LABELS.join(part.label for part in parts)
    code, embedding = (
        blend_sources([getattr(part, name) for part in parts], shares) for name in ("code", "embedding")
    )
    return SourceIdentity(label, code, embedding)


def _prepare_one(session: Session, spec: SourceSpec, log: Log) -> SourceIdentity:
    generator = session.generator
    if spec.seed is not None:
        code = generator.sample(spec.seed)[:, None].repeat(1, generator.n_styles, 1)
        with torch.no_grad():
            embedding = session.identity.embed_aligned(generator.synthesize(code, size=generator.resolution))
        return SourceIdentity(str(spec), code, embedding)
    config = session.config
    key: dict[str, JSON] = {
        "version": _VERSION,
        "photo": content_key(spec.photo),
        "face": spec.face_index,
        "generator": generator.identifier,
        "faces": {k: v for k, v in asdict(config.faces).items() if k not in _NOT_LOOKED_FOR},
        "inversion": {k: v for k, v in asdict(config.inversion).items() if not k.startswith(_NOT_ASKED)},
        "steps": config.mix.source_steps,
        "encoder": session.encoder is not None,
        "glasses": session.glasses_net is not None,
        "networks": network_keys(_ASKED),
        "device": session.device.type,
        "precision": session.precision,
    }
    found = session.cache.get("source", key)
    if found is not None:
        tensors = {name: torch.from_numpy(array).to(session.device) for name, array in found.items()}
        return SourceIdentity(str(spec), tensors["code"], tensors["embedding"])
    log(f"inverting {os.path.basename(str(spec))} (once; then it is cached)")
    crop = source_crop(session, spec, log=log)
    image = to_tensor(crop.image, session.device)
    face = torch.from_numpy(visible_face(crop, CROP_SIZE))[None, None].to(session.device)
    # Those of the photo do not belong to the person: brows would grow together where their bridge was.
    frames = see_glasses(crop, session)
    covered = None
    if frames is not None:
        covered = torch.from_numpy(resize_map(frames, CROP_SIZE))[None, None].to(session.device)
    with session.alone():
        pivot: Pivot = session.inverter.first(
            image, face=face, covered=covered, steps=config.mix.source_steps
        )
    code = torch.from_numpy(pivot.latent)[None].to(session.device)
    with torch.no_grad():
        embedding = session.identity.embed_aligned(image)
    session.cache.put("source", key, {"code": code.cpu().numpy(), "embedding": embedding.cpu().numpy()})
    return SourceIdentity(str(spec), code, embedding)


def network_keys(names: Iterable[str]) -> dict[str, str]:
    """Content keys of networks by name, of those that are here: what is kept depends on them."""
    return {name: content_key(weights.locate(name)) for name in names if weights.available(name)}


def prepare_reference(session: Session, text: str) -> Reference:
    """Whom to look for: the one face of a picture, or the one that ``people.png#1`` names.

    :raises InputError: the picture cannot be read. :raises NoFaceError: no face in it, or several.
    """
    spec = parse_reference(text)
    crop = source_crop(session, spec, word="reference")
    with torch.no_grad():
        embedding = session.identity.embed_aligned(to_tensor(crop.image, session.device))
    return Reference(str(spec), face_key(spec), embedding[0].cpu().numpy())


def source_crop(
    session: Session, spec: SourceSpec, *, word: str = "source", log: Log = quiet
) -> AlignedCrop:
    """The aligned face of a photo, or of the first frame of a clip.

    :param word: what messages call it. :param log: told that it is a clip.
    :raises NoFaceError: no face, or several and no index given (``photo.jpg#1``).
    """
    with open_frames(spec.photo) as frames:
        frame = next(iter(frames))
        if frames.info.kind == "video":
            log(f"{os.path.basename(str(spec))} is a clip: the {word} is who its first frame shows")
    rgb, (scale, _) = read_rgb8(frame, max_side=_SOURCE_SIDE)
    faces = session.new_finder().find(rgb, 0.0, scale=scale)
    faces = sorted(faces, key=lambda face: float(face.box_xyxy[0]))
    if not faces:
        raise NoFaceError(f"{str(spec)}: no face found in the {word}; use a clear photo of a face")
    if spec.face_index is None and len(faces) > 1:
        raise NoFaceError(
            f"{str(spec)}: {len(faces)} faces in the {word}; choose one, left to right, "
            f"with {str(spec)}#0 to #{len(faces) - 1}"
        )
    index = spec.face_index or 0
    if index >= len(faces):
        last = f", #0 to #{len(faces) - 1} from left to right" if len(faces) > 1 else ", which is #0"
        raise NoFaceError(f"{str(spec)}: there is no face #{index}; it has {len(faces)}{last}")
    face = faces[index]
    return aligned_crop(
        read_region(frame), face, align_quad(face), size=CROP_SIZE, scale_xy=frame.display_scale_xy
    )
