"""What an IP-Adapter costs on the bundled model: attaching it, and a run with it, paired with a run without.

A plain one (4 tokens), two pictures given as embeddings, with and without regions; plans eager and prepacked.

    python benchmarks/ip_adapter.py [rounds]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import over, paired, write
from ldmkit_checkpoints.ip_adapter.keys import cross_attentions
from safetensors.torch import save_file

import ldmkit

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 15
SOURCE = 1024
CALL: dict[str, Any] = {"steps": 8, "sampler": "euler", "guidance": 4.0, "seeds": [0], "size": 64}
TEXT = {"text": "a tree by a lake at dusk"}
PICTURES = {**TEXT, "ip-image": torch.randn(2, SOURCE)}


def made(pipe: ldmkit.Pipeline, path: Path) -> Path:
    """A plain adapter's file with random values."""
    config: Any = pipe.denoiser.config
    dim = config.context_dim
    tensors = {
        "image_proj.proj.weight": torch.randn(4 * dim, SOURCE) / 32,
        "image_proj.proj.bias": torch.zeros(4 * dim),
    }
    tensors |= {"image_proj.norm.weight": torch.ones(dim), "image_proj.norm.bias": torch.zeros(dim)}
    for i, (_, width) in enumerate(cross_attentions(config)):
        for part in "kv":
            tensors[f"ip_adapter.{2 * i + 1}.to_{part}_ip.weight"] = torch.randn(width, dim) / 8
    save_file(tensors, path)
    return path


def main() -> None:
    """Measure and write the rows."""
    torch.set_num_threads(1)
    plain, base = ldmkit.load("miniworld"), ldmkit.load("miniworld")  # packed blocks with taps run eagerly, for all
    file = made(plain, Path(tempfile.mkdtemp()) / "ip.safetensors")
    began = time.perf_counter()
    attached = base.with_adapter_file(file)
    attach = time.perf_counter() - began
    count = len(attached.adapters["ip"].taps("ip"))
    rows: list[dict[str, Any]] = [{"what": f"attach a file of {count} attentions", "ms": round(attach * 1e3)}]
    masks = {"ip-region": [torch.ones(64, 64)] * 2}
    for plan in ("eager", "prepacked"):
        with_adapter, without = attached.planned(plan), plain.planned(plan)
        calls = {
            "with two pictures": lambda pipe=with_adapter: pipe(PICTURES, **CALL),
            "with two pictures and regions": lambda pipe=with_adapter: pipe({**PICTURES, **masks}, **CALL),
            "attached, without a picture": lambda pipe=with_adapter: pipe(TEXT, **CALL),
            "plain": lambda pipe=without: pipe(TEXT, **CALL),
        }
        times = paired(calls, ROUNDS)
        for name in list(calls)[:-1]:
            ratio = over(times, name, "plain")
            rows.append({"what": f"{name}, {plan}: a run over one without", "ratio": ratio})
    write("ip_adapter", rows, rounds=ROUNDS)


if __name__ == "__main__":
    main()
