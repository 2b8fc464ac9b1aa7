"""Decoding to 512x512 with Stable Diffusion's first stage: ours and diffusers', and tiled within a budget.

python benchmarks/codec_decode.py [--rounds 5] [--budget-mib 128]

Same weights, one thread, outputs compared before timing. Peak memory is measured in a process of its own: the largest
resident memory beyond what the process held when it had the weights and had decoded one tiny picture.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import diffusers
import torch
from common import deviation, paired, peak_rss, reset_peak, summary, write
from ldmkit_checkpoints.diffusers.vae_config import kl_from_diffusers
from ldmkit_checkpoints.diffusers.vae_keys import kl_diffusers_keys
from ldmkit_codecs.kl import KLCodec
from ldmkit_codecs.tiled import TiledCodec

TOLERANCE = 1e-5
WIDTHS = (128, 256, 512, 512)
BLOCKS = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}


def build() -> tuple[diffusers.AutoencoderKL, KLCodec]:
    """diffusers' autoencoder with seeded random weights, and ours on the same tensors."""
    torch.manual_seed(0)
    theirs = diffusers.AutoencoderKL(block_out_channels=WIDTHS, layers_per_block=2, latent_channels=4, **BLOCKS)
    theirs.eval().requires_grad_(False)
    state = theirs.state_dict()
    ours = KLCodec(kl_from_diffusers(theirs.config))
    filled = {key: e.read(*(state[k] for k in e.keys)) for key, e in kl_diffusers_keys(ours.config).items()}
    ours.load_state_dict(filled, strict=True, assign=True)
    return theirs, ours.eval().requires_grad_(False)


def decoders(budget: float) -> dict[str, Any]:
    """What is compared: standardised latents to pictures."""
    theirs, ours = build()
    tiled = TiledCodec.wrap(ours, budget_mib=budget)
    scale = theirs.config.scaling_factor
    return {"diffusers": lambda z: theirs.decode(z / scale, return_dict=False)[0], "ldmkit": ours.decode,
            "ldmkit tiled": tiled.decode}  # fmt: skip


def memory(name: str, budget: float) -> int:
    """Bytes beyond the weights at the peak of one decode, in a process of its own."""
    code = f"import codec_decode as c; c.report_memory({name!r}, {budget})"
    command, here = [sys.executable, "-W", "ignore", "-c", code], Path(__file__).parent
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout.splitlines()[-1]))


def report_memory(name: str, budget: float) -> None:
    """The child's side of `memory`."""
    torch.set_num_threads(1)
    decode = decoders(budget)[name]
    with torch.no_grad():
        decode(torch.zeros(1, 4, 8, 8))
        reset_peak()
        held = peak_rss()
        decode(torch.zeros(1, 4, 64, 64))
    print(json.dumps(peak_rss() - held))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--budget-mib", type=float, default=128)
    parser.add_argument("--name", default="codec_decode")
    options = parser.parse_args()
    torch.set_num_threads(1)
    calls = decoders(options.budget_mib)
    z = torch.randn(1, 4, 64, 64) * 0.8
    with torch.no_grad():
        error = deviation(calls["ldmkit"](z), calls["diffusers"](z))
        if error > TOLERANCE:
            raise SystemExit(f"deviation {error:.2g} is above {TOLERANCE}")
        times = paired({name: lambda call=call: call(z) for name, call in calls.items()}, options.rounds, 1)
    row = {
        "what": "KL decode to 512x512, float32",
        "deviation": float(f"{error:.2g}"),
        "tolerance": TOLERANCE,
        "budget_mib": options.budget_mib,
        "result": summary(times, "diffusers"),
        "peak_mib_beyond_weights": {name: memory(name, options.budget_mib) // 2**20 for name in calls},
    }
    print(row)
    write(options.name, [row])


if __name__ == "__main__":
    main()
