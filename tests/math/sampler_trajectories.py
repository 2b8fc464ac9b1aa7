"""Trajectories of our own samplers, as they are kept in tests/goldens/ours/samplers: one JSON file a sampler, one entry
a revision and configuration.

`python tests/math/sampler_trajectories.py` writes the entries that are missing and leaves all others as they are, so a
change of a sampler's numbers is accepted as a new revision: docs/samplers.md says how. An entry holds the state (2
samples of 3 numbers) after each transition on a Gaussian mixture: of an ordinary run in float64 and in float32, and of
one in float64 that starts where flows do and does not end at 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias, get_args

import torch
from torch import Tensor

from ldmkit import Denoised, DenoiseWrapper, Need
from ldmkit.contracts.sampler import Sampler
from ldmkit.plugins.catalogue import catalogue, get
from ldmkit.testing.sampler.mixture import Mixture

Rows: TypeAlias = list[list[float]]

FOLDER = Path(__file__).parents[1] / "goldens" / "ours" / "samplers"
ORDINARY = (14.0, 6.0, 2.4, 0.9, 0.3, 0.05, 0.0)
"""Uneven, and across the default intervals of `restart` and `churn`."""
FAR = (2.0**20, 3.0, 0.5, 0.07)
RUNS = {"float64": (ORDINARY, torch.float64), "float32": (ORDINARY, torch.float32), "far": (FAR, torch.float64)}
SHAPE = (2, 3)


def waves(*shape: int, phase: float) -> Tensor:
    """Numbers of about unit size that do not depend on any library's random generator; float64."""
    values = [1.5 * math.sin(1.7 * i * i + 2.3 * i + phase) for i in range(math.prod(shape))]
    return torch.tensor(values, dtype=torch.float64).view(shape)


MIXTURE = Mixture(waves(3, 3, phase=0.4), torch.tensor([0.02, 0.09, 0.2], dtype=torch.float64))


def names() -> list[str]:
    """All in-tree samplers."""
    return sorted(e.name for e in catalogue() if e.kind == "sampler" and e.dist == "ldmkit")


def revisions(name: str) -> tuple[int, ...]:
    """Those that a sampler has on offer."""
    return get_args(get("sampler", name).model_fields["revision"].annotation)


def entries(name: str) -> dict[str, Sampler]:
    """Every revision of a sampler with each of its examples, by the text that names it in the file."""
    cls, found = get("sampler", name), {}
    for revision in revisions(name):
        for example in cls.examples:
            config = {**example.config, "revision": revision}
            found[json.dumps(config, sort_keys=True)] = cls.of(config)
    return found


class Told(DenoiseWrapper):
    """The mixture as a guided model: one of its components without conditions, and a learned variance."""

    def estimate(self, x: Tensor, sigma: float, *needs: Need) -> Denoised:
        return Denoised(self.denoise(x, sigma), MIXTURE.component(0).denoise(x, sigma), x.sigmoid())


def trajectory(sampler: Sampler, sigmas: Sequence[float], dtype: torch.dtype) -> Tensor:
    """States after each transition, (transitions, 6)."""
    x = (waves(*SHAPE, phase=0.1) * sigmas[0]).to(dtype)
    run = sampler.steps(Told(MIXTURE.denoise), x, sigmas, lambda i: waves(*SHAPE, phase=3.0 + i).to(dtype))
    return torch.stack([step.x.flatten() for step in run])


def read(name: str) -> dict[str, dict[str, Rows]]:
    """The kept trajectories of a sampler; none where there is no file."""
    path = FOLDER / f"{name}.json"
    kept: dict[str, dict[str, Rows]] = json.loads(path.read_text()) if path.exists() else {}
    return kept


def write(name: str, kept: dict[str, dict[str, Rows]]) -> None:
    """One line a transition, so that a change shows where it begins."""
    parts = []
    for key in sorted(kept):
        runs = []
        for run, rows in kept[key].items():
            lines = ",\n".join(f"      {json.dumps(row)}" for row in rows)
            runs.append(f'    "{run}": [\n{lines}\n    ]')
        parts.append(f"  {json.dumps(key)}: {{\n" + ",\n".join(runs) + "\n  }")
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text("{\n" + ",\n".join(parts) + "\n}\n")


def main() -> None:
    """Write what is missing."""
    for name in names():
        kept = read(name)
        missing = {key: sampler for key, sampler in entries(name).items() if key not in kept}
        for key, sampler in missing.items():
            kept[key] = {run: trajectory(sampler, *how).tolist() for run, how in RUNS.items()}
            print(f"{name} {key}: written")
        if missing:
            write(name, kept)


if __name__ == "__main__":
    main()
