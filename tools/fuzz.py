#!/usr/bin/env python3
"""Feeds mutated files to everything that reads files, and counts what comes of it.

    python tools/fuzz.py [--files 1000] [--commands 0.1] [--seed 1] [--keep FOLDER]

The files (MP4, Matroska, WebM, TS, AVI, GIF, PNG, JPEG, WebP, safetensors, .pt, .pkl, ONNX, latents, YAML,
CSV, journals) are made on the spot; each is mutated by bit flips, truncation, odd numbers in headers,
stretches doubled, removed or zeroed, parts of other files, and odd words in texts. Most are read by the
part that the tool reads them with (probe, decoder and face finder; decode, encode and join; marks; weights;
settings; job lists; journals); a share goes through the whole command line.

Verdicts: ok; refused (one line, the right exit code, no output); crash (another exception, another exit
code, a dead process, more than 4 GB of memory); hang (over 30 seconds; commands 120); partial (an output
beside a failure, or a damaged one). Exit code 1 when there is any of the last three. The same seed gives
the same files; the bad ones are kept in --keep.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from fuzzing.mutate import mutate
from fuzzing.pool import Worker, serve
from fuzzing.readers import COMMANDS, make_journal
from PIL import Image

READ_SECONDS, COMMAND_SECONDS = 30.0, 120.0
_KINDS = {
    "media": (("media", "pass", "pass", "mark"), 0.5),
    "image": (("media", "media", "mark"), 0.15),
    "weights": (("weights",), 0.08),
    "onnx": (("onnx",), 0.02),
    "latents": (("latents",), 0.05),
    "config": (("config",), 0.08),
    "list": (("list",), 0.05),
    "journal": (("journal",), 0.07),
}
"""Kind of file -> its readers, and its share of all files."""


def make_corpus(folder: Path) -> dict[str, list[Path]]:
    """Good files of each kind, small ones."""
    import fault_files.clips as clips
    from fault_files import moving_pattern
    from make_fault_files import make_fault_files

    pictures = moving_pattern()
    small: dict[str, Any] = {"size_wh": (96, 72), "frames": 12}
    names = {
        "plain.mp4": {"audio_tracks": 1},
        "front.mp4": {"container_options": {"movflags": "faststart"}},
        "parts.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
        "plain.mkv": {"audio_tracks": 2},
        "deep.mkv": {"codec": "ffv1", "pix_fmt": "yuv422p10le"},
        "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
        "plain.avi": {"codec": "mpeg4"},
        "plain.ts": {"audio_tracks": 1},
        "plain.gif": {"codec": "gif", "pix_fmt": "rgb8"},
        "prores.mov": {"codec": "prores_ks", "pix_fmt": "yuva444p10le"},
        "raw.h264": {"container_format": "h264"},
        "bframes.mp4": {"options": {**clips._X264, "bf": "3"}},
        "jpegs.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    }
    media = []
    for name, options in names.items():
        clips.write_clip(folder / name, pictures, **{**small, **options})
        media.append(folder / name)
    make_fault_files(folder, only={13, 15, 59, 60, 61})
    media += [folder / "13_edit_list.mp4", folder / "15_many_streams.mkv"]
    return {
        "media": media,
        "image": _images(folder, pictures(0, 120, 90)),
        "weights": [*_weights(folder), folder / "59_runs_code.pt", folder / "60_generator.pkl"],
        "onnx": [folder / "61_outside.onnx"],
        "latents": [_latents(folder)],
        "config": _texts(folder),
        "list": _lists(folder),
        "journal": [make_journal(folder)],
    }


def _images(folder: Path, picture: np.ndarray) -> list[Path]:
    image = Image.fromarray(picture)
    exif = Image.Exif()
    exif[0x0112] = 6
    saved = {
        "rgb.png": (image, {}),
        "palette.png": (image.quantize(16), {}),
        "exif.jpg": (image, {"exif": exif}),
        "cmyk.jpg": (image.convert("CMYK"), {}),
        "progressive.jpg": (image, {"progressive": True}),
        "picture.webp": (image, {}),
        "picture.bmp": (image, {}),
        "picture.tif": (image, {"compression": "tiff_lzw"}),
        "deep.png": (Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257), {}),
        "alpha.png": (image.convert("RGBA"), {}),
    }
    for name, (made, options) in saved.items():
        made.save(folder / name, **options)
    return [folder / name for name in saved]


def _weights(folder: Path) -> list[Path]:
    import torch
    from safetensors.torch import save_file

    tensors = {f"layer{n}.weight": torch.arange(64.0).reshape(8, 8) + n for n in range(4)}
    save_file(tensors, folder / "weights.safetensors", {"format": "pt"})
    torch.save({"state_dict": tensors}, folder / "weights.pt")
    return [folder / "weights.safetensors", folder / "weights.pt"]


def _latents(folder: Path) -> Path:
    from safetensors.numpy import save_file

    count = 3
    arrays = {
        "codes": np.zeros((count, 23, 512), np.float32),
        "pts": np.arange(count),
        "frame": np.arange(count),
        "track": np.zeros(count, np.int64),
        "error": np.zeros(count, np.float32),
    }
    about = {
        "format": "vidswap-latents",
        "format_version": "1",
        "time_base": "1/25",
        "generator": "mobilestylegan-0",
        "target": "1-a",
    }
    save_file(arrays, folder / "latents.safetensors", about)
    return folder / "latents.safetensors"


def _texts(folder: Path) -> list[Path]:
    from vidswap.settings import PRESETS, preset_yaml

    for name in PRESETS:
        (folder / f"{name}.yaml").write_text(preset_yaml(name))
    own = "mix:\n  strength: 0.5\n  mixer: gated\nsmooth.lag: 2\nvideo: {crf: 20}\n"
    (folder / "own.yaml").write_text(own)
    return [folder / "own.yaml", *(folder / f"{name}.yaml" for name in PRESETS)]


def _lists(folder: Path) -> list[Path]:
    rows = "target,source,start,mix.strength\nplain.mp4,synthetic:1,0:00.1,0.5\n,,,\n"
    (folder / "jobs.csv").write_text(rows)
    (folder / "jobs.yaml").write_text(
        "defaults: {source: 'synthetic:1', settings: {mix.strength: 0.5}}\n"
        "jobs:\n  - plain.mp4\n  - {target: plain.mkv, output: a/b.mp4, start: 0.1, end: '0:00.3'}\n"
    )
    (folder / "jobs.txt").write_text("# clips\nplain.mp4\n\nplain.mkv\n")
    return [folder / name for name in ("jobs.csv", "jobs.yaml", "jobs.txt")]


class Fuzz:
    """A number of mutated files, one after the other."""

    def __init__(self, folder: Path, seed: int, commands: float, keep: Path | None) -> None:
        self.folder, self.seed, self.commands, self.keep = folder, seed, commands, keep
        self.corpus = make_corpus(folder)
        self.worker = Worker(folder)
        self.counts: Counter[tuple[str, str]] = Counter()
        self.bad: list[str] = []
        self.slowest = self.most_memory = 0.0

    def one(self, number: int) -> dict[str, Any]:
        """Makes, reads and judges the file of a number."""
        seed = self.seed * 1_000_003 + number
        chance = random.Random(seed)
        kind = chance.choices(list(_KINDS), [share for _, share in _KINDS.values()])[0]
        base = chance.choice(self.corpus[kind])
        other = chance.choice(self.corpus[kind])
        whole = kind in COMMANDS and chance.random() < self.commands
        reader = chance.choice(COMMANDS[kind] if whole else _KINDS[kind][0])
        path = self.folder / f"mutated-{number}{base.suffix}"
        path.write_bytes(mutate(base.read_bytes(), other.read_bytes(), base.suffix, seed))
        task = {"reader": reader, "path": str(path), "good": str(self.folder / "front.mp4")}
        answer = self.worker.ask(task, COMMAND_SECONDS if whole else READ_SECONDS)
        answer |= {"number": number, "reader": reader, "whole": whole, "base": base.name}
        self._count(answer, path)
        path.unlink()
        return answer

    def _count(self, answer: dict[str, Any], path: Path) -> None:
        self.counts[answer["base"].rpartition(".")[2], answer["verdict"]] += 1
        self.counts["command line" if answer["whole"] else "readers", answer["verdict"]] += 1
        self.slowest = max(self.slowest, answer.get("seconds", 0.0))
        self.most_memory = max(self.most_memory, answer.get("memory_mb", 0.0))
        if answer["verdict"] in ("ok", "refused"):
            return
        self.bad.append("{number}: {verdict}: {reader} of {base}: {said}".format(**answer))
        print(self.bad[-1], flush=True)
        if self.keep is not None:
            self.keep.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, self.keep / f"{answer['number']}-{answer['reader']}{path.suffix}")

    def table(self) -> str:
        verdicts = ("ok", "refused", "crash", "hang", "partial")
        rows = sorted({name for name, _ in self.counts} - {"readers", "command line"})
        lines = [f"{'':<12}" + "".join(f"{verdict:>9}" for verdict in verdicts)]
        for row in [*rows, "readers", "command line"]:
            lines.append(f"{row:<12}" + "".join(f"{self.counts[row, verdict]:>9}" for verdict in verdicts))
        total = [self.counts["readers", v] + self.counts["command line", v] for v in verdicts]
        lines.append(f"{'all':<12}" + "".join(f"{count:>9}" for count in total))
        lines.append(f"slowest {self.slowest:.1f} s, most memory {self.most_memory:.0f} MB")
        return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--commands", type=float, default=0.1, help="share for the command line")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for files that made trouble")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        serve(options.worker)
        return 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        fuzz = Fuzz(Path(name), options.seed, options.commands, options.keep)
        try:
            for number in range(options.first, options.first + options.files):
                fuzz.one(number)
                if (number + 1) % 100 == 0:
                    print(f"{number + 1}: {len(fuzz.bad)} bad", flush=True)
        finally:
            fuzz.worker.stop()
    print(fuzz.table())
    return 1 if fuzz.bad else 0


if __name__ == "__main__":
    sys.exit(main())
