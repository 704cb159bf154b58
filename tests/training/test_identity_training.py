"""Distilling the second identity network, tiny: invented faces and a teacher that is easy to learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vidswap.errors import UsageError
from vidswap.models.second_identity import SecondIdentity, load_second_identity
from vidswap.training import runs
from vidswap.training.identity import (
    FACES_A_FILE,
    IdentityOptions,
    TaughtFaces,
    build_taught_faces,
    changed_chips,
    evaluate_identity,
    train_identity,
)

CPU = torch.device("cpu")
SMALL = (8, 8, 16, 16)
OPTIONS = IdentityOptions(faces=400, steps=4, batch=4, save_every=2, log_every=1)


class Generator:
    """Paints a code's first numbers as bars, grey ones."""

    n_styles, w_dim, device = 23, 512, CPU
    w_avg = torch.zeros(512)

    def map(self, z: torch.Tensor) -> torch.Tensor:
        return z

    def synthesize(self, code: torch.Tensor, *, size: int) -> torch.Tensor:
        bars = code[:, 0, :4].tanh().repeat_interleave(size // 4, 1)
        return bars[:, None, :, None].expand(-1, 3, -1, size)


class Teacher:
    """Says which bars are bright."""

    def embed_aligned(self, images: torch.Tensor) -> torch.Tensor:
        assert 0 <= float(images.min()) <= float(images.max()) <= 1
        found = torch.zeros(len(images), 256)
        bars = images.mean((1, 3)).view(len(images), 4, -1).mean(2)
        found[:, :4] = bars - bars.mean(1, keepdim=True)
        return torch.nn.functional.normalize(found)


def built(folder: Path, numbers: range, **others: object) -> TaughtFaces:
    options = {"mixer": None, "seed": 3, "mixed": 0.5, "log": lambda _line: None, **others}
    return build_taught_faces(
        folder, generator=Generator(), teacher=Teacher(), numbers=numbers, **options
    )  # type: ignore[arg-type]


def test_faces_are_kept_file_by_file_and_the_mixer_draws_some(tmp_path: Path) -> None:
    first = built(tmp_path, range(1))
    assert len(first) == FACES_A_FILE and first.images.dtype == torch.uint8
    again = built(tmp_path, range(2))
    assert torch.equal(again.images[:FACES_A_FILE], first.images)
    assert not torch.equal(again.images[FACES_A_FILE:], first.images)
    whites = lambda source, target, strength: 0 * target + 50.0  # noqa: E731
    mixed = built(tmp_path / "mixed", range(1), mixer=whites)
    share = float((mixed.images == 255).all(dim=3).all(dim=2).all(dim=1).float().mean())
    assert 0.35 < share < 0.65


def test_changed_chips_differ_from_one_another_and_are_the_same_for_a_seed() -> None:
    net, images = SecondIdentity(SMALL), torch.rand(1, 3, 128, 128).expand(6, -1, -1, -1)
    made = [changed_chips(net, images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
    assert float((made[0][0] - made[0][1]).abs().mean()) > 0.05


def test_it_learns_what_its_teacher_says(tmp_path: Path) -> None:
    torch.manual_seed(1)
    faces, unseen, net = built(tmp_path, range(2)), built(tmp_path, range(2, 3)), SecondIdentity(SMALL)
    mean = faces.embeddings.mean(0)
    before = evaluate_identity(unseen, net, mean)
    options = replace(OPTIONS, steps=40, batch=24, learning_rate=5e-3)
    after = train_identity(
        faces, unseen, net, tmp_path / "net.safetensors", options, device=CPU, log=lambda _line: None
    )
    assert after["cosine"] > max(0.6, before["cosine"] + 0.3) and after["pairs"] > 0.6


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    faces, unseen = built(tmp_path, range(2)), built(tmp_path, range(2, 3))

    def run(name: str, log: Callable[[str], None]) -> None:
        torch.manual_seed(7)
        net = SecondIdentity(SMALL)
        train_identity(faces, unseen, net, tmp_path / f"{name}.safetensors", OPTIONS, device=CPU, log=log)

    def stop(line: str) -> None:
        if line.startswith("step 3/"):  # the last checkpoint is of step 2
            raise KeyboardInterrupt

    run("whole", lambda _line: None)
    with pytest.raises(KeyboardInterrupt):
        run("stopped", stop)
    run("stopped", lambda _line: None)
    whole, stopped = (
        load_second_identity(tmp_path / f"{name}.safetensors").state_dict() for name in ("whole", "stopped")
    )
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


def test_wrong_counts_and_a_missing_teacher_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="multiple of 200"):
        runs.run_identity(tmp_path, replace(OPTIONS, faces=300), device=CPU, log=print)
    nets = runs.Networks(Generator(), None, None, None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="weights fetch teacher"):
        runs.run_identity(tmp_path, OPTIONS, device=CPU, log=print, networks=nets)


def test_a_run_leaves_weights_and_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "SecondIdentity", lambda: SecondIdentity(SMALL))
    monkeypatch.setattr(runs.weights, "available", lambda _name: False)
    nets = runs.Networks(Generator(), None, None, Teacher())  # type: ignore[arg-type]
    lines: list[str] = []
    path = runs.run_identity(tmp_path, OPTIONS, device=CPU, log=lines.append, networks=nets)
    assert load_second_identity(path).widths == SMALL
    assert (tmp_path / "second-identity.csv").exists()
    said = [part.split() for part in lines[-1].removeprefix("unseen faces: ").split(", ")]
    assert [name for name, _ in said] == ["cosine", "centred", "pairs"]
    assert all(-1 <= float(value) <= 1 for _, value in said)
