"""Settings of a run: frozen dataclasses, a docstring a field, defaults that work alone.

A YAML file, ``--set key=value`` and command-line options override the defaults; see
:func:`vidswap.settings.load_config`. The package needs none of the files in ``configs/``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class VideoConfig:
    """Decoding and encoding."""

    codec: str = "libx264"
    """FFmpeg name of the video encoder."""
    crf: int = 17
    """Constant rate factor of the encoder; lower is better and larger."""
    encoder_preset: str = "fast"
    """Speed preset of the encoder."""
    pix_fmt: str | None = None
    """Pixel format of the output; None keeps the target's."""


@dataclass(frozen=True)
class FaceConfig:
    """Detection, tracking, alignment."""

    detector: str = "mediapipe"
    """Backend: ``mediapipe``, ``insightface`` or ``face-alignment``."""
    min_score: float = 0.5
    """Detections below this confidence are dropped."""
    min_size_px: float = 24.0
    """Faces smaller than this (longer side of the box, display pixels) are left alone."""
    select: str = "largest"
    """Which faces are swapped: ``largest``, ``all`` or a track number."""
    lost_seconds: float = 2.0
    """A track without a detection for longer than this is closed."""


@dataclass(frozen=True)
class InversionConfig:
    """Finding the latent of a face, and tuning the generator around it."""

    encoder: bool = True
    """Start from the trained encoder when its weights are there."""
    fast_size: int = 128
    """Side in pixels of the cheap synthesis path used for fitting."""
    first_steps: int = 30
    """Steps at ``fast_size`` for the first frame of a track (or after a cut)."""
    warm: bool = True
    """Start each frame from the one before. Otherwise every frame is inverted on its own, as a picture: it
    takes many times as long, and trembles."""
    next_steps: int = 3
    """Steps at ``fast_size`` for a frame that follows another; fewer when it is as good as that one already,
    more when it is far off."""
    next_rate: float = 0.27
    """Step size of those, as a share of ``learning_rate``; of generators whose curvature is not known."""
    rest_db: float = 0.6
    """After a fitted frame the next one is left at its prediction (the frame before, moved as the encoder
    says) when its face is at most this much worse, dB. 0: all frames are fitted."""
    full_steps: int = 0
    """Steps at full resolution after those."""
    learning_rate: float = 0.06
    """Step size of Adam in fits of generators whose curvature is not known, in units of W's mean standard
    deviation."""
    w_pull: float = 0.04
    """Weight of the pull of W+ towards its own mean over styles, which keeps it editable. With 0.005 faces
    of a talking head were inverted 0.2 dB better, and swapped 0.03 further from the sources."""
    tune_steps: int = 0
    """Pivotal tuning steps a shot; 0 leaves the generator's weights alone."""
    tune_learning_rate: float = 3e-4
    """Step size of pivotal tuning."""
    locality: float = 1.0
    """Weight of the locality regularisation of pivotal tuning."""


@dataclass(frozen=True)
class MixConfig:
    """Mixing the source's identity into the target's latent."""

    mixer: str = "auto"
    """``gated`` (trained), ``layers`` (copies styles), or ``auto``: trained when it is there."""
    strength: float = 1.0
    """0 gives the inversion of the target, 1 the full swap."""
    layers: str = "5-13"
    """Styles copied by the ``layers`` mixer."""
    source_steps: int = 80
    """Fitting steps of the source photo, done once and cached."""
    refine_steps: int = 15
    """Steps that move the source's code closer to the photo as seen through the mixer, once a track; 0 leaves
    the source as its inversion gives it."""
    refine_full_steps: int = 15
    """Further ones by pictures of half the generator's size, which cost ten times as much."""
    likeness: float = 0.3
    """Weight of the second identity network in these steps; 0 leaves them to dlib's. With 0.8 smiles and
    lines of the photo's face come in."""
    calm: float = 1.0
    """How much of the smile and the open mouth of the source's photo is taken out before it is refined, from
    0 (nothing) to 1."""
    steering: float = 1.0
    """How much of the source's pose and expression that leaks in is taken out along latent directions, from
    0 (nothing) to 1."""
    edit: str | None = None
    """Changes of the new face along latent directions, in steps: ``smile=1,age=-0.5``."""


@dataclass(frozen=True)
class SmoothConfig:
    """Steadiness in time. 0 switches a smoothing off."""

    lag: int = 2
    """Frames of look-ahead (bounded memory)."""
    quad: float = 1.0
    """Smoothing of the alignment quad, standard deviation in frames."""
    latent: float = 1.0
    """Smoothing of the latents, standard deviation in frames."""
    motion: float = 6.0
    """The new face is moved along with the target's: time constant, in frames, with which its place on the
    head may change. With 24 it swims no less, and nine swaps were 0.02 further from their sources."""
    shade: float = 2.0
    """Averaging of the new face's light and shade along its motion, in frames. Needs ``motion``."""
    mask: float = 6.0
    """Smoothing of the mask's outline, which moves with the target: time constant in frames. Needs
    ``motion``."""
    color: float = 4.0
    """Smoothing of the colour match, time constant in frames."""
    occlusion: float = 1.5
    """Smoothing of the outlines of what is in front of the face, time constant in frames. It only acts where
    the picture stands still. 0 also lets go at once of what is seen no longer."""


@dataclass(frozen=True)
class CompositeConfig:
    """Mask, colour, paste."""

    regions: str = "face"
    """Comma-separated face regions that are swapped: face, or skin, eyes, brows, nose, mouth."""
    erode: float = -12.0
    """Shrinks the mask (negative: grows it), in pixels of a 1024 crop."""
    feather: float = 40.0
    """Width of the soft edge in pixels of a 1024 crop."""
    outline: float = 1.0
    """How closely the soft edge of a whole face follows the target's own outline, where a cheek or a jaw ends
    before a background. 0 leaves it as the landmarks draw it."""
    blend: Literal["alpha", "multiband", "gradient"] = "alpha"
    """How the new face meets the frame: under its soft edge as it is (alpha); each octave of detail over its
    own width (multiband); with the light of the frame around it carried inwards (gradient), that of a pale
    wall behind a jaw as well."""
    color: Literal["none", "lab", "blocks"] = "blocks"
    """Colour agreement with the target inside the mask."""
    contrast: float = 1.0
    """How far the shading of a face that is drawn flatter than the footage is deepened to its. Needs the
    colours of ``blocks``; 0 leaves it as it is drawn."""
    sharpness: bool = True
    """Match sharpness and grain to the footage."""
    texture: float = 1.0
    """How far the new skin's pores are brought to the footage's: it gets them where it has fewer of its own,
    and loses its own where the footage has none. Needs ``sharpness``; 0 leaves the skin as it is drawn."""
    sheen: float = 0.6
    """Share of the highlights on the footage's nose, cheeks and forehead that the new face gets where its own
    are fainter. 0 leaves them as they are drawn."""
    eye_depth: float = 0.8
    """Share of the footage's dark that pupils and lashes get where they are drawn paler. 0 leaves them."""
    teeth: float = 0.8
    """Share of the light of the footage's teeth that the new face's get. 0 leaves them as they are drawn."""
    inner_mouth: float = 1.0
    """Share of what an open mouth shows (teeth, tongue) that is the target's own; 0 leaves it as drawn."""
    lip_color: float = 0.7
    """Share of the colour of the footage's lips that the new face's get. 0 leaves them as they are drawn."""
    lips: float = 1.0
    """Share of the light that is taken off lips which are brighter than skin, as those of a dark face in pale
    light become. 0 leaves them as they are drawn."""
    frown: float = 1.0
    """Share of the target's frown that brows which stay behind get: they are moved in the picture, and get
    its folds. 0 leaves them as they are drawn."""
    closed_eyes: float = 1.0
    """Share of the target's own lids where its eyes are closed: blinks, winks, a lowered gaze. 0 leaves them
    as the generator draws them."""
    occlusion: bool = True
    """Keep hands, hair and objects that are in front of the face there."""
    occlusion_by: Literal["network", "residual", "both"] = "network"
    """What sees them: the trained network (its patches are dropped where the inversion explains them), the
    parts that the inversion cannot explain, or both, each on its own word."""


@dataclass(frozen=True)
class RunsConfig:
    """Going on after a stop, and what is kept for the next run."""

    chunk_frames: int = 64
    """Frames that are finished for good together; a stop loses at most those being made."""
    keep_latents: bool = True
    """Keep the faces and inversions of a clip, so that another source needs no inversion."""
    cache_gb: float = 8.0
    """Most disk space of the cache; what was used longest ago goes first."""


@dataclass(frozen=True)
class MarkConfig:
    """The mark of an output as synthetic. Every output has it; this is what may be chosen about it."""

    visible_label: str | None = None
    """Text of a badge drawn into a corner of every frame; None: no badge."""
    label_corner: Literal["top-left", "top-right", "bottom-left", "bottom-right"] = "bottom-right"
    """Where the badge goes."""
    label_font: str | None = None
    """TrueType or OpenType file for it; None: a built-in one, which has English letters only."""
    sign_cert: str | None = None
    """PEM file of your own certificate, followed by its authorities; None: the local one signs."""
    sign_key: str | None = None
    """PEM file of its key, without a password."""


@dataclass(frozen=True)
class RunConfig:
    """All settings of a run."""

    generator: str = "mobilestylegan"
    """Name of the generator in the registry."""
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""
    threads: int = 0
    """Threads for the networks; 0 chooses."""
    precision: Literal["auto", "full", "bfloat16"] = "auto"
    """Numbers that the generator computes with. bfloat16 takes half the time on processors that multiply in
    that format, and is what ``auto`` means on those (on a CPU); its pictures differ by about 50 dB."""
    video: VideoConfig = field(default_factory=VideoConfig)
    faces: FaceConfig = field(default_factory=FaceConfig)
    inversion: InversionConfig = field(default_factory=InversionConfig)
    mix: MixConfig = field(default_factory=MixConfig)
    smooth: SmoothConfig = field(default_factory=SmoothConfig)
    composite: CompositeConfig = field(default_factory=CompositeConfig)
    mark: MarkConfig = field(default_factory=MarkConfig)
    runs: RunsConfig = field(default_factory=RunsConfig)
