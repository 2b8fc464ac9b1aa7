"""The original's masked sampling, which blends the known latent into the state before every step, to 1e-4.

It is not how `Start(mask=...)` works (see docs/decisions.md); that it takes four lines around a sampler shows that
what happens between steps belongs to the caller.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from golden_network import golden
from ldmkit_processes.guidance.cfg import NoGuidance
from ldmkit_samplers.ddim import DDIM
from ldmkit_samplers.grids.timesteps import LdmDdim


@pytest.mark.parametrize("name", ["ldm_celeba256", "sd_v1"])
def test_state_blended_before_every_step(name: str) -> None:
    model = golden(name)
    known, keep = model.tensor("ddim10_mask.x0"), model.tensor("ddim10_mask.mask")
    noise = model.tensor("ddim10_mask.noise")
    sigmas = LdmDdim().sigmas(model.process, 10)
    start = model.tensor("sample.xT")
    denoise = model.denoise(NoGuidance(), sigmas, start.shape[0])
    x, states = model.process.prior(start, sigmas[0]), []
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        x = x.lerp(known + sigma * noise[i], keep)
        (step,) = DDIM().steps(denoise, x, [sigma, after], lambda index: torch.empty(0))
        x = step.x
        states.append(x * model.process.alpha(after))
    model.close("ddim10_mask.x", torch.stack(states))
