"""What a LoRA costs on the bundled model: attaching and fusing it, and a run with it, paired with a run without.

Rank 8 on every linear layer of the attentions (the widest usual choice), random values; plans eager and prepacked.

    python benchmarks/lora.py [rounds]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import over, paired, write
from safetensors.torch import save_file

import ldmkit
from ldmkit.contracts.nn import layer_of

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 15
RANK = 8
CALL: dict[str, Any] = {"steps": 8, "sampler": "euler", "guidance": 4.0, "seeds": [0]}
TEXT = {"text": "a tree by a lake at dusk"}


def made(pipe: ldmkit.Pipeline, path: Path) -> Path:
    """A file with kohya's keys, in sgm's names of the layers, for all of the transformer blocks."""
    from ldmkit_checkpoints.diffusers.unet_keys import unet_diffusers

    config: Any = pipe.denoiser.config
    tensors: dict[str, torch.Tensor] = {}
    for key, entry in unet_diffusers(config).items():
        port = f"linear.{key.removesuffix('.weight')}"
        if ".blocks." not in key or port not in pipe.denoiser.ports:
            continue
        layer = layer_of(pipe.denoiser, pipe.denoiser.ports, port)
        assert layer is not None
        flat = "lora_unet_" + entry.keys[0].removesuffix(".weight").replace(".", "_")
        outputs, inputs = layer.weight.shape[:2]
        tensors[f"{flat}.lora_down.weight"] = torch.randn(RANK, inputs) * 0.05
        tensors[f"{flat}.lora_up.weight"] = torch.randn(outputs, RANK) * 0.05
    save_file(tensors, path)
    return path


def main() -> None:
    """Measure and write the rows."""
    torch.set_num_threads(1)
    plain, base = ldmkit.load("miniworld"), ldmkit.load("miniworld")  # packed blocks with taps run eagerly, for all
    file = made(plain, Path(tempfile.mkdtemp()) / "lora.safetensors")
    began = time.perf_counter()
    attached = base.with_lora(file)
    attach = time.perf_counter() - began
    began = time.perf_counter()
    fused = attached.fused()
    fuse = time.perf_counter() - began
    rows: list[dict[str, Any]] = [
        {"what": f"attach a file of {len(attached.adapters['lora'].taps('lora'))} layers", "ms": round(attach * 1e3)},
        {"what": "fuse it", "ms": round(fuse * 1e3)},
    ]
    for plan in ("eager", "prepacked"):
        ways = {
            "attached": attached.planned(plan),
            "fused": fused.planned(plan),
            "plain": plain.planned(plan),
        }
        calls = {name: (lambda pipe=pipe: pipe(TEXT, **CALL)) for name, pipe in ways.items()}
        times = paired(calls, ROUNDS)
        for name in ("attached", "fused"):
            ratio = over(times, name, "plain")
            rows.append({"what": f"{name}, {plan}: a run over one without", "ratio": ratio})
    write("lora", rows, rounds=ROUNDS, rank=RANK)


if __name__ == "__main__":
    main()
