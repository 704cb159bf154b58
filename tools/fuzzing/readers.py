"""What reads a mutated file, each in the way the tool itself does, and what may come of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vidswap.errors import VidswapError

CHEAP = (
    "device=cpu", "threads=1", "inversion.encoder=false", "inversion.first_steps=1",
    "inversion.next_steps=1", "mix.refine_steps=0", "mix.source_steps=1", "mix.mixer=layers",
    "smooth.lag=1", "composite.occlusion=false", "runs.chunk_frames=25", "runs.keep_latents=false",
    "video.encoder_preset=ultrafast",
)  # fmt: skip
FRAMES = 80
"""Most frames that are read of a file: a mutated header may promise many."""


@dataclass(frozen=True)
class Reader:
    """One way in."""

    read: Callable[[Path, Path], Any]
    """Given the file and an empty folder to write to."""
    codes: tuple[int, ...]
    """Exit codes that a refusal may have."""


def media(path: Path, _folder: Path) -> None:
    """Probe, decode, find faces in the first frames."""
    from vidswap.video import open_frames, probe, read_rgb8

    info = probe(path)
    finder = _finder()
    finder.reset()
    with open_frames(path, info=info) as frames:
        for number, frame in enumerate(frames):
            if number < 3:
                rgb, (scale, _) = read_rgb8(frame, max_side=640)
                finder.find(rgb, frame.pts_seconds, scale=scale)
            if number >= FRAMES:
                break


def passed_through(path: Path, folder: Path) -> None:
    """Decode, encode, join with the other streams: a swap without the faces."""
    from vidswap.config import VideoConfig
    from vidswap.video import count_packets, open_frames, open_writer, probe, remux

    info = probe(path)
    piece, output = folder / "piece.mp4", folder / "out.mkv"
    config = VideoConfig(encoder_preset="ultrafast")
    with open_frames(path, info=info) as frames, open_writer(piece, info, config) as writer:
        for number, frame in enumerate(frames):
            if number >= FRAMES:
                break
            writer.write(frame)
            written = number + 1
    remux([piece], path, output, info=info)
    if (count := count_packets(output)) != written:
        raise AssertionError(f"{count} of {written} pictures arrived")


def mark(path: Path, _folder: Path) -> None:
    from vidswap.provenance import read_mark

    read_mark(path)


def weights_file(path: Path, _folder: Path) -> None:
    from vidswap.weights.reading import load_tensors

    load_tensors(path)


def onnx(path: Path, _folder: Path) -> None:
    from vidswap.weights.onnx_paths import check_onnx

    check_onnx(path)


def latents(path: Path, _folder: Path) -> None:
    from vidswap.latent_files import LatentRows, read_latents

    rows = LatentRows(path)
    for row in range(len(rows.pts)):
        rows.code(row)
    read_latents(path)


def config(path: Path, _folder: Path) -> None:
    from vidswap.settings import load_config

    load_config(file=path, environ={})


def job_list(path: Path, _folder: Path) -> None:
    from vidswap.batch_lists import read_list

    list(read_list(path))


def journal(path: Path, folder: Path) -> None:
    """A run that goes on with a mutated journal must take no chunk for another."""
    from vidswap.journal import JOURNAL_NAME, Journal

    work = folder / "work"
    shutil.copytree(path.parent / "journal_work", work)
    shutil.copy(path, work / JOURNAL_NAME)
    with Journal.open(work, journal_key()) as found:
        for index in range(4):
            chunk = found.chunk_at(index)
            record = None if chunk is None else found.finished(chunk)
            if record is None:
                continue
            true = (record.chunk.index, record.chunk.first_frame, record.chunk.frames, dict(record.data))
            if true != (index, 2 * index, 2, {"swapped": 2, "last": index == 2}):
                raise AssertionError(f"a damaged entry was taken for true: {true}")


def journal_key() -> Any:
    from vidswap.journal import RunKey

    return RunKey("12-ab", {"generator": "0" * 64}, {"mix": {"strength": 1.0}}, {"vidswap": "0"})


def make_journal(folder: Path) -> Path:
    """A work folder with three chunks; gives its journal's copy, which is mutated."""
    from vidswap.journal import JOURNAL_NAME, Chunk, Journal

    work = folder / "journal_work"
    with Journal.open(work, journal_key()) as made:
        for index in range(3):
            chunk = Chunk(index, 2 * index, 2, 1024 * index)
            made.temporary_of(chunk).write_bytes(bytes([index]) * 500)
            made.record(chunk, verify=lambda _path: 2, data={"swapped": 2, "last": index == 2})
    return Path(shutil.copy(work / JOURNAL_NAME, folder / "journal.jsonl"))


READERS: dict[str, Reader] = {
    "media": Reader(media, (3,)),
    "pass": Reader(passed_through, (3, 4)),
    "mark": Reader(mark, (3,)),
    "weights": Reader(weights_file, (5,)),
    "onnx": Reader(onnx, (5,)),
    "latents": Reader(latents, (3,)),
    "config": Reader(config, (2,)),
    "list": Reader(job_list, (2, 3)),
    "journal": Reader(journal, (2,)),
}


@cache
def _finder() -> Any:
    from vidswap.config import RunConfig
    from vidswap.session import Session

    return Session(RunConfig(device="cpu", threads=1)).new_finder()


def read_with(name: str, path: Path, folder: Path) -> dict[str, Any]:
    """Verdict of a reader: ``ok``, ``refused``, or ``crash`` with what happened."""
    import traceback

    reader = READERS[name]
    try:
        reader.read(path, folder)
    except VidswapError as error:
        said = str(error)
        if error.exit_code not in reader.codes:
            return {"verdict": "crash", "said": f"exit code {error.exit_code}: {said}"}
        if len(said.splitlines()) != 1 and path.name.isprintable():
            return {"verdict": "crash", "said": f"more than one line: {said!r}"}
        return {"verdict": "refused", "said": said}
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        return {"verdict": "crash", "said": f"{type(error).__name__} at {place}: {error}"[:400]}
    return {"verdict": "ok", "said": ""}


# --- the whole command line -----------------------------------------------------------------------


def command_of(name: str, path: Path, folder: Path, good: Path) -> list[str]:
    """Command line that reads the mutated file; all it writes goes to ``folder / "out*"``."""
    settings = [part for text in CHEAP for part in ("--set", text)]
    swap = ["swap", str(path), "-s", "synthetic:5", "-o", str(folder / "out.mp4"), "--no-progress", *settings]
    return {
        "swap": swap,
        "swap-source": [*swap[:1], str(good), "-s", str(path), *swap[4:]],
        "swap-folder": [*swap[:5], str(folder / "out"), *swap[6:]],
        "swap-config": [*swap[:1], str(good), *swap[2:], "--config", str(path)],
        "faces": ["faces", str(path)],
        "verify": ["verify", str(path)],
        "export": ["export", str(path), "-o", str(folder / "out"), "--what", "quads"],
        "batch": ["batch", str(path), "-s", "synthetic:5", "-o", str(folder / "out"), *settings],
    }[name]  # fmt: skip


COMMANDS = {
    "media": ("swap", "swap", "swap", "swap-folder", "faces", "verify", "export"),
    "image": ("swap-source", "swap-source", "swap-folder", "verify"),
    "config": ("swap-config",),
    "list": ("batch",),
}
"""Commands for each kind of file."""


def run_command(name: str, path: Path, folder: Path, good: Path) -> dict[str, Any]:
    """Verdict of a command line, with what it printed and left."""
    from vidswap.cli.app import run

    with _captured(folder / "stderr.txt"):
        code = run(command_of(name, path, folder, good))
    said = (folder / "stderr.txt").read_text(errors="replace").strip().splitlines()
    outputs = sorted(entry.name for entry in folder.iterdir() if entry.name != "stderr.txt")
    last = said[-1] if said else ""
    allowed = (0, 2, 3, 4, 5, 6) if name == "batch" else (0, 2, 3, 4, 5)
    if name == "verify":
        allowed = (0, 1, 3)
    if code not in allowed or "Traceback" in "".join(said):
        return {"verdict": "crash", "said": f"exit code {code}: {last}"}
    if code == 0:
        bad = _unreadable(folder) if name.startswith("swap") else ""
        return {"verdict": "partial" if bad else "ok", "said": bad}
    if name not in ("verify", "batch"):
        if any(not entry.startswith(".out") for entry in outputs):
            return {"verdict": "partial", "said": f"exit code {code}, yet there is {outputs}"}
        if sum(line.startswith("vidswap: error:") for line in said) != 1:
            return {"verdict": "crash", "said": f"exit code {code}, said {said[-3:]}"}
    return {"verdict": "refused", "said": last}


def _unreadable(folder: Path) -> str:
    """What is wrong with the output of a command that said all is well."""
    from vidswap.video import open_frames

    left = [entry.name for entry in folder.iterdir() if entry.name not in ("stderr.txt", "out.mp4", "out")]
    if left:
        return f"left beside the output: {left}"
    output = next((folder / name for name in ("out.mp4", "out") if (folder / name).exists()), None)
    if output is None:
        return "exit code 0 and no output"
    try:
        with open_frames(output) as frames:
            count = sum(1 for _ in frames)
        return f"the output is damaged: {frames.damage}" if frames.damage or not count else ""
    except VidswapError as error:
        return str(error)


@contextmanager
def _captured(path: Path):  # noqa: ANN202
    """Both outputs of this process go to a file."""
    import sys

    sys.stdout.flush()
    kept = os.dup(1), os.dup(2)
    with open(path, "wb") as file:
        try:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            yield
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            for number, old in enumerate(kept, 1):
                os.dup2(old, number)
                os.close(old)
