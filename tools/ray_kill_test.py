#!/usr/bin/env python3
"""Kills a node of a Ray cluster in the middle of a batch, and shows that nothing is lost.

    python tools/ray_kill_test.py [--clips 3] [--seconds 0.64] [--set KEY=VALUE]

Small samples are swapped by the local engine. Then a cluster is started on this machine: a head without
places for clips and two nodes with one each, token authentication on. The same batch runs there, and once
every clip at work has a finished chunk, one node is killed (SIGKILL). The other node must go on with its clip
after its last finished chunk, and every clip must come out with the frames and times of the local engine.
A last try with a wrong token must be refused in one line.

Prints one table; exit code 1 when anything of that failed. Needs Ray: pip install 'vidswap[ray]'.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kill_test import CHEAP, State, frames_digest, make_clip, own_home, state_of

from vidswap.batch import run_batch
from vidswap.batch_plan import plan_batch
from vidswap.engines import make_engine
from vidswap.jobs import Job, JobEvent
from vidswap.runs import work_folder
from vidswap.settings import load_config

CHUNK_FRAMES = 2
SOURCE = "synthetic:5"
_RESUMING = re.compile(r"resuming: (\d+) of")


class Watch:
    """Follows a batch, and kills a node when every clip at work has a finished chunk."""

    def __init__(self, cluster: Any, node: Any, jobs: list[Job]) -> None:
        self.cluster, self.node, self.jobs = cluster, node, jobs
        self.at_work: dict[int, int] = {}
        self.lines: list[str] = []
        self.at_kill: dict[str, State] = {}

    def log(self, line: str) -> None:
        self.lines.append(line)
        print(f"  {line}", flush=True)

    def __call__(self, event: JobEvent) -> None:
        if event.kind == "ended":
            self.at_work.pop(event.index, None)
        else:
            self.at_work[event.index] = event.progress.frames_done if event.progress else 0
        if not self.at_kill and len(self.at_work) > 1 and min(self.at_work.values()) > CHUNK_FRAMES:
            print(f"killing a node; frames done: {self.at_work}", flush=True)
            self.cluster.remove_node(self.node, allow_graceful=False)
            time.sleep(1)  # its workers see that their node is gone, and end
            self.at_kill = {job.name: state_of(work_folder(job.output)) for job in self.jobs}


def check(watch: Watch, jobs: list[Job], report: Any, wanted: dict[str, str]) -> list[str]:
    """What went wrong."""
    failures = [f"{clip.name}: {clip.state}: {clip.error}" for clip in report.clips if clip.state != "done"]
    if not watch.at_kill:
        failures.append("no node was killed: the clips were too short")
    if not any("is gone" in line for line in watch.lines):
        failures.append("no worker was lost")
    resumed = [int(match[1]) for line in watch.lines if (match := _RESUMING.search(line))]
    finished = [len(state.chunks) * CHUNK_FRAMES for state in watch.at_kill.values()]
    if len(resumed) != 1 or resumed[0] not in finished or not resumed[0]:
        failures.append(f"gone on from {resumed} where {finished} frames were finished")
    for job in jobs:
        if job.output.exists() and frames_digest(job.output) != wanted[job.name]:
            failures.append(f"{job.name}: other frames than those of the local engine")
        if work_folder(job.output).exists():
            failures.append(f"{job.name}: its work folder was left behind")
    failures += [f"left behind: {path.name}" for path in jobs[0].output.parent.glob(".vidswap-ray-*")]
    return failures


def refused(address: str, clips: Path, out: Path) -> list[str]:
    """A command with another token must end at once, in one line."""
    command = [sys.executable, "-m", "vidswap", "batch", str(clips), "-s", SOURCE, "-o", str(out)]
    result = subprocess.run(
        [*command, "--engine", "ray", "--address", address, "--no-progress"],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "RAY_AUTH_TOKEN": secrets.token_hex(32)},
    )  # fmt: skip
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    print(f"with a wrong token: exit code {result.returncode}: {lines[-1:]}")
    if result.returncode != 2 or "token" not in (lines or [""])[-1] or len(lines) != 1:
        return [f"a wrong token gave exit code {result.returncode} and {len(lines)} lines"]
    return []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clips", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.64, help="of each clip")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, (str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH")))
    )
    config, _ = load_config(overrides=[*CHEAP, "runs.keep_latents=false", *options.settings])
    with own_home(), tempfile.TemporaryDirectory(prefix="ray-kill-test-") as name:
        folder = Path(name)
        clips = folder / "clips"
        clips.mkdir()
        for number in range(options.clips):
            make_clip(clips / f"{number}.mp4", options.seconds)
        began = time.monotonic()
        local = plan_batch(clips, folder / "local", source=SOURCE, config=config)
        run_batch(local, make_engine("local").run, folder / "local")
        wanted = {job.name: frames_digest(job.output) for job in local}
        print(f"local engine: {time.monotonic() - began:.1f} s for {len(local)} clips", flush=True)
        failures = on_cluster(folder, clips, config, wanted)
    print("\n".join([f"failures  {len(failures)}", *failures]))
    return 1 if failures else 0


def on_cluster(folder: Path, clips: Path, config: Any, wanted: dict[str, str]) -> list[str]:
    """The batch on two nodes, one of which dies."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        jobs = plan_batch(clips, folder / "ray", source=SOURCE, config=config)
        watch = Watch(cluster, nodes[1], jobs)
        engine = make_engine("ray", address=cluster.address, log=watch.log)
        began = time.monotonic()
        report = run_batch(jobs, engine.run, folder / "ray", on_event=watch)
        print(f"two nodes, one killed: {time.monotonic() - began:.1f} s", flush=True)
        failures = check(watch, jobs, report, wanted)
        for row in report.clips:
            print(f"{row.name}: {row.state}, {row.frames} frames, {row.frames_swapped} swapped")
        return failures + refused(cluster.address, clips, folder / "refused")
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    sys.exit(main())
