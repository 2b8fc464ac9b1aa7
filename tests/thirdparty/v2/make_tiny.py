"""How `tiny`, `expected.safetensors` and `drawn.png` were made; they are kept, not made again.

python make_tiny.py src/thirdparty_v2
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

import ldmkit

INPUTS = [{"words": "hello", "shift": 0.5}, {"words": "b", "halves": [0.0, 1.0]}]


def stirred(kind: str, name: str, config: dict[str, Any] | None = None) -> Any:
    """A part with no weight at zero, as after training."""
    part = ldmkit.get(kind, name)(config or {})
    for i, parameter in enumerate(part.parameters()):
        parameter.data = 0.2 * ldmkit.Noise([5], parameter.shape)(i)[0]
    return part.eval().requires_grad_(False)


def pipeline() -> ldmkit.Pipeline:
    """Words and their mood from one table of letters, a plane, two adapters, a decoder that draws, locked defaults."""
    words, mood = stirred("conditioner", "v2-words"), stirred("conditioner", "v2-mood", {"dim": 4})
    mood.adopt(words)
    pipe = ldmkit.Pipeline.of(
        codec=stirred("codec", "v2-two-step", {"channels": 3}),
        denoiser=stirred("denoiser", "v2-ladder", {"map": 1, "variance": True}),
        process=ldmkit.get("process", "flow")(),
        conditioners={"words": words, "mood": mood, "halves": stirred("conditioner", "v2-halves")},
        wiring={"mood": {"input": "words", "shares": "words", "slot": "mood"}},
        defaults={
            "sampler": {"type": "v2-renoise"},
            "grid": {"type": "v2-sized", "config": {"base": 16}},
            "guidance": {"type": "v2-pushed", "config": {"scale": 1.5, "end": 0.7}},
            "steps": 4,
            "size": (8, 16),
            "locked": ["steps", "guidance"],
        },
    )
    layers = {"linear.query": (8, 8), "conditioners.words.linear.last": (4, 6)}
    pipe = pipe.with_adapter("lora", stirred("adapter", "v2-low-rank", {"layers": layers}), {})
    level = ldmkit.get("conditioner", "v2-guess")()
    return pipe.with_adapter("shift", stirred("adapter", "v2-shift", {"width": 8}), {"level": level})


def main(folder: Path) -> None:
    """Save the pipeline, its latents for `INPUTS` with seeds 5 and 6, and the first picture."""
    pipeline().save(folder / "tiny")
    pipe = ldmkit.load(folder / "tiny")
    out = pipe(INPUTS, seeds=[5, 6])
    save_file({"latents": out.latents.contiguous(), "images": out.images.contiguous()}, folder / "expected.safetensors")
    ldmkit.load("v2-tiny")(INPUTS[0], seeds=5).save(folder / "drawn.png", overwrite=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
