#!/usr/bin/env python3
"""Kills a real swap again and again at random moments, and shows that nothing is lost.

    python tools/kill_test.py [--kills 50] [--log kills.jsonl] [--seed 1] [--minutes 20] [--set KEY=VALUE]

One clip is swapped once without a disturbance. Then the same `vidswap swap` is started over and over on
another output; each time it is ended at a random moment by SIGKILL, SIGTERM or SIGINT and started again,
until it comes to its end. A part of the moments lies in the start of the program, a part in its end
(joining, marking, giving the name), the rest anywhere. After each kill: the output has not its name, or it
is whole; every chunk that was finished before is there, byte for byte; and the next run goes on with at
most one chunk made again. After each end: decoded frames and their times equal those of the run without a
disturbance, and nothing is left beside the output.

Prints one table; exit code 1 when anything of that failed. With --log a stopped test goes on counting.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from vidswap import weights
from vidswap.runs import work_folder
from vidswap.video import open_frames

CHEAP = (
    "device=cpu", "threads=1", "inversion.encoder=false", "inversion.first_steps=1",
    "inversion.next_steps=1", "mix.refine_steps=0", "mix.mixer=layers", "smooth.lag=1",
    "composite.occlusion=false", "runs.chunk_frames=2",
)  # fmt: skip
"""Every stage at work and keeping its state, but little computed."""
SIGNALS = (signal.SIGKILL,) * 6 + (signal.SIGTERM,) * 2 + (signal.SIGINT,) * 2
LIMIT_SECONDS = 600
_RESUMING = re.compile(r"resuming: (\d+) of")


@dataclass
class Kill:
    """One kill and the run after it."""

    signal: str
    phase: str
    """``start``, ``work`` or ``end``: where the moment was drawn from."""
    after_seconds: float
    finished_chunks: int
    """In the journal when it died."""
    redone: int = 0
    """Chunks begun before the kill that the next run made again."""
    lost: int = 0
    """Finished chunks that the next run had not, or had changed."""
    failures: list[str] = field(default_factory=list)


@dataclass
class State:
    """What lies in the work folder after a kill."""

    chunks: dict[str, str]
    """SHA-256 of each finished chunk that the journal names."""
    begun: int
    """Those and one that had been begun."""


def state_of(folder: Path) -> State:
    """Of a run that was published nothing: its chunks are no longer needed and being removed."""
    chunks = {}
    try:
        lines = (folder / "journal.jsonl").read_bytes().split(b"\n")[:-1]
    except OSError:
        lines = []
    entries = [json.loads(line) for line in lines]
    if any(entry.get("type") == "published" for entry in entries):
        return State({}, 0)
    for entry in entries:
        if entry.get("type") == "chunk":
            name = f"chunk-{entry['index']:06d}{entry['suffix']}"
            try:
                chunks[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
            except FileNotFoundError:
                chunks[name] = "gone"
            if chunks[name] != entry["sha256"]:
                chunks[name] += " (not as the journal has it)"
    parts = [path for path in folder.glob("*chunk-*part*")] if folder.is_dir() else []
    return State(chunks, len(chunks) + bool(parts))


def frames_digest(path: Path) -> str:
    """Of all decoded samples and their times."""
    digest = hashlib.sha256()
    if path.is_dir():
        for image in sorted(path.iterdir()):
            with open_frames(image) as frames:
                for frame in frames:
                    for plane in frame.planes:
                        digest.update(image.name.encode() + plane.tobytes())
        return digest.hexdigest()
    with open_frames(path) as frames:
        for frame in frames:
            digest.update(f"{frame.pts} {frame.time_base} ".encode())
            for plane in frame.planes:
                digest.update(plane.tobytes())
        if frames.damage:
            digest.update(str(frames.damage).encode())
    return digest.hexdigest()


@contextmanager
def own_home() -> Iterator[Path]:
    """A cache folder of the test's own beside the user's weights."""
    with tempfile.TemporaryDirectory(prefix="kill-test-home-") as name:
        home = Path(name)
        for entry in weights.home().iterdir():
            if entry.name != "cache":
                (home / entry.name).symlink_to(entry)
        os.environ["VIDSWAP_HOME"] = name
        yield home


class KillTest:
    """The runs of one clip."""

    def __init__(self, folder: Path, clip: Path, suffix: str, settings: list[str], seed: int) -> None:
        self.folder, self.clip = folder, clip
        self.settings = settings
        self.random = random.Random(seed)
        (folder / "out").mkdir()
        self.output = folder / "out" / f"swapped{suffix}"
        self.seconds = 0.0
        self.finished_runs = 0

    def command(self, output: Path) -> list[str]:
        settings = [part for text in self.settings for part in ("--set", text)]
        # Kept inversions may be used or not from one run to the next: the frames are the same.
        keep = ("--set", f"runs.keep_latents={self.random.choice(('true', 'true', 'false'))}")
        return [
            sys.executable, "-m", "vidswap", "-v", "swap", str(self.clip), "-s", "synthetic:5",
            "-o", str(output), "--no-progress", *settings, *keep,
        ]  # fmt: skip

    def start(self, output: Path) -> subprocess.Popen[str]:
        # A file, not a pipe: a full pipe would stop the program.
        self.errors = self.folder / "errors.txt"
        with open(self.errors, "w") as errors:
            return subprocess.Popen(
                self.command(output), stderr=errors, stdout=subprocess.DEVNULL, text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": _with_here()},
            )  # fmt: skip

    def reference(self) -> None:
        whole = self.folder / f"whole{self.output.suffix}"
        began = time.monotonic()
        process = self.start(whole)
        while not work_folder(whole).exists() and process.poll() is None:
            time.sleep(0.01)
        self.startup = time.monotonic() - began
        if process.wait(LIMIT_SECONDS):
            raise SystemExit(f"the run without a disturbance failed: {self.errors.read_text()}")
        self.seconds = time.monotonic() - began - self.startup
        self.wanted = frames_digest(whole)

    def kill_once(self) -> Kill | None:
        """Start, kill at a random moment; None when the run was over before (and was right)."""
        before = state_of(work_folder(self.output))
        phase = self.random.choices(("start", "work", "end"), (0.12, 0.63, 0.25))[0]
        number = self.random.choice(SIGNALS)
        began = time.monotonic()
        process = self.start(self.output)
        try:
            self._wait_for_moment(process, phase)
            process.send_signal(number)
            process.wait(LIMIT_SECONDS)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        failures = self._check_resumed(before, before_kill := state_of(work_folder(self.output)))
        after = time.monotonic() - began
        if process.returncode == 0:
            self._check_finished(failures)
            if failures:
                return Kill("none", "finished", after, 0, failures=failures)
            return None
        expected = {signal.SIGINT: (130, -signal.SIGINT)}.get(number, (-number,))
        if process.returncode not in expected:
            said = self.errors.read_text().strip().splitlines()
            failures.append(f"exit code {process.returncode} after {number.name}: {said[-1:]}")
        if self.output.exists():
            self._check_output(failures)
        if others := self._beside() - {work_folder(self.output).name}:
            failures.append(f"left beside the output: {sorted(others)}")
        redone, lost = self.redone_lost
        return Kill(
            number.name, phase, round(after, 2), len(before_kill.chunks), redone, lost, failures
        )  # fmt: skip

    def _wait_for_moment(self, process: subprocess.Popen[str], phase: str) -> None:
        if phase == "start":
            _wait(process, self.random.uniform(0, self.startup))
            return
        folder = work_folder(self.output)
        while process.poll() is None and not folder.exists():
            time.sleep(0.005)
        if phase == "work":
            _wait(process, self.random.uniform(0, self.seconds))
            return
        while process.poll() is None and not list(folder.glob("joined*")):
            time.sleep(0.002)
        _wait(process, 0.4 * self.random.random() ** 2)  # marking and naming take a fraction of a second

    def _check_resumed(self, before: State, now: State) -> list[str]:
        """What the run that just ended had made of the work that it found."""
        failures = []
        text = self.errors.read_text()
        found = _RESUMING.search(text)
        self.redone_lost = (0, 0)
        reached_work = found is not None or bool(now.chunks) and len(now.chunks) > len(before.chunks)
        if found is not None and before.begun:
            resumed = -(-int(found[1]) // self.chunk_frames)
            self.redone_lost = (before.begun - resumed, max(0, len(before.chunks) - resumed))
        elif reached_work and before.chunks:
            self.redone_lost = (before.begun, len(before.chunks))
        if self.redone_lost[0] > 1:
            failures.append(f"{self.redone_lost[0]} chunks made again")
        if self.redone_lost[1]:
            failures.append(f"{self.redone_lost[1]} finished chunks lost")
        if now.chunks or not self.output.exists():
            changed = [name for name, sha in before.chunks.items() if now.chunks.get(name) != sha]
            if changed:
                failures.append(f"finished chunks changed: {changed}")
        return failures

    @property
    def chunk_frames(self) -> int:
        values = [text.partition("=")[2] for text in self.settings if text.startswith("runs.chunk_frames=")]
        return int(values[-1])

    def _check_output(self, failures: list[str]) -> None:
        try:
            if frames_digest(self.output) != self.wanted:
                failures.append("the output is not that of the run without a disturbance")
        except Exception as error:  # whatever it is, the output is bad
            failures.append(f"a partial output: {error}")

    def _beside(self) -> set[str]:
        """What lies beside the output.

        The mark of containers that cannot hold one belongs to it; it is written first, so an unfinished
        run may have left it, and replaces it.
        """
        begun = self.output.exists() or work_folder(self.output).exists()
        own = {self.output.name, self.output.name + ".c2pa"} if begun else set()
        return {path.name for path in self.output.parent.iterdir()} - own

    def _check_finished(self, failures: list[str]) -> None:
        self._check_output(failures)
        if left := self._beside():
            failures.append(f"left beside the output: {sorted(left)}")
        self.finished_runs += 1
        self._fresh()

    def _fresh(self) -> None:
        shutil.rmtree(self.output.parent)
        self.output.parent.mkdir()

    def finish(self) -> list[str]:
        """To the end, without a kill."""
        if self.output.exists():  # killed after it had its name: the same command says so
            return self.finish_published()
        before = state_of(work_folder(self.output))
        process = self.start(self.output)
        code = process.wait(LIMIT_SECONDS)
        if code:
            return [f"exit code {code} at the end: {self.errors.read_text().strip().splitlines()[-1:]}"]
        failures = self._check_resumed(before, State({}, 0))
        self._check_finished(failures)
        return failures

    def finish_published(self) -> list[str]:
        """The output is there: the next run must refuse, and take away what the kill left."""
        failures: list[str] = []
        self._check_output(failures)
        process = self.start(self.output)
        if (code := process.wait(LIMIT_SECONDS)) != 2:
            failures.append(f"exit code {code} where the output was there")
        if left := self._beside():
            failures.append(f"left beside the output: {sorted(left)}")
        self.finished_runs += 1
        self._fresh()
        return failures


def _wait(process: subprocess.Popen[str], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        pass


def _with_here() -> str:
    here = str(Path(__file__).resolve().parents[1])
    return os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))


def table(kills: list[Kill], finished: int) -> str:
    """The figures in lines."""
    real = [kill for kill in kills if kill.signal != "none"]
    failures = [failure for kill in kills for failure in kill.failures]
    signals = ", ".join(f"{count} {name}" for name, count in sorted(Counter(k.signal for k in real).items()))
    phases = ", ".join(f"{count} {name}" for name, count in sorted(Counter(k.phase for k in real).items()))
    redone = Counter(kill.redone for kill in real)
    rows = [
        ("kills", f"{len(real)} ({signals})"),
        ("moments", phases),
        ("runs that came to their end", str(finished)),
        ("kills with finished chunks", str(sum(kill.finished_chunks > 0 for kill in real))),
        ("finished chunks lost or changed", str(sum(kill.lost for kill in real))),
        ("chunks redone a kill, most", str(max(redone, default=0))),
        ("failures", str(len(failures))),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join([f"{name:<{width}}  {value}" for name, value in rows] + failures)


def make_clip(path: Path, seconds: float) -> None:
    from vidswap.sample import make_sample

    make_sample(path, seed=7, seconds=seconds, size_wh=(240, 240))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--log", type=Path, help="JSON lines, one a kill; is gone on with")
    parser.add_argument("--seed", type=int, default=None, help="of the moments; drawn if not given")
    parser.add_argument("--minutes", type=float, default=None, help="stop after this time")
    parser.add_argument("--clip", type=Path, help="a clip of your own; a sample of 16 frames if not given")
    parser.add_argument("--seconds", type=float, default=0.64, help="of the sample")
    parser.add_argument("--suffix", default=".mp4", help='of the output; "" for a folder of images')
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    kills: list[Kill] = []
    finished = 0
    if options.log and options.log.exists():
        for line in options.log.read_text().splitlines():
            entry = json.loads(line)
            finished += entry.pop("ended", 0)
            if entry:
                kills.append(Kill(**entry))
    until = time.monotonic() + 60 * options.minutes if options.minutes else float("inf")
    with own_home(), tempfile.TemporaryDirectory(prefix="kill-test-") as name:
        folder = Path(name)
        clip = options.clip.resolve() if options.clip else folder / "clip.mp4"
        if options.clip is None:
            make_clip(clip, options.seconds)
        seed = options.seed if options.seed is not None else random.randrange(1 << 30)
        test = KillTest(folder, clip, options.suffix, [*CHEAP, *options.settings], seed)
        test.reference()
        print(f"seed {seed}; undisturbed: {test.startup:.1f} s to the start, {test.seconds:.1f} s of work")

        def note(entry: dict[str, object]) -> None:
            if options.log:
                with open(options.log, "a") as log:
                    log.write(json.dumps(entry) + "\n")

        def count(kill: Kill) -> None:
            kills.append(kill)
            note(asdict(kill))
            print(f"{len(kills)}/{options.kills}", kill, flush=True)

        while len(kills) < options.kills and time.monotonic() < until:
            ended = test.finished_runs
            kill = test.kill_once()
            if kill is not None:
                count(kill)
                if test.output.exists() and kill.signal != "none":
                    if failures := test.finish_published():
                        count(Kill("none", "finished", 0, 0, failures=failures))
            if test.finished_runs > ended:
                finished += 1
                note({"ended": 1})
        if failures := test.finish():
            count(Kill("none", "finished", 0, 0, failures=failures))
        else:
            finished += 1
            note({"ended": 1})
    print(table(kills, finished))
    return 1 if any(kill.failures for kill in kills) or len(kills) < min(options.kills, 1) else 0


if __name__ == "__main__":
    sys.exit(main())
