#!/usr/bin/env python3
"""What occlusion networks see in drawn scenes of several kinds, which no training run draws.

    python tools/measure_scenes.py RUN WEIGHTS [WEIGHTS ...]

RUN is the output folder of ``vidswap train occlusion``: scenes are made of its faces, and of those with
turned heads where it has any. WEIGHTS are published ones, such as ``vidswap/assets/occlusion.safetensors``
and another version. Of each: IoU, recall and precision of what is covered, and the share of bare face that
is called covered; for scenes of all kinds, for hands alone and locks of hair alone, and for turned heads.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch

from vidswap.models.occlusion_net import INPUT_SIZE, load_occlusion_net
from vidswap.training.hair import locks
from vidswap.training.occluders import MAKERS, hand
from vidswap.training.occlusion import evaluate_occlusion
from vidswap.training.occlusion_scenes import bare_browed, draw_scene
from vidswap.training.pictures import load_pictures

_ALL_FACES = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("--faces-seed", type=int, default=31, help="seed of the run's faces")
    parser.add_argument("--count", type=int, default=96, help="scenes of each kind")
    arguments = parser.parse_args()
    front, turned = (
        bare_browed(
            load_pictures(
                arguments.run / "occlusion-faces", seed=arguments.faces_seed, count=_ALL_FACES, turned=turned
            )
        )
        for turned in (False, True)
    )
    if not len(front):
        parser.error(f"{arguments.run}: no faces of seed {arguments.faces_seed}; is it a run's folder?")
    kinds = [("all", front, MAKERS), ("hands", front, ((hand, 1.0),)), ("locks", front, ((locks, 1.0),))]
    if len(turned):
        kinds.append(("turned", turned, MAKERS))
    for path in arguments.weights:
        net = load_occlusion_net(path)
        for name, faces, makers in kinds:
            found = evaluate_occlusion(
                faces, net, count=arguments.count, size=INPUT_SIZE, device=torch.device("cpu"),
                draw=partial(draw_scene, makers=makers),
            )  # fmt: skip
            figures = ", ".join(f"{what} {value:.3f}" for what, value in found.items())
            print(f"{path.name}, {name}: {figures}", flush=True)


if __name__ == "__main__":
    main()
