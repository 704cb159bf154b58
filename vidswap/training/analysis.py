"""Which styles carry what: swap only some styles of pairs of faces and measure what came along.

The layer analysis of LatentSwap (arXiv 2402.18351) for this generator. A *share* is how far a
measure went from the target towards the source: 0 the target's, 1 the source's.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from vidswap.models import aligned_mesh as shape
from vidswap.training.bank import Bank
from vidswap.training.charts import draw_shares
from vidswap.training.mixer import Networks

MEASURES = ("identity", "pose", "expression", "color", "outside")


@dataclass(frozen=True)
class AnalysisOptions:
    """Settings of ``vidswap train analyse``."""

    faces: int = 200
    """Faces of the bank that pairs are drawn from."""
    pairs: int = 24
    """Pairs that each set of styles is swapped on."""
    seed: int = 11
    ranges: str = "0-4,3-11,4-9,5-13,6-11,8-15,14-22"
    """Ranges of styles tried beside each single one."""


@dataclass(frozen=True)
class StyleResult:
    """What swapping some styles does, means over the pairs."""

    styles: tuple[int, ...]
    identity_distance: float
    """L2 distance of the identity embedding to the source's."""
    shares: dict[str, float]
    """By measure of :data:`MEASURES`."""

    @property
    def label(self) -> str:
        first, last = self.styles[0], self.styles[-1]
        return str(first) if first == last else f"{first}-{last}"


def parse_ranges(text: str) -> list[tuple[int, ...]]:
    """``"0-4,7"`` to ``[(0, 1, 2, 3, 4), (7,)]``. :raises ValueError: when it is no such text."""
    found = []
    for part in filter(None, text.replace(" ", "").split(",")):
        low, _, high = part.partition("-")
        styles = tuple(range(int(low), int(high or low) + 1))
        if not styles:
            raise ValueError(f"ranges: expected low-high such as 5-13, got {part!r}")
        found.append(styles)
    return found


def _seen(nets: Networks, image: Tensor) -> dict[str, Tensor]:
    mesh, _, _ = nets.meshes(image)
    side = image.shape[-1] // 8
    corners = torch.cat(
        (image[..., : 2 * side, : 2 * side], image[..., : 2 * side, -2 * side :]), -1
    )
    return {
        "identity": nets.identity.embed_aligned(image)[0],
        "pose": shape.pose_features(mesh)[0],
        "expression": shape.expression_vector(mesh)[0],
        # the middle of the face: skin, lips, eyes
        "color": functional.adaptive_avg_pool2d(
            image[..., 3 * side : 7 * side, 2 * side : 6 * side], 2
        ).flatten(),
        "outside": functional.avg_pool2d(corners, 4).flatten(),
    }


@torch.no_grad()
def analyse_styles(
    nets: Networks,
    bank: Bank,
    options: AnalysisOptions,
    *,
    log: Callable[[str], None],
) -> list[StyleResult]:
    """Single styles first, then the ranges."""
    n_styles = nets.generator.n_styles
    sets: list[tuple[int, ...]] = [(style,) for style in range(n_styles)]
    sets += [styles for styles in parse_ranges(options.ranges) if styles[-1] < n_styles]
    random = torch.Generator().manual_seed(options.seed)
    pairs = [torch.randperm(len(bank), generator=random)[:2].tolist() for _ in range(options.pairs)]
    distances = torch.zeros(len(sets))
    shares = torch.zeros(len(sets), len(MEASURES))
    for number, (source, target) in enumerate(pairs):
        wanted = _seen(nets, bank.image(source))
        before = _seen(nets, bank.image(target))
        for index, styles in enumerate(sets):
            code = bank.codes[target : target + 1].clone()
            code[:, list(styles)] = bank.codes[source : source + 1, list(styles)]
            now = _seen(nets, nets.generator.synthesize(code, size=128))
            distances[index] += (now["identity"] - wanted["identity"]).norm().cpu() / len(pairs)
            for column, name in enumerate(MEASURES):
                shares[index, column] += _share(before[name], wanted[name], now[name]) / len(pairs)
        if (number + 1) % 4 == 0:
            log(f"analysed {number + 1} of {len(pairs)} pairs")
    return [
        StyleResult(styles, float(distance), dict(zip(MEASURES, row.tolist(), strict=True)))
        for styles, distance, row in zip(sets, distances, shares, strict=True)
    ]


def _share(target: Tensor, source: Tensor, now: Tensor) -> float:
    """Component of ``now - target`` along ``source - target``, over its length."""
    way = source - target
    return float(((now - target) @ way) / way.square().sum().clamp_min(1e-9))


def write_analysis(results: Sequence[StyleResult], folder: Path) -> list[Path]:
    """``styles.csv``, ``styles.md`` and ``styles.png``."""
    paths = [folder / f"styles.{suffix}" for suffix in ("csv", "md", "png")]
    with paths[0].open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["styles", "identity_distance", *MEASURES])
        for result in results:
            row = [result.identity_distance, *result.shares.values()]
            writer.writerow([result.label, *(f"{value:.4f}" for value in row)])
    lines = [
        "| styles swapped | distance to source | "
        + " | ".join(f"{name} share" for name in MEASURES)
        + " |",
        "|" + "---|" * (2 + len(MEASURES)),
    ]
    for result in results:
        cells = [f"{result.identity_distance:.3f}", *(f"{v:.2f}" for v in result.shares.values())]
        lines.append(f"| {result.label} | " + " | ".join(cells) + " |")
    paths[1].write_text("\n".join(lines) + "\n", encoding="utf-8")
    single = [result for result in results if len(result.styles) == 1]
    draw_shares({name: [result.shares[name] for result in single] for name in MEASURES}, paths[2])
    return paths
