"""Faces: detection, mesh, FFHQ alignment, tracks through a clip."""

from __future__ import annotations

from vidswap.faces.align import align, align_quad, face_in_crop
from vidswap.faces.backends import FaceAlignmentDetector, InsightFaceDetector
from vidswap.faces.cuts import is_cut, small_rgb
from vidswap.faces.detect import DETECTORS, Detector, MediaPipeDetector, make_detector
from vidswap.faces.finder import FaceFinder
from vidswap.faces.mesh import FaceMesher
from vidswap.faces.track import Track, Tracker, largest_face, look_weight
from vidswap.warp import crop, paste_sample

__all__ = [
    "DETECTORS",
    "Detector",
    "FaceAlignmentDetector",
    "FaceFinder",
    "FaceMesher",
    "InsightFaceDetector",
    "MediaPipeDetector",
    "Track",
    "Tracker",
    "align",
    "align_quad",
    "crop",
    "face_in_crop",
    "is_cut",
    "largest_face",
    "look_weight",
    "make_detector",
    "paste_sample",
    "small_rgb",
]
