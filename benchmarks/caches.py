"""What caches save and cost on the bundled model, beside simply taking fewer steps with a better sampler.

Every row is one way to draw the same pictures from the same noise; the error is that of its latents against a run of
the same differential equation with many steps (DPM++ 2M, 200), as root mean square over the reference's. Time is the
median of paired rounds. `evaluations` are calls of the network that were made, `shortened` those that DeepCache cut.

    python benchmarks/caches.py
"""

from __future__ import annotations

import statistics
import sys
from typing import Any

import torch
from common import paired, write

import ldmkit

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5
TEXTS = ("a tree by a lake at dusk", "a red house and a yellow boat by a lake", "two trees in the snow")
GIVEN = [{"text": text} for text in TEXTS]
SEEDS = [0, 1, 2]
GUIDANCE = 4.0


def rms(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Root mean square of the difference, over that of what is wanted."""
    return round(float((found - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()), 4)


def ways(pipe: ldmkit.Pipeline) -> dict[str, tuple[ldmkit.Pipeline, dict[str, Any]]]:
    """Name -> pipeline and options of a call; the first is what the caches are put around."""
    deep = ldmkit.get("adapter", "deepcache")
    base = {"sampler": "ddim", "steps": 24}
    found: dict[str, tuple[ldmkit.Pipeline, dict[str, Any]]] = {"ddim 24": (pipe, base)}
    for interval in (2, 3):
        for branch in (0, 1):
            cut = pipe.with_adapter("cache", deep({"interval": interval, "branch": branch}), {})
            found[f"ddim 24, deepcache every {interval}, branch {branch}"] = (cut, base)
    for interval in (2, 3):
        cache = {"type": "interval", "interval": interval}
        found[f"ddim 24, cache interval {interval}"] = (pipe, {**base, "cache": cache})
        found[f"ddim 24, cache interval {interval} of noise"] = (pipe, {**base, "cache": {**cache, "keep": "noise"}})
    for threshold in (0.2, 0.4, 0.8):
        cache = {"type": "input-change", "threshold": threshold}
        found[f"ddim 24, cache input-change {threshold}"] = (pipe, {**base, "cache": cache})
    for steps in (12, 8):
        found[f"ddim {steps}"] = (pipe, {"sampler": "ddim", "steps": steps})
    for sampler in ("dpmpp-2m", "unipc"):
        for steps in (12, 8, 6):
            found[f"{sampler} {steps}"] = (pipe, {"sampler": sampler, "steps": steps})
            found[f"{sampler} {steps}, karras"] = (pipe, {"sampler": sampler, "steps": steps, "grid": "karras"})
    return found


def main() -> None:
    """Measure all ways and write the rows."""
    pipe = ldmkit.load("miniworld").planned("auto")
    common: dict[str, Any] = {"seeds": SEEDS, "guidance": GUIDANCE}
    exact = pipe(GIVEN, sampler="dpmpp-2m", steps=200, **common).latents.double()
    measured = ways(pipe)
    calls = {name: (lambda p=p, o=o: p(GIVEN, **common, **o)) for name, (p, o) in measured.items()}
    times = paired(calls, ROUNDS, warmup=1)
    uncached = calls["ddim 24"]().latents.double()
    rows = []
    for name, call in calls.items():
        out = call()
        taken, latents = out.evaluations, out.latents.double()
        assert taken is not None
        rows.append({
            "way": name,
            "evaluations": taken.made,
            "shortened": taken.shortened,
            "reused": taken.reused,
            "ms": round(statistics.median(times[name]) * 1e3, 1),
            "speedup": round(statistics.median(b / t for b, t in zip(times["ddim 24"], times[name], strict=True)), 2),
            "error": rms(latents, exact),
            "to_uncached": rms(latents, uncached),
        })  # fmt: skip
        print(rows[-1])
    write("caches", rows, rounds=ROUNDS, pictures=len(SEEDS), guidance=GUIDANCE, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
