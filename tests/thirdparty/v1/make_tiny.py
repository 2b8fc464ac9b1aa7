"""How `tiny`, `expected.safetensors` and `drawn.png` were made; they are kept, not made again.

python make_tiny.py src/thirdparty_v1
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

import ldmkit

INPUTS = [{"palette": ["#ff0000", "#0000ff"], "tint": [0.0, 1.0]}, {"palette": ["#00ff00"], "tint": [1.0, 0.25]}]


def main(folder: Path) -> None:
    """Save the pipeline, its latents for `INPUTS` with seeds 5 and 6, and the first picture."""
    with tempfile.TemporaryDirectory() as name:
        seeded = Path(name) / "tiny.v1seed"
        seeded.write_text('{"seed": 3}')
        pipe = ldmkit.load(seeded)
    tint = ldmkit.get("adapter", "v1-tint")({"strength": 0.5})
    with torch.no_grad():
        tint.project.weight.copy_(ldmkit.Noise([3], tint.project.weight.shape)(0, "tint")[0])
    pipe = pipe.with_adapter("tint", tint, {"map": ldmkit.get("conditioner", "v1-halves")()})
    pipe.save(folder / "tiny")
    pipe = ldmkit.load("v1-tiny")
    out = pipe(INPUTS, seeds=[5, 6], steps=4)
    save_file({"latents": out.latents.contiguous()}, folder / "expected.safetensors")
    pipe(INPUTS[0], seeds=5, steps=4).save(folder / "drawn.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
