"""The composer: video -> faces -> inversion -> mixing -> compositing -> video."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vidswap import __version__
from vidswap.analysis import Analysis
from vidswap.cache import digest_of, fsync_folder, temporary_beside
from vidswap.config import RunConfig, VideoConfig
from vidswap.errors import Interrupted, OutputError, UsageError
from vidswap.given_latents import GivenLatents
from vidswap.identities import SourceIdentity, prepare_reference, prepare_source
from vidswap.keyframes import tuned_for
from vidswap.machine import usable_cores
from vidswap.marks import check_mark, signer_of
from vidswap.memory import peak_memory_mb
from vidswap.provenance import MarkInfo, SignerFiles, container_tags, mark_folder, mark_output
from vidswap.records import Frame
from vidswap.reports import Log, PreviewReport, Progress, SwapReport, Telling, TrackSummary, quiet
from vidswap.runs import ChunkedRun, clear_published
from vidswap.session import Session
from vidswap.settings import as_dict
from vidswap.sources import check_reference
from vidswap.stages import Selection
from vidswap.streaming import StageRun, run_stages
from vidswap.video import (
    VideoInfo,
    check_output,
    count_packets,
    open_frames,
    open_writer,
    output_kind,
    pictures_in,
    probe,
    publish_folder,
    real_folder,
    remux,
    unpack_pictures,
)

_MARKED_INSIDE = frozenset({".mp4", ".m4v", ".mov"})
"""Containers that carry their mark; others have it in a file beside them."""


def swap_frames(
    session: Session,
    frames: Iterable[Frame],
    selection: Selection,
    given: GivenLatents | None = None,
    doing: Log = quiet,
) -> StageRun:
    """Run frames through all stages; gives ``(frame, faces swapped)`` in order.

    :param doing: told what takes longer than a frame, from any thread.
    """
    stages = Analysis.at_once(session, selection, given, doing).stages()
    return run_stages(frames, stages, queue_size=2, source_name="decode", at_once=usable_cores())


@dataclass
class Swapper:
    """Swaps faces with networks that are loaded once; use it for many clips.

    Example::

        swapper = Swapper(RunConfig())
        report = swapper.swap_video("clip.mp4", "alice.jpg", "out.mp4")
    """

    config: RunConfig = field(default_factory=RunConfig)
    log: Log = quiet
    session: Session = field(init=False)

    def __post_init__(self) -> None:
        self.session = Session(self.config)

    def source(self, source: str | Sequence[str], doing: Log | None = None) -> SourceIdentity:
        """Prepare a source (inverted once, then cached on disk).

        :param doing: told when it has to be inverted; None: the log is.
        """
        texts = [source] if isinstance(source, (str, os.PathLike)) else list(source)
        return prepare_source(self.session, [os.fspath(text) for text in texts], log=doing or self.log)

    def frames(self, frames: Iterable[Frame], selection: Selection) -> StageRun:
        """Run frames through all stages; gives ``(frame, faces swapped)`` in order."""
        return swap_frames(self.session, frames, selection)

    def swap_video(
        self,
        target: str | Path,
        source: str | Sequence[str],
        output: str | Path,
        *,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        face: Sequence[str] = (),
        reference: str | Path | None = None,
        force: bool = False,
        restart: bool = False,
        latents: str | Path | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> SwapReport:
        """Swap a whole clip; see :func:`swap_video`."""
        check_reference(reference, face)
        target, output = Path(target), real_folder(output)
        started = time.perf_counter()
        clear_published(output)
        check_output(output, target, force=force)
        info = probe(target)
        check_mark(self.config.mark, _upright(info))
        self.session.device  # noqa: B018 - refuse an unusable device before any work
        self.session.edits  # noqa: B018 - and unknown edits
        _try_writing(output, info, self.config.video)
        self.log(self.session.describe())
        given = None if latents is None else GivenLatents(Path(latents), self.session, info)
        telling = Telling(progress, self.log, info.frames_expected(start_seconds, end_seconds))
        selection = self._selection(source, face, reference, telling.doing)
        session = self.session
        if self.config.inversion.tune_steps > 0 and info.kind == "video":
            telling.doing("tuning the generator on some frames of the clip")
            session = tuned_for(
                session, target, info, selection,
                start_seconds=start_seconds, end_seconds=end_seconds, log=self.log,
            )  # fmt: skip
        run = _Run(session, info, target, output, selection, given, telling, started, self.log)
        run.warnings += _left_out(info, output)
        if output_kind(output) == "folder":  # a name without an ending may have been meant as a clip's
            telling.doing(f"the result is a folder of pictures, {output}")
        if output_kind(output) in ("folder", "video"):
            return run.in_chunks(start_seconds, end_seconds, restart)
        return run.at_once(start_seconds, end_seconds)

    def _selection(
        self,
        source: str | Sequence[str],
        face: Sequence[str],
        reference: str | Path | None,
        doing: Log,
    ) -> Selection:
        if reference is not None:
            person = prepare_reference(self.session, os.fspath(reference))  # first: it is quick to refuse
            return Selection("reference", self.source(source, doing), reference=person)
        pairs: dict[int, SourceIdentity] = {}
        wanted = self.config.faces.select
        numbers, words = [], set()
        for text in face:
            number, equals, name = str(text).partition("=")
            if equals:
                if not number.isdigit():
                    raise UsageError(f"--face: expected NUMBER=SOURCE, got {text!r}")
                pairs[int(number)] = self.source(name, doing)
            elif text in ("all", "largest"):
                words.add(text)
                wanted = text
            elif number.isdigit():
                numbers.append(number)
            else:
                raise UsageError(f"--face: expected a track number, all, largest or N=SOURCE, got {text!r}")
        if len(words) > 1 or (words and numbers):
            given = " and ".join([*sorted(words), *numbers])
            raise UsageError(f"--face {given} exclude one another: give one")
        if pairs:
            main = self.source(source, doing) if source else None
            return Selection(",".join(numbers) or wanted, main, pairs)
        return Selection(",".join(numbers) or wanted, self.source(source, doing))


@dataclass
class _Run:
    """One clip on its way to its output."""

    session: Session
    info: VideoInfo
    target: Path
    output: Path
    selection: Selection
    given: GivenLatents | None
    telling: Telling
    started: float
    log: Log = quiet
    warnings: list[str] = field(default_factory=list)

    def in_chunks(self, start: float | None, end: float | None, restart: bool) -> SwapReport:
        """To a video or a folder of images: each chunk is kept, so that a stopped run can go on."""
        total = self.info.frames_expected(start, end)
        with ChunkedRun(
            self.session, self.info, self.target, self.output, self.selection,
            start_seconds=start, end_seconds=end, restart=restart, log=self.log,
            given=self.given, given_key=None if self.given is None else self.given.key,
            doing=self.telling.doing,
        ) as run:  # fmt: skip
            try:
                made = run.encode(self.telling.frames, total=total)
                self.warnings += made.warnings
                if output_kind(self.output) == "folder":
                    self._publish_folder(run, made.frames)
                else:
                    self._publish_video(run, made.frames, start, end)
            except KeyboardInterrupt:
                raise Interrupted(run.stopped(total)) from None
            run.finish()
        if not made.swapped:
            self._warn_no_face()
        return self._report(made.frames, made.swapped, made.made, made.seconds, made.stages)

    def _publish_video(self, run: ChunkedRun, frames: int, start: float | None, end: float | None) -> None:
        """Marked in the work folder where it can be, so that a kill leaves nothing beside the output."""
        joined = run.temporary("joined" + self.output.suffix)
        self.warnings += remux(
            run.pieces, self.target, joined,
            start_seconds=start, end_seconds=end, metadata=container_tags(), info=self.info,
        )  # fmt: skip
        _require_count(joined, count_packets(joined), frames)
        claim = claim_of(self.session)
        if self.output.suffix.lower() not in _MARKED_INSIDE:
            run.publishing(self.output)
            mark_output(joined, self.output, target=self.target, claim=claim, signer=self._signer)
            return
        marked = run.temporary("marked" + self.output.suffix)
        mark_output(joined, marked, target=self.target, claim=claim, signer=self._signer)
        run.publishing(self.output)
        try:
            os.replace(marked, self.output)
        except OSError as error:
            raise OutputError(f"cannot write {self.output}: {error.strerror}; choose another name") from error
        # Of an older output of this name, in a container that needed one.
        self.output.with_name(self.output.name + ".c2pa").unlink(missing_ok=True)
        fsync_folder(self.output.absolute().parent)

    def _publish_folder(self, run: ChunkedRun, frames: int) -> None:
        """All pictures are marked before the first one has its name."""
        joined = run.temporary("joined")
        _require_count(joined, unpack_pictures(run.pieces, joined), frames)
        mark_folder(joined, joined, target=self.target, claim=claim_of(self.session), signer=self._signer)
        run.publishing(self.output)
        publish_folder(joined, self.output)

    def at_once(self, start: float | None, end: float | None) -> SwapReport:
        """To a still or a GIF, which cannot be joined from pieces: from the first frame to the last."""
        video = temporary_beside(self.output).with_suffix(self.output.suffix)
        try:
            report = self._frames(video, start, end)
            self._mark(video)
        except KeyboardInterrupt:
            raise Interrupted(f"stopped; of a {self.output.suffix} nothing is kept") from None
        finally:
            with suppress(OSError):
                video.unlink(missing_ok=True)
        return report

    def _frames(self, video: Path, start: float | None, end: float | None) -> SwapReport:
        config = self.session.config
        done = swapped = 0
        began = time.perf_counter()
        with (
            open_frames(self.target, start_seconds=start, end_seconds=end, info=self.info) as frames,
            swap_frames(
                self.session, frames, self.selection, self.given, self.telling.doing
            ) as results,
            open_writer(video, self.info, config.video) as writer,
        ):
            for frame, faces in results:
                writer.write(frame)
                done += 1
                swapped += faces > 0
                self.telling.frames(done)
            stats = {stat.name: stat.busy_seconds for stat in results.stats}
        self.warnings += writer.warnings
        if frames.damage is not None:
            self.warnings.append(frames.damage)
        if not swapped:
            self._warn_no_face()
        return self._report(done, swapped, done, time.perf_counter() - began, stats)

    def _warn_no_face(self) -> None:
        reference, sought = self.selection.reference, self.selection.sought
        if reference is not None and sought is not None and sought.people:
            why = sought.describe(reference.label)
            self.warnings.append(f"{self.target.name}: {why}; its frames passed unchanged")
            return
        numbers = ", ".join(map(str, self.selection.numbers))
        why = f"no frame shows person {numbers} (see `vidswap faces`)" if numbers else "no face was found"
        self.warnings.append(
            f"{why} in {self.target.name}: its frames passed unchanged, but are marked as synthetic"
        )

    @property
    def _signer(self) -> SignerFiles | None:
        return signer_of(self.session.config.mark)

    def _mark(self, made: Path) -> None:
        mark_output(
            made, self.output, target=self.target, claim=claim_of(self.session), signer=self._signer
        )  # fmt: skip

    def _report(
        self, frames: int, swapped: int, made: int, seconds: float, stages: Mapping[str, float]
    ) -> SwapReport:
        return SwapReport(
            output=self.output,
            frames=frames,
            frames_swapped=swapped,
            seconds_total=time.perf_counter() - self.started,
            seconds_per_frame=seconds / max(made, 1),
            device=str(self.session.device),
            warnings=tuple(self.warnings),
            stage_seconds=stages,
            peak_memory_mb=peak_memory_mb(),
        )


def claim_of(session: Session) -> MarkInfo:
    """What is signed of an output that a session made."""
    return MarkInfo(
        tool_version=__version__,
        generator=session.generator.name,
        weights={"generator": session.generator.identifier},
        settings_digest=digest_of(as_dict(session.config)),
        visible_label=session.config.mark.visible_label is not None,
    )


def _try_writing(output: Path, info: VideoInfo, options: VideoConfig) -> None:
    """Refuse an encoder, its speed or a pixel format that does not fit before the work that it would end.

    :raises UsageError: it is unknown, or the kind of output does not hold the target.
    """
    if output_kind(output) == "image" and info.kind != "image":
        raise UsageError(f"the output {output} is one picture, the target a clip; name a video or a folder")
    if output_kind(output) == "video":
        with TemporaryDirectory() as folder:
            open_writer(Path(folder) / f"trial{output.suffix}", info, options).discard()


def _left_out(info: VideoInfo, output: Path) -> list[str]:
    """Warnings: what of the target does not come into the output."""
    if info.kind == "image" and (pictures := pictures_in(info.path)) > 1:
        return [
            f"{info.path} holds {pictures} pictures and only the first is swapped: make a GIF or a video of "
            "them to swap all"
        ]
    kind = output_kind(output)
    others = Counter(stream.type for stream in info.streams if stream.index != info.stream_index)
    if kind == "video" or not others:
        return []
    what = {"folder": "a folder of pictures", "gif": "a GIF"}.get(kind, "a picture")
    names = ", ".join(f"{count} {name}" for name, count in sorted(others.items()))
    return [
        f"{output} is {what} and leaves out other streams of {info.path.name} ({names}): name an .mp4 or "
        ".mkv to keep them"
    ]


def _upright(info: VideoInfo) -> tuple[int, int]:
    """Stored size of the frames once they are turned upright."""
    width, height = info.size_wh
    return (height, width) if info.rotation in (90, 270) else (width, height)


def _require_count(joined: Path, found: int, frames: int) -> None:
    if found != frames:
        raise OutputError(
            f"{found} of {frames} pictures arrived in {joined}; check the disk and run the command again"
        )


def swap_video(
    target: str | Path,
    source: str | Sequence[str],
    output: str | Path,
    *,
    config: RunConfig | None = None,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    face: Sequence[str] = (),
    reference: str | Path | None = None,
    force: bool = False,
    restart: bool = False,
    latents: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    log: Log = quiet,
) -> SwapReport:
    """Put the identity of ``source`` on a face of ``target`` through the whole clip.

    :param target: video, GIF, image, or folder of images.
    :param source: photo, several photos of one person, or ``synthetic:SEED``.
    :param output: a name that does not exist yet, unless ``force``.
    :param face: values of ``--face``: ``largest``, ``all``, a track number, or ``N=SOURCE``.
    :param reference: picture of the person to be swapped; all others stay as they are. Not with ``face``.
    :param restart: begin again; otherwise a run of the same command that was stopped is gone on with.
    :param latents: ``latents.safetensors`` of an export of the target, used in place of inversion.
    :param progress: called after each frame, and with a message before what takes longer, also from other
        threads, one call at a time. :param log: called with lines for the log.
    :raises VidswapError: one of its children; nothing is left at ``output`` then.
    """
    swapper = Swapper(config or RunConfig(), log)
    return swapper.swap_video(
        target, source, output,
        start_seconds=start_seconds, end_seconds=end_seconds, face=face, reference=reference, force=force,
        restart=restart, latents=latents, progress=progress,
    )  # fmt: skip


def list_faces(
    target: str | Path,
    *,
    config: RunConfig | None = None,
    every_seconds: float = 0.2,
    thumbnails: Path | None = None,
    log: Log = quiet,
) -> list[TrackSummary]:
    """Who is in a clip: tracks with their times, and optionally a picture of each."""
    from vidswap.survey import survey

    return survey(Session(config or RunConfig()), Path(target), every_seconds, thumbnails, log)


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
    """A contact sheet of some frames; see :func:`vidswap.sheet.preview`."""
    from vidswap import sheet

    return sheet.preview(
        target, source, config=config, at_seconds=at_seconds, reference=reference, output=output,
        force=force, progress=progress, log=log,
    )  # fmt: skip


def make_sample(output: str | Path, **options: Any) -> Path:
    """A clip of a person who does not exist; options of :func:`vidswap.sample.make_sample`."""
    from vidswap import sample

    return sample.make_sample(Path(output), **options)
