"""The first stage's losses against the original's, to 1e-5 or four times the reference's own rounding.

Gradients get 1e-3, what their norms enter 1e-4: they pass through |x - y| and ReLUs, whose slopes flip where
rounding (3e-6 in the reconstruction) crosses 0.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from ldmkit_checkpoints.compvis.vae_config import first_stage_from_compvis
from ldmkit_checkpoints.compvis.vae_keys import kl_compvis_keys, vq_compvis_keys
from ldmkit_codecs.kl import KLCodec
from ldmkit_codecs.vq import VQCodec
from ldmkit_training.stages.codec.discriminator import (
    PatchDiscriminator,
    adaptive_weight,
    discriminator_loss,
    generator_loss,
)
from ldmkit_training.stages.codec.lpips import LPIPS
from ldmkit_training.stages.codec.section import CodecObjective
from ldmkit_training.stages.codec.turns import CodecTurn, DiscriminatorTurn, Read
from torch import Tensor

from ldmkit import Batch, Draws

GOLDENS = Path(__file__).parents[1] / "goldens"
sys.path.append(str(GOLDENS))

import golden_weights as gw  # noqa: E402

MANIFEST, ARRAYS = gw.load_model_dir(str(GOLDENS / "losses"))


def tensor(name: str) -> Tensor:
    return torch.from_numpy(np.asarray(ARRAYS[name]))


def close(name: str, got: Any, tolerance: float = 1e-5) -> None:
    ok, error = gw.compare(MANIFEST, ARRAYS, name, got, tolerance)
    assert ok and error <= max(tolerance, 4 * MANIFEST["arrays"][name]["noise_rel"]), f"{name}: {error:.2e}"


def discriminator(list_name: str, prefix: str, layers: int = 3, width: int = 64) -> PatchDiscriminator:
    made = PatchDiscriminator(layers, width, "batch")
    keys = {
        key.removeprefix("discriminator."): tuple(shape)
        for key, shape in MANIFEST["key_lists"][list_name]
        if not key.startswith(("perceptual_loss.", "logvar"))
    }
    assert {key: tuple(value.shape) for key, value in made.state_dict().items()} == keys
    learned = {key: gw.golden_tensor(prefix + key, value.shape) for key, value in made.named_parameters()}
    made.load_state_dict(learned, strict=False)
    return made


@cache
def lpips() -> LPIPS:
    made = LPIPS()
    keys = [(k, s) for k, s in MANIFEST["key_lists"]["LPIPSWithDiscriminator_n3"] if k.startswith("perceptual_loss.")]
    state = {key: gw.golden_tensor(key, shape) for key, shape in keys if "scaling_layer" not in key}
    from ldmkit_training.stages.codec.lpips import _native  # the published names, without a file of 60 MB

    made.load_state_dict({_native(key): value for key, value in state.items()})
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize("layers", [2, 3])
def test_discriminator_has_the_published_keys(layers: int) -> None:
    made = PatchDiscriminator(layers, 64, "batch").state_dict()
    want = [(key, tuple(shape)) for key, shape in MANIFEST["key_lists"][f"discriminator_n{layers}"]]
    assert [(key, tuple(value.shape)) for key, value in made.items()] == want


def test_discriminator() -> None:
    made = discriminator("disc_reduced_ndf16_n3", "disc.", width=16)
    with torch.no_grad():
        close("disc.logits_eval", made.eval()(tensor("disc.image")))
        close("disc.logits_train", made.train()(tensor("disc.image")))
    close("disc.running_mean", made.main[3].running_mean)
    close("disc.running_var", made.main[3].running_var)


def test_adversarial_losses() -> None:
    real, fake = tensor("gan.logits_real"), tensor("gan.logits_fake")
    close("gan.hinge_d", discriminator_loss(real, fake, "hinge"))
    close("gan.vanilla_d", discriminator_loss(real, fake, "vanilla"))
    close("gan.generator", generator_loss(fake))


def test_lpips() -> None:
    with torch.no_grad():
        close("lpips.value", lpips()(tensor("lpips.a"), tensor("lpips.b")).view(2, 1, 1, 1))


@dataclass(frozen=True, slots=True)
class Given(Draws):
    """Draws that were made elsewhere."""

    noise: Tensor | None = None

    def normal(self, purpose: str, shape: Any) -> Tensor:
        return torch.zeros(len(self.rows), *shape) if self.noise is None else self.noise


def codec(name: str) -> KLCodec | VQCodec:
    kind, config = first_stage_from_compvis(yaml.safe_load((GOLDENS / name / "config.yaml").read_text())["model"])
    made: KLCodec | VQCodec = KLCodec(config) if kind == "kl" else VQCodec(config)
    keymap = kl_compvis_keys(made.config) if isinstance(made, KLCodec) else vq_compvis_keys(made.config)
    shapes = {key: tuple(s) for key, s in gw.load_model_dir(str(GOLDENS / name))[0]["reduced_keys"]}
    state = {n: e.read(*(gw.golden_tensor(key, shapes[key]) for key in e.keys)) for n, e in keymap.items()}
    made.load_state_dict(state)
    return made


def batch(images: Tensor, noise: Tensor | None = None) -> Batch:
    draws = Given(0, 0, tuple(range(len(images))), noise)
    return Batch(("a", "b"), images, None, None, [{}, {}], (32, 48), draws)


@pytest.mark.parametrize("step", [0, 50001, 50002])
def test_kl_loss(step: int) -> None:
    objective = CodecObjective.of(
        {
            "reduction": "sum",
            "learn_logvar": True,
            "logvar": 0.1,
            "perceptual": {"type": "lpips"},
            "discriminator": {"start": 50001, "weight": 0.5, "norm": "batch"},
        }
    )
    made, adversary = codec("first_stage_kl_f4"), discriminator("discriminator_n3", "discriminator.").eval()
    if step == 50002:
        with torch.no_grad():
            adversary.main[-1].weight.mul_(500)
    turn = CodecTurn(made, objective, Read(lpips(), adversary))
    given = batch(tensor("kl.image"), tensor("kl.noise"))
    loss = turn(given, step)
    name = f"kl.step{step}"
    close(f"{name}.total", loss.total)
    close(f"{name}.kl_loss", loss.terms["kl"])
    close(f"{name}.nll_loss", loss.parts["pixel"] + loss.parts["perceptual"])
    if step:
        close(f"{name}.g_loss", loss.terms["adversarial"])
        close(f"{name}.d_weight", loss.terms["adversarial_weight"], 1e-4)
    else:
        assert "adversarial" not in loss.parts
    loss.total.backward()
    close(f"{name}.grad_last_layer", made.last_layer.grad, 1e-3)
    close(f"{name}.grad_conv_in", made.encoder.conv_in.weight.grad.norm(), 1e-4)
    assert all(p.grad is None for p in adversary.parameters())

    other = DiscriminatorTurn(adversary, objective.discriminator, made)
    assert other.active(step) == (step > 0)
    found = other(given, step)
    close(f"{name}.logits_real", found.terms["logits_real"])
    close(f"{name}.logits_fake", found.terms["logits_fake"])
    if step:
        close(f"{name}.disc_loss", found.total)


def test_adaptive_weight_before_its_start_sits_at_its_clamp() -> None:
    last = torch.nn.Parameter(torch.ones(3))
    assert adaptive_weight((last * 1e3).sum() * 1e3, (last * 1e-6).sum(), last) == 1e4


def test_vq_loss() -> None:
    section = {"layers": 2, "start": 0, "weight": 0.75, "norm": "batch"}
    objective = CodecObjective.of({"perceptual": {"type": "lpips"}, "discriminator": section})
    made, adversary = codec("first_stage_vq_f4"), discriminator("VQLPIPSWithDiscriminator_n2", "discriminator.", 2)
    turn = CodecTurn(made, objective, Read(lpips(), adversary.eval()))
    given = batch(tensor("vq.image"))
    loss = turn(given, 10)
    close("vq.total", loss.total)
    close("vq.quant_loss", loss.terms["codebook"])
    close("vq.nll_loss", loss.parts["pixel"] + loss.parts["perceptual"])
    close("vq.p_loss", loss.terms["perceptual"])
    close("vq.g_loss", loss.terms["adversarial"])
    close("vq.d_weight", loss.terms["adversarial_weight"], 1e-4)
    loss.total.backward()
    close("vq.grad_last_layer", made.last_layer.grad, 1e-3)
    close("vq.grad_codebook", made.codebook.embedding.weight.grad, 1e-3)
    close("vq.grad_conv_in", made.encoder.conv_in.weight.grad.norm(), 1e-4)
    close("vq.disc_loss", DiscriminatorTurn(adversary, objective.discriminator, made)(given, 10).total)
