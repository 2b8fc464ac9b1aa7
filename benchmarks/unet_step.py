"""One forward of the U-Net against diffusers': same weights, same dtype, one thread, outputs compared first.

python benchmarks/unet_step.py [--case sd15 25m 11m] [--dtype float32 bfloat16] [--plan prepacked exported] [--rounds 9]
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import torch
from common import deviation, paired, summary, write
from diffusers import UNet2DConditionModel
from ldmkit_checkpoints.diffusers.unet_config import unet_from_diffusers
from ldmkit_checkpoints.diffusers.unet_keys import unet_diffusers
from ldmkit_denoisers.unet import UNet

from ldmkit import Tokens

DOWN = ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")
UP = ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")
SMALL = {"down_block_types": DOWN[1:], "up_block_types": UP[:-1], "cross_attention_dim": 256, "norm_num_groups": 16}
CASES: dict[str, dict[str, Any]] = {
    "sd15": {"cross_attention_dim": 768},
    "25m": {**SMALL, "block_out_channels": (96, 192, 288), "layers_per_block": 2, "attention_head_dim": 6},
    "11m": {**SMALL, "block_out_channels": (64, 128, 192), "layers_per_block": 2, "attention_head_dim": 4},
}
SHAPES = {"sd15": ((2, 32),), "25m": ((2, 16), (2, 32)), "11m": ((2, 16), (2, 32))}
TOKENS = {"sd15": 77, "25m": 32, "11m": 32}
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


def build(case: str, dtype: torch.dtype) -> tuple[UNet2DConditionModel, UNet]:
    """diffusers' network with seeded random weights, and ours on the same tensors."""
    torch.manual_seed(0)
    theirs = UNet2DConditionModel(**CASES[case]).to(dtype).eval().requires_grad_(False)
    config = unet_from_diffusers(theirs.config)
    state = theirs.state_dict()
    keymap = unet_diffusers(config)
    with torch.device("meta"):
        ours = UNet(config)
    filled = {key: entry.read(*(state[k] for k in entry.keys)).clone() for key, entry in keymap.items()}
    ours.load_state_dict(filled, strict=True, assign=True)
    return theirs, ours.eval().requires_grad_(False)


def measure(case: str, dtype: torch.dtype, plans: list[str], rounds: int) -> list[dict[str, Any]]:
    """One row a latent size."""
    theirs, ours = build(case, dtype)
    networks = {plan: ours.plan(plan) for plan in plans}
    return [measure_size(case, theirs, ours, networks, shape, rounds) for shape in SHAPES[case]]


def measure_size(
    case: str,
    theirs: UNet2DConditionModel,
    ours: UNet,
    networks: dict[str, Any],
    shape: tuple[int, int],
    rounds: int,
) -> dict[str, Any]:
    """The row of one latent size: outputs compared, then timed."""
    batch, side = shape
    x = torch.randn(batch, 4, side, side, dtype=ours.dtype)
    tokens = torch.randn(batch, TOKENS[case], theirs.config.cross_attention_dim, dtype=ours.dtype)
    t = torch.tensor(501.0)
    context = ours.prepare({"context": Tokens(tokens)})
    calls: dict[str, Any] = {"diffusers": lambda: theirs(x, t, tokens, return_dict=False)[0]}
    for name, network in networks.items():
        calls[name] = partial(network, x, t.expand(batch), context, None)
    wanted = calls["diffusers"]()
    errors = {name: deviation(calls[name](), wanted) for name in networks}
    tolerance = TOLERANCE[ours.dtype]
    for name, error in errors.items():
        if error > tolerance:
            raise SystemExit(f"{case} {ours.dtype} {name}: deviation {error:.2g} is above {tolerance}")
    row = {
        "case": case,
        "million_parameters": round(sum(p.numel() for p in ours.parameters()) / 1e6, 1),
        "dtype": str(ours.dtype).removeprefix("torch."),
        "latents": [batch, 4, side, side],
        "deviation": {name: float(f"{error:.2g}") for name, error in errors.items()},
        "tolerance": tolerance,
        "rounds": rounds,
        "result": summary(paired(calls, rounds), "diffusers"),
    }
    print(row, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--plan", nargs="+", default=["eager", "prepacked"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--name", default="unet_step")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with torch.inference_mode(False), torch.no_grad():
        for case in options.case:
            for dtype in options.dtype:
                rounds = options.rounds if case == "sd15" else 8 * options.rounds
                rows += measure(case, getattr(torch, dtype), options.plan, rounds)
    write(options.name, rows)


if __name__ == "__main__":
    main()
