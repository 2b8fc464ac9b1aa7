"""Weights of the variational bound, and the losses made of them, against the original's, to 1e-5."""

from __future__ import annotations

import math

import pytest
import torch
from golden_network import Golden, golden, gw
from ldmkit_training.stages.denoiser.weightings import elbo_weights
from torch import Tensor

from ldmkit import diffusion_loss

MODELS = ["ldm_celeba256", "sd_v1"]


def rows(model: Golden, norm: str) -> Tensor:
    x0, noise = model.tensor("q.x0"), model.tensor("q.noise")
    sigma = [model.process.table.sigmas[int(t)] for t in model.tensor("loss.t")]
    signals = model.conditioning(x0.shape[0]).view()
    with torch.no_grad():
        return diffusion_loss(model.unet, model.process, x0, signals, noise=noise, sigma=sigma, norm=norm)


@pytest.mark.parametrize("name", MODELS)
def test_weights_of_the_bound(name: str) -> None:
    model = golden(name)
    model.close("schedule.lvlb_weights", torch.tensor(elbo_weights(model.process)), 1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_losses_with_the_bound_and_a_variance(name: str) -> None:
    model = golden(name)
    timesteps = model.tensor("loss.t").long()
    bound = torch.tensor(elbo_weights(model.process))[timesteps]
    for norm in ("l1", "l2"):
        model.close(f"loss.{norm}_vlb", (bound * rows(model, norm)).mean(), 1e-5)
    plain = rows(model, model.manifest["loss_type"])
    weighted = 0.7 * (plain / math.exp(0.2) + 0.2).mean() + 1e-3 * (bound * plain).mean()
    model.close("loss.weighted", weighted, 1e-5)
    logvar = torch.as_tensor(gw.golden_tensor("logvar", (1000,)))[timesteps]
    model.close("loss.logvar", (plain / logvar.exp() + logvar).mean(), 1e-5)
