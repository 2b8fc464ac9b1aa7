"""All hooks: two that count, and a reader for a small format of its own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import ldmkit

COUNTS: Counter[str] = Counter()
PARTS = {
    "codec": {"type": "v1-fold"},
    "denoiser": {"type": "v1-mixer"},
    "process": {"type": "v1-angle"},
    "conditioners": {"palette": {"type": "v1-palette"}},
    "defaults": {
        "sampler": {"type": "v1-midpoint"},
        "grid": {"type": "v1-arc"},
        "guidance": {"type": "v1-blend"},
        "steps": 3,
        "size": [8, 8],
    },
}


@ldmkit.hookimpl
def ldmkit_pipeline_built(pipeline: ldmkit.Pipeline) -> None:
    COUNTS["pipelines"] += 1


@ldmkit.hookimpl
def ldmkit_step(pipeline: ldmkit.Pipeline, step: ldmkit.Step) -> None:
    COUNTS["steps"] += 1


@ldmkit.hookimpl
def ldmkit_identify_checkpoint(path: Path, config: Path | None, ema: bool | None) -> ldmkit.Source | None:
    return Seeded(path) if path.suffix == ".v1seed" else None


class Seeded(ldmkit.Source):
    """A file `{"seed": 3}`: a pipeline of the parts of this distribution, its weights drawn from the seed."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.seed = int(json.loads(path.read_text())["seed"])

    @property
    def spec(self) -> ldmkit.PipelineSpec:
        return ldmkit.PipelineSpec.read(PARTS)

    def tensors(self, part: str) -> Mapping[str, ldmkit.LazyTensor]:
        kind, _, name = part.partition(".")
        wanted = PARTS["conditioners"][name] if name else PARTS[kind]
        made = ldmkit.get("conditioner" if name else kind, wanted["type"])()
        tensors = {}
        for key, value in made.state_dict().items():
            noise = ldmkit.Noise([self.seed], value.shape)(0, f"{part}.{key}")[0]
            tensors[key] = ldmkit.LazyTensor.of(noise * 0.1)
            self.report.used[f"{part}.{key}"] = part
        return tensors
