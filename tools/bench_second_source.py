#!/usr/bin/env python3
"""Invert once, swap many: what a second source costs on a clip whose faces were found and inverted before.

    python tools/bench_second_source.py CLIP SOURCE_A SOURCE_B [--end 2] [--preset NAME] [--set KEY=VALUE]

Both sources are prepared and all networks loaded before the clocks start. The cache is a fresh one; the
weights are those of the user. Both runs are whole swaps: decode, faces, inversion or cache, drawing, paste,
encode, join, mark. Machines are noisy: read the ratio, and the processor seconds beside the wall's.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from vidswap import weights
from vidswap.inversion import Inverter
from vidswap.memory import keep_large_blocks, share_heaps
from vidswap.pipeline import Swapper
from vidswap.settings import load_config


def measured(swapper: Swapper, options: argparse.Namespace, source: str, output: Path) -> dict[str, Any]:
    """One swap of the whole range."""
    inversions = 0
    step = Inverter.step

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal inversions
        inversions += 1
        return step(*args, **kwargs)

    Inverter.step = counted  # type: ignore[method-assign]
    try:
        wall, processor = time.perf_counter(), time.process_time()
        report = swapper.swap_video(options.clip, source, output, end_seconds=options.end)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
    finally:
        Inverter.step = step  # type: ignore[method-assign]
    return {
        "source": source,
        "frames": report.frames,
        "inversions": inversions,
        "wall_seconds": round(wall, 2),
        "processor_seconds": round(processor, 2),
        "seconds_per_frame": round(report.seconds_per_frame, 4),
        "stages": {name: round(seconds, 2) for name, seconds in report.stage_seconds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("clip")
    parser.add_argument("sources", nargs=2, metavar="SOURCE")
    parser.add_argument("--end", type=float, default=2.0, help="seconds of the clip")
    parser.add_argument("--preset", default=None)
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    share_heaps()  # as the command does
    keep_large_blocks()
    config, _ = load_config(preset=options.preset, overrides=options.set)
    home = weights.home()
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder, "home")
        fresh.mkdir()
        for entry in home.iterdir():
            if entry.name != "cache":
                (fresh / entry.name).symlink_to(entry)
        os.environ["VIDSWAP_HOME"] = str(fresh)
        swapper = Swapper(config)
        print(swapper.session.describe())
        for source in options.sources:
            swapper.source(source)
        runs = [
            measured(swapper, options, source, Path(folder, f"{number}.mp4"))
            for number, source in enumerate(options.sources)
        ]
        kept = Path(fresh, "cache", "target-latents").rglob("*.safetensors")
        size = sum(path.stat().st_size for path in kept)
    for run in runs:
        print(json.dumps(run))
    first, second = runs
    print(
        f"second source: {first['wall_seconds'] / second['wall_seconds']:.1f} times faster by the clock, "
        f"{first['processor_seconds'] / second['processor_seconds']:.1f} times by processor time; "
        f"{size / first['frames'] / 1000:.0f} kB kept a frame"
    )


if __name__ == "__main__":
    main()
