"""Training runs end to end, tiny: few faces, few steps, networks with random weights."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file

from vidswap.cli.train import _RUNS, _built, _options_class, train_group
from vidswap.errors import UsageError
from vidswap.models.mixer import load_mixer
from vidswap.training import analysis, charts, runs
from vidswap.training.bank import Bank
from vidswap.training.directions import UNITS, DirectionsOptions, fit_directions
from vidswap.training.mixer import MixerOptions

CPU = torch.device("cpu")


def quiet(_line: str) -> None:
    return None


class _Linear:
    """A generator whose W is white and that draws nothing."""

    n_styles, w_dim = 4, 512
    device = CPU
    w_avg = torch.zeros(512)

    def map(self, z: torch.Tensor) -> torch.Tensor:
        return z


def _linear_bank(count: int) -> tuple[Bank, torch.Tensor]:
    """Faces whose mouths open with one known direction in the code, and that direction."""
    from vidswap.models.aligned_mesh import canonical_mesh

    codes = torch.randn(count, 4, 512)
    codes[..., 8:] = 0  # few axes, so that few faces teach enough
    truth = torch.zeros(4, 512)
    truth[1, :8] = torch.randn(8)
    truth /= truth.norm()
    opened = (codes * truth).sum((1, 2))
    meshes = canonical_mesh()[None].repeat(count, 1, 1) * 0.3 + 0.5
    meshes = meshes + 1e-4 * torch.randn(meshes.shape)
    for upper, lower in ((81, 178), (82, 87), (13, 14), (312, 317), (311, 402)):
        meshes[:, lower, 1] = meshes[:, upper, 1] + 0.03 + 0.006 * opened
    irises = torch.full((count, 2, 5, 2), 0.5) + 1e-3 * torch.randn(count, 2, 5, 2)
    bank = Bank(
        codes, torch.randint(0, 256, (count, 3, 128, 128), dtype=torch.uint8),
        torch.randn(count, 128), meshes, irises, torch.zeros(count, 128, 128, dtype=torch.uint8),
    )  # fmt: skip
    return bank, truth


def test_a_known_direction_is_found_again() -> None:
    bank, truth = _linear_bank(600)
    options = DirectionsOptions(components=512, identity_components=4, look_components=2)
    directions, explained = fit_directions(bank, _Linear(), options)  # type: ignore[arg-type]
    assert set(directions) == set(UNITS)
    found = directions["mouth"][:, :8].flatten()
    cosine = float(found @ truth[:, :8].flatten() / found.norm())
    assert cosine > 0.8
    # Only the style that carries it is touched; what carries nothing explains nothing.
    assert directions["mouth"][1].norm() > 5 * directions["mouth"][0].norm()
    assert explained["mouth"] > 0.5 > explained["brow"]


def test_lines_of_a_log_become_figures() -> None:
    assert charts.figures_of("step 50/600: 128 px 27.21 dB, 256 px 26.10 dB") == (
        50, {"128 px": 27.21, "256 px": 26.10},
    )  # fmt: skip
    assert charts.figures_of("epoch 3: loss 0.01200, explained 0.5100") == (
        3, {"loss": 0.012, "explained": 0.51},
    )  # fmt: skip
    assert charts.figures_of("bank: 200/2200") is None


def test_a_run_keeps_its_curves(tmp_path: Path) -> None:
    steps: list[int] = []
    line = runs.CurveLog(tmp_path, "heads", quiet, on_step=steps.append)
    for step in (50, 100, 100, 150):  # a resumed run says a step twice
        line(f"step {step}/150: 128 px {20 + step / 50:.2f} dB")
    assert steps == [50, 100, 100, 150]
    curves = charts.read_curves(tmp_path / "heads.csv")
    assert curves == {"128 px": [(50.0, 21.0), (100.0, 22.0), (150.0, 23.0)]}
    with Image.open(tmp_path / "heads-curves.png") as picture:
        colors = {pixel for _, pixel in picture.convert("RGB").getcolors(1 << 20)}
    assert (0x1F, 0x6F, 0xB4) in colors  # the curve itself


def test_a_folder_refuses_other_options(tmp_path: Path) -> None:
    runs.open_folder(tmp_path / "run", "mixer", MixerOptions(steps=2))
    runs.open_folder(tmp_path / "run", "mixer", MixerOptions(steps=2))
    with pytest.raises(UsageError, match="steps was 2, now 3"):
        runs.open_folder(tmp_path / "run", "mixer", MixerOptions(steps=3))


def test_ranges_of_styles() -> None:
    assert analysis.parse_ranges("0-2, 7") == [(0, 1, 2), (7,)]
    with pytest.raises(ValueError, match="7-5"):
        analysis.parse_ranges("7-5")


def test_the_command_lists_its_options_and_refuses_nonsense(tmp_path: Path) -> None:
    runner = CliRunner()
    shown = runner.invoke(train_group, ["mixer", "--help"])
    assert shown.exit_code == 0
    for option in ("--steps", "--learning-rate", "--faces", "--form", "--output", "--device"):
        assert option in shown.output
    bad = runner.invoke(train_group, ["heads", "--sizes", "big", "-o", str(tmp_path / "r")])
    assert bad.exit_code == 2
    assert "128,256" in bad.output
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("name", sorted(_RUNS))
def test_default_options_come_through_the_command_line(name: str) -> None:
    command = train_group.commands[name]
    context = command.make_context(name, [])
    assert _built(_options_class(name), dict(context.params)) == _options_class(name)()


def test_mixer_run_resumes_and_analysis_has_a_table(weights_home: Path, tmp_path: Path) -> None:
    nets = runs.load_networks(CPU)
    bank_options = runs.BankOptions(faces=4)
    options = MixerOptions(steps=1, pairs=1, held_out=2, save_every=1)

    def train() -> Path:
        return runs.run_mixer(
            tmp_path, options, bank_options, device=CPU, log=quiet, networks=nets, sheet_side=2
        )

    made = train()
    first = made.read_bytes()
    with Image.open(tmp_path / "mixer-gated-sheet.png") as sheet:
        assert sheet.size == (3 * 128, 3 * 128)
    target, source = torch.randn(2, 1, 23, 512)
    assert not torch.equal(load_mixer(made)(source, target), target)
    # The same command again has nothing left to do and changes nothing.
    assert train().read_bytes() == first

    fits = []

    def fit(generator, identity, picture, start, steps, scale) -> torch.Tensor:
        fits.append(picture.shape)
        return start

    def train_fitted(count: int) -> Path:
        return runs.run_mixer(
            tmp_path / "fitted", options, replace(bank_options, fitted=count), device=CPU, log=quiet,
            networks=nets, sheet_side=2, fit=fit,
        )  # fmt: skip

    with pytest.raises(UsageError, match="fitted: expected more than"):
        train_fitted(3)
    (tmp_path / "fitted").mkdir(exist_ok=True)
    shutil.copy(tmp_path / "bank-11.safetensors", tmp_path / "fitted")
    train_fitted(4)
    kept = load_file(tmp_path / "fitted" / "fitted-11.safetensors")
    assert len(kept["codes"]) == 4 and set(fits) == {(1, 3, 128, 128)}
    assert (tmp_path / "fitted" / "mixer-gated-sheet-fitted.png").exists()
    train_fitted(5)  # goes on from the four
    more = load_file(tmp_path / "fitted" / "fitted-11.safetensors")
    assert len(more["codes"]) == 5 and torch.equal(more["images"][:4], kept["images"])

    wanted = analysis.AnalysisOptions(faces=4, pairs=1, ranges="0-22")
    table = runs.run_analysis(tmp_path, wanted, device=CPU, log=quiet, networks=nets)
    with (tmp_path / "styles.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["styles"] for row in rows] == [*(str(style) for style in range(23)), "0-22"]
    # All styles of the source are the source.
    assert float(rows[-1]["identity_distance"]) < 0.02
    assert float(rows[-1]["pose"]) == pytest.approx(1, abs=0.02)
    assert table.read_text().count("\n") == 2 + 24
    assert (tmp_path / "styles.png").stat().st_size > 1000
