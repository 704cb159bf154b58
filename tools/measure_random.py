#!/usr/bin/env python3
"""How well mixers work on random people of the generator that none was trained on, in one run.

    python tools/measure_random.py [--pairs 50] [--gallery 1000] [--judge faceres]

The paper's own setting: source and target are random latents. Figures as of ``tools/measure_swaps.py``, but
of the generated pictures, without inversion and paste-back; retrieval is among ``--gallery`` other people.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from measure_swaps import METHODS, Judge, report, variant

from vidswap.identities import SourceIdentity, to_image
from vidswap.models.judge_tfjs import RECIPES
from vidswap.regenerate import refined_code
from vidswap.session import Session
from vidswap.settings import load_config

_FIRST_SEED = 810_000
_PSI = 0.8
_SIZE = 512


def person(session: Session, seed: int) -> torch.Tensor:
    """The W+ code ``[1, n_styles, 512]`` of a random person."""
    generator = session.generator
    return generator.sample(seed, psi=_PSI)[:, None].repeat(1, generator.n_styles, 1)


def mixed(
    session: Session, source: torch.Tensor, embedding: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    """The code of the swap, the source refined as a run does it."""
    source = refined_code(session, source, embedding, target)
    with torch.no_grad():
        return session.mixer(source, target, session.config.mix.strength)


def picture(session: Session, code: torch.Tensor) -> np.ndarray:
    """``[512, 512, 3]`` in [0, 1]."""
    with torch.no_grad():
        return to_image(session.generator.synthesize(code, size=_SIZE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--gallery", type=int, default=1000, help="other people")
    parser.add_argument("--judge", choices=sorted(RECIPES), help="a second identity network")
    parser.add_argument("--sheet", type=Path, help="source, target, then each method, a row a pair")
    options = parser.parse_args()
    session = Session(load_config()[0])
    judge = Judge(session, options.gallery, options.judge)
    variants = {name: variant(session, "default", changes) for name, changes in METHODS.items()}
    totals: dict[str, list[dict]] = {name: [] for name in variants}
    rows = []
    for pair in range(options.pairs):
        codes = [person(session, _FIRST_SEED + 2 * pair + which) for which in (0, 1)]
        first, second = (picture(session, code) for code in codes)
        with torch.no_grad():
            embedding = session.identity.embed_aligned(session.generator.synthesize(codes[0], size=_SIZE))
        source = SourceIdentity(f"random {pair}", codes[0], embedding)
        look = torch.zeros(0)
        if judge.second is not None:
            look = torch.from_numpy(judge.second.embed_picture(first))
        pictures = [first, second]
        for name, other in variants.items():
            made = picture(other, mixed(other, codes[0], embedding, codes[1]))
            totals[name].append(judge(source, look, second, made))
            pictures.append(made)
        rows.append(np.concatenate(pictures, axis=1)[::2, ::2])
    print(f"{options.pairs} pairs, {options.gallery} other people")
    report(totals, rows, options.sheet)


if __name__ == "__main__":
    main()
