"""Guidance by disturbed networks against diffusers' networks with its own hooks, its guiders, its pipeline; float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import diffusers
import diffusers.guiders as theirs
import pytest
import torch
from diffusers.hooks import LayerSkipConfig
from diffusers.hooks.layer_skip import apply_layer_skip
from diffusers.hooks.smoothed_energy_guidance_utils import (
    SmoothedEnergyGuidanceConfig,
    _apply_smoothed_energy_guidance_hook,
    _gaussian_blur_2d,
)
from diffusers.models.attention_processor import PAGIdentitySelfAttnProcessor2_0
from ldmkit_processes.discrete import Discrete
from ldmkit_processes.guidance.blur import blurred, map_size
from ldmkit_processes.guidance.perturbed import PAG, SEG, SLG, Disturbing
from ldmkit_samplers.ddim import DDIM
from ldmkit_samplers.grids.timesteps import Leading
from test_unet_diffusers import CROSS, adopted, far, normal, seeded
from torch import Tensor

from ldmkit import CompositionError, Conditioning, Encoded, InputError, Perturbed, Run, Tokens
from ldmkit.run.denoise import Evaluator, Guided

PROCESS = Discrete()
SIGMA = PROCESS.sigma_of_time(500.0)
TEXT, EMPTY = normal(2, 5, 24, seed=3), normal(2, 5, 24, seed=4)
X = normal(2, 4, 8, 8, seed=5) * 3
MIDDLE = "mid_block.attentions.0.transformer_blocks"


@cache
def ours(name: str = "sd1") -> Any:
    return adopted(seeded("UNet2DConditionModel", CROSS[name]))[0]


def evaluator(name: str = "sd1", sigmas: tuple[float, ...] = (SIGMA, 0.0)) -> Evaluator:
    unet = ours(name)
    parts = (Encoded("text", "context", Tokens(TEXT), Tokens(EMPTY)),)
    return Evaluator(unet, PROCESS, Conditioning(parts, unet.slots), Run(sigmas, (8, 8)))


def output(x0: Tensor, sigma: float = SIGMA) -> Tensor:
    skip, out, _ = PROCESS.scalings(sigma)
    return (x0 - skip * X) / out


def oracle(tokens: Tensor, name: str = "sd1", disturb: Callable[[Any], None] = lambda net: None) -> Tensor:
    """F of diffusers' network with one of its own disturbances."""
    net = seeded("UNet2DConditionModel", CROSS[name])
    disturb(net)
    with torch.no_grad():
        return net(X * PROCESS.alpha(SIGMA), torch.tensor(500.0).double(), tokens).sample  # type: ignore[no-any-return]


def identity(net: Any) -> None:
    """The oracle's processor disturbs the second half of a batch; here all of it."""

    class Both(PAGIdentitySelfAttnProcessor2_0):
        def __call__(self, attn: Any, hidden_states: Tensor, *more: Any, **named: Any) -> Tensor:
            return super().__call__(attn, torch.cat([hidden_states] * 2), *more, **named).chunk(2)[1]  # type: ignore[no-any-return]

    for path, module in net.named_modules():
        if path.startswith("mid_block") and path.endswith("attn1"):
            module.processor = Both()


def skipped(net: Any) -> None:
    apply_layer_skip(net, LayerSkipConfig(indices=[0], fqn=MIDDLE))


def smoothed(net: Any) -> None:
    """Its comparison of blur and threshold is the wrong way round: any finite blur is the mean."""
    config = SmoothedEnergyGuidanceConfig(indices=[0], fqn=MIDDLE)
    _apply_smoothed_energy_guidance_hook(net, config, blur_sigma=3.0)


CASES: dict[str, tuple[Disturbing, Callable[[Any], None]]] = {
    "pag": (PAG(), identity),
    "seg": (SEG(), smoothed),
    "slg": (SLG(), skipped),
}


@pytest.mark.parametrize("network", ["sd1", "sd2"])
@pytest.mark.parametrize("name", CASES)
def test_the_disturbed_network_is_theirs(name: str, network: str) -> None:
    """1e-9 of the largest value; and it is another function than the undisturbed one."""
    guidance, disturb = CASES[name]
    view = Perturbed(taps=guidance._taps(evaluator(network)))
    disturbed, plain = evaluator(network)(X, SIGMA, view, frozenset())
    assert far(output(plain), oracle(TEXT, network)) < 1e-9
    assert far(output(disturbed), oracle(TEXT, network, disturb)) < 1e-9
    assert far(disturbed, plain) > 1e-4


GUIDERS: dict[str, Callable[[float, float], Any]] = {
    "pag": lambda s, p: theirs.PerturbedAttentionGuidance(s, p, 0.0, 1.0, perturbed_guidance_layers=[0]),
    "seg": lambda s, p: theirs.SmoothedEnergyGuidance(
        s, p, seg_guidance_start=0.0, seg_guidance_stop=1.0, seg_guidance_layers=[0]
    ),
    "slg": lambda s, p: theirs.SkipLayerGuidance(s, p, 0.0, 1.0, skip_layer_guidance_layers=[0]),
}  # fmt: skip


@pytest.mark.parametrize("rescale", [0.0, 0.7])
@pytest.mark.parametrize("name", GUIDERS)
def test_the_whole_rule_is_their_guiders(name: str, rescale: float) -> None:
    guidance, disturb = CASES[name]
    options = {"scale": 5.0, "strength": 2.5, "rescale": rescale, "space": "output"}
    guidance = guidance.model_copy(update={**options, "disturbed_start": 0.0, "disturbed_end": 1.0})
    guider = GUIDERS[name](5.0, 2.5)
    guider.guidance_rescale = rescale
    guider.set_state(step=3, num_inference_steps=10, timestep=torch.tensor(500))
    guider._step, guider._count_prepared = 3, 3
    wanted = guider.forward(oracle(TEXT), oracle(EMPTY), oracle(TEXT, disturb=disturb)).pred
    assert far(output(Guided(evaluator(), guidance)(X, SIGMA)), wanted) < 1e-9


def test_a_run_is_that_of_their_pag_pipeline() -> None:
    """Four steps of DDIM: 1e-6 of the largest value, their scheduler's tables being float32."""
    unet = seeded("UNet2DConditionModel", {**CROSS["sd1"], "sample_size": 8})
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    vae = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=2, latent_channels=4).double()
    pipe = diffusers.StableDiffusionPAGPipeline(
        vae, None, None, unet, scheduler, None, None, requires_safety_checker=False, pag_applied_layers=["mid"]
    )
    pipe.set_progress_bar_config(disable=True)
    z = normal(2, 4, 8, 8, seed=8)
    wanted = pipe(
        prompt_embeds=TEXT, negative_prompt_embeds=EMPTY, latents=z, guidance_scale=4.0, pag_scale=2.0,
        num_inference_steps=4, output_type="latent", height=8 * pipe.vae_scale_factor, width=8 * pipe.vae_scale_factor,
    ).images  # fmt: skip
    sigmas = Leading(offset=1).sigmas(PROCESS, 4)
    denoise = Guided(evaluator(sigmas=tuple(sigmas)), PAG(scale=4.0, strength=2.0))
    *_, step = DDIM().steps(denoise, PROCESS.prior(z, sigmas[0]), sigmas, lambda i: z)
    assert far(PROCESS.settled(step.x, step.sigma_next), wanted) < 1e-6


@pytest.mark.parametrize("deviation", [0.5, 1.0, 2.5, 40.0])
@pytest.mark.parametrize("side", [2, 7, 8])
def test_the_blur_is_theirs_on_square_maps(deviation: float, side: int) -> None:
    """Their function in its blurring branch; 1e-6: its kernel is float32."""
    tokens = normal(2, 3, side * side, 4)
    flat = tokens.permute(0, 2, 1, 3).reshape(2, side * side, 12)
    kernel = -(-6 * deviation // 1)
    wanted = _gaussian_blur_2d(flat.clone(), int(kernel + 1 - kernel % 2), deviation, -1.0)
    found = blurred(tokens, (side, side), deviation).permute(0, 2, 1, 3).reshape(flat.shape)
    assert far(found, wanted) < 1e-6


def test_maps_that_are_not_square_have_their_own_sides() -> None:
    assert map_size((8, 12), 24) == (4, 6) and map_size((13, 8), 28) == (7, 4) and map_size((13, 8), 24) == (6, 4)
    with pytest.raises(InputError, match="77 tokens are no map"):
        map_size((8, 12), 77)
    rows = torch.arange(6.0).double().view(1, 1, 6, 1)  # 2 x 3: each row has its own mean along the width
    found = blurred(rows, (2, 3), 0.3).view(2, 3)
    assert torch.allclose(found.mean(), rows.mean()) and float(found[0].max()) < float(found[1].min())


def test_no_port_and_no_other_run_is_touched() -> None:
    """Ports, weights and keys are as before; a view's taps act on its rows alone, also beside a tap of an adapter."""
    unet, evaluate = ours(), evaluator()
    keys = list(unet.state_dict())
    plain = evaluate(X, SIGMA, frozenset())[0]
    view = Perturbed(taps=PAG()._taps(evaluate))
    seen = evaluate(X, SIGMA, view, frozenset(), view, frozenset({"text"}))
    assert torch.equal(seen[0], seen[2]) and not torch.allclose(seen[0], plain)
    assert torch.allclose(seen[1], plain, rtol=1e-12, atol=1e-12)
    assert all(not port.taps for port in unet.ports.values()) and list(unet.state_dict()) == keys
    assert torch.equal(evaluator()(X, SIGMA, frozenset())[0], plain)
    empty = Perturbed(drop=frozenset({"text"}), taps=view.taps)
    assert far(output(evaluate(X, SIGMA, empty)[0]), oracle(EMPTY, disturb=identity)) < 1e-9


def test_layers_and_ports_that_are_not_there_are_refused() -> None:
    evaluate = evaluator()
    with pytest.raises(CompositionError, match="no self-attention with a port at 'middle'"):
        PAG(layers=("middle",))(evaluate, X, SIGMA)
    with pytest.raises(CompositionError, match="there is no port"):
        evaluate(X, SIGMA, Perturbed(taps=(("attn.nowhere", PAG().tap()),)))
    for path in ("down", "down.1.attn.0", "up.1"):
        assert PAG(layers=(path,), scale=1.0)(evaluate, X, SIGMA).isfinite().all()
