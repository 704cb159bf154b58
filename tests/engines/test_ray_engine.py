"""The Ray engine: what it asks of nodes, how it fails, and a batch of which a node is killed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vidswap.batch_plan import plan_batch
from vidswap.cli.app import run as vidswap
from vidswap.config import RunConfig
from vidswap.engines import make_engine
from vidswap.engines import ray as engine_module
from vidswap.engines.ray import RayEngine
from vidswap.errors import UsageError
from vidswap.jobs import Job
from vidswap.locking import FileLock, LockTaken, take_over, this_holder

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "synthetic:3"


class Cluster:
    """Nodes with their resources, as Ray tells of them."""

    def __init__(self, *resources: dict[str, float]) -> None:
        self._nodes = [{"Alive": True, "Resources": each} for each in resources]
        self._nodes.append({"Alive": False, "Resources": {"CPU": 512.0, "GPU": 8.0}})

    def nodes(self) -> list[dict]:
        return self._nodes


def fleet(engine: RayEngine, *resources: dict[str, float]) -> engine_module._Fleet:
    return engine_module._Fleet(engine, Cluster(*resources), lambda event: None, Path("sign"))


def places(engine: RayEngine, gpu: bool, *resources: dict[str, float]) -> int:
    crew = fleet(engine, *resources)
    return crew._places(crew._needs(gpu))


HEAD, SMALL, LARGE = {"memory": 1.0}, {"CPU": 4.0}, {"CPU": 16.0}
CARDS = {"CPU": 8.0, "GPU": 2.0}


def test_places_follow_the_resources_of_the_nodes_that_live() -> None:
    assert places(RayEngine(), False, HEAD, SMALL, LARGE) == 1 + 4  # four cores for each clip
    assert places(RayEngine(cpus=8), False, HEAD, SMALL, LARGE) == 2
    assert places(RayEngine(), True, SMALL, CARDS) == 2
    assert places(RayEngine(gpus=0.5), True, SMALL, CARDS) == 4
    assert places(RayEngine(gpus=2), True, SMALL, CARDS, CARDS) == 2
    assert places(RayEngine(), True, SMALL) == places(RayEngine(cpus=32), False, LARGE) == 0


def test_no_place_ends_the_batch_with_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "_NO_PLACE_SECONDS", 0.0)
    monkeypatch.setattr(engine_module, "_POLL_SECONDS", 0.01)
    job = Job(0, "a", Path("a.mp4"), Path("o.mp4"), (SOURCE,), RunConfig(device="cuda"))
    with pytest.raises(UsageError, match="no node of the cluster has 1 CPUs and 1 GPUs"):
        fleet(RayEngine(), SMALL).run([job])


def test_jobs_travel_with_absolute_paths_and_a_device(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    job = Job(0, "a", Path("a.mp4"), Path("out/a.mp4"), ("p.jpg#1", SOURCE), face=("all", "1=q.jpg"))
    sent = engine_module._for_nodes(job, has_gpu=False)
    assert sent.target == tmp_path / "a.mp4" and sent.output == tmp_path / "out" / "a.mp4"
    assert sent.source == (f"{tmp_path}/p.jpg#1", SOURCE)
    assert sent.face == ("all", f"1={tmp_path}/q.jpg")
    assert sent.config.device == "cpu"
    assert engine_module._for_nodes(job, has_gpu=True).config.device == "cuda"


@pytest.mark.parametrize("options", [{"jobs": 0}, {"cpus": 0}, {"gpus": 0}, {"gpus": 1.5}])
def test_options_that_make_no_sense_are_refused(options: dict) -> None:
    with pytest.raises(UsageError, match=f"--{next(iter(options))}"):
        make_engine("ray", **options)


def test_options_of_ray_are_refused_elsewhere_and_ray_may_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").write_bytes(b"clip")
    command = ["batch", str(tmp_path / "in"), "-s", SOURCE, "-o", str(tmp_path / "out")]
    assert vidswap([*command, "--address", "auto"]) == 2
    assert "--address is no option of --engine local" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # is put back as it was
    assert vidswap([*command, "--engine", "ray", "--no-progress"]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and "pip install 'vidswap[ray]'" in shown
    assert not list((tmp_path / "out").glob(".vidswap-ray-*"))


# ------------------------------------------------------------------ locks of the dead


def test_only_a_lock_of_the_dead_is_taken_over_and_only_after_a_while(tmp_path: Path) -> None:
    """Storage may keep a dead machine's lock: here the holder lives, and is said to be dead."""
    path = tmp_path / "lock"
    take_over(path, ["nobody"], after_seconds=0)  # no lock at all
    assert not path.exists()
    held = FileLock(path)
    held.acquire()
    take_over(path, ["process 1 on elsewhere (abc)"], after_seconds=0)
    with pytest.raises(LockTaken):
        FileLock(path).acquire()
    take_over(path, [this_holder()], after_seconds=0)
    with FileLock(path):
        assert held.is_held  # as the dead machine would think
    held.release()
    take_over(path, [this_holder()], after_seconds=0)
    assert path.exists()  # nobody had it: left as it was


# ------------------------------------------------------------------ a real cluster


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_node_costs_no_frame(weights_home: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'vidswap[ray]'")
    result = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "ray_kill_test.py"), "--clips", "2", "--seconds", "0.4"],
        capture_output=True, text=True, cwd=tmp_path, timeout=850,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"^failures  0$", result.stdout, re.MULTILINE), result.stdout
    assert "killing a node" in result.stdout


def test_plan_and_engine_agree_on_what_a_job_is(tmp_path: Path) -> None:
    """Jobs go to other machines: they must survive pickling."""
    import pickle

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").write_bytes(b"clip")
    jobs = plan_batch(tmp_path / "in", tmp_path / "out", source=SOURCE)
    assert pickle.loads(pickle.dumps(jobs)) == jobs
