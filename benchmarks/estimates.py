"""The memory that a run was estimated to take, and what it took: the bundled model and a larger one.

python benchmarks/estimates.py

Each run is measured in a process of its own: the largest resident memory beyond what the process held when it had the
weights and had drawn one small picture.
"""

from __future__ import annotations

import subprocess
import sys
import warnings

import torch
from common import peak_rss, reset_peak

import ldmkit

RUNS = (("bundled", 64, 64), ("bundled", 256, 4), ("bundled", 512, 4), ("larger", 256, 2), ("larger", 256, 4))
UNET = {"channels": 4, "widths": (128, 256, 512, 512), "attention": ("cross", "cross", "cross", "none"), "heads": 8,
        "context_dim": 64}  # fmt: skip


def larger() -> ldmkit.Pipeline:
    """The shape of Stable Diffusion, at 0.4 of its width; its codec as it is. Random weights."""
    parts = {
        "denoiser": ldmkit.get("denoiser", "unet")(UNET),
        "codec": ldmkit.get("codec", "kl")({"widths": (128, 256, 512, 512), "z_channels": 4}),
    }
    label = ldmkit.get("conditioner", "label")({"n_classes": 10, "dim": 64, "null_class": 9})
    for part in (*parts.values(), label):
        part.eval().requires_grad_(False)
    process = ldmkit.get("process", "discrete")()
    return ldmkit.Pipeline.of(**parts, process=process, conditioners={"label": label}, defaults={"size": (256, 256)})


def measure(name: str, side: int, count: int) -> None:
    """Print one row."""
    warnings.simplefilter("ignore")
    pipe = ldmkit.load("miniworld") if name == "bundled" else larger()
    given = {"text": "a red circle"} if name == "bundled" else {"label": 1}
    pipe(given, size=64, steps=1)
    run = pipe.prepare(given, size=side, seeds=range(count), steps=2, guidance=3.0)
    reset_peak()
    before = peak_rss()
    pipe.run(run)
    told, took = run.estimate.bytes / 2**20, (peak_rss() - before) / 2**20
    print(f"| {name} | {count} of {side}x{side} | {told:.0f} | {took:.0f} | {took / told:.2f} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        torch.set_num_threads(1)
        measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    else:
        for run in RUNS:
            subprocess.run([sys.executable, __file__, *map(str, run)], check=True)
