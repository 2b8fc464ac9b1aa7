"""Whole trajectories of the original samplers with the original networks (reduced), step by step, to 1e-4 in float32.

The goldens are in the process's own frame, z = alpha x. One network after the other; nothing is drawn at random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import yaml
from golden_network import GOLDENS, Golden, golden, gw
from ldmkit_adapters.controlnet import ControlNet
from ldmkit_checkpoints.compvis.controlnet import controlnet_compvis, controlnet_from_compvis
from ldmkit_processes.guidance.cfg import CFG, NoGuidance
from ldmkit_samplers.ddim import DDIM
from ldmkit_samplers.ddpm import DDPM
from ldmkit_samplers.dpmpp_2m import DPMpp2M
from ldmkit_samplers.euler import Euler
from ldmkit_samplers.grids.timesteps import LdmDdim, Linspace
from ldmkit_samplers.heun import Heun
from ldmkit_samplers.plms import PLMS
from torch import Tensor

from ldmkit import Conditioning, Encoded, Grid, Guidance, Plane, Run, Sampler, Step
from ldmkit.contracts.ports import attach
from ldmkit.run.denoise import Evaluator, Guided

MODELS = [
    "ldm_celeba256",
    "ldm_lsun_churches256",
    "ldm_cin256_v2",
    "ldm_text2img256",
    "ldm_layout2img_openimages256",
    "ldm_semantic_synthesis256",
    "ldm_bsr_sr",
    "sd_v1",
]
RUNS: dict[str, tuple[Sampler, Guidance]] = {
    "ddim10": (DDIM(), NoGuidance()),
    "ddim10_eta1": (DDIM(eta=1), NoGuidance()),
    "ddim10_cfg3": (DDIM(), CFG(scale=3)),
    "plms10": (PLMS(), NoGuidance()),
    "plms10_cfg3": (PLMS(), CFG(scale=3)),
}
SDXL: dict[str, tuple[Sampler, Guidance, int]] = {
    "euler10": (Euler(), NoGuidance(), 10),
    "euler10_cfg3": (Euler(), CFG(scale=3), 10),
    "heun5_cfg3": (Heun(), CFG(scale=3), 5),
    "dpmpp2m10_cfg3": (DPMpp2M(), CFG(scale=3), 10),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(
    model: Golden, sampler: Sampler, guidance: Guidance, grid: Grid, steps: int, noise: Callable[[int], Tensor]
) -> list[Step]:
    sigmas = grid.sigmas(model.process, steps)
    start = model.tensor("sample.xT")
    denoise = model.denoise(guidance, sigmas, start.shape[0])
    return list(sampler.steps(denoise, model.process.prior(start, sigmas[0]), sigmas, noise))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("case", RUNS)
def test_ldm_trajectories(name: str, case: str) -> None:
    model = golden(name)
    if f"{case}.x" not in model.arrays:
        pytest.skip("the original has no unconditional branch here")
    sampler, guidance = RUNS[case]
    noise = model.tensor(f"{case}.noise") if f"{case}.noise" in model.arrays else None
    steps = run(model, sampler, guidance, LdmDdim(), 10, lambda i: noise[i] if noise is not None else torch.empty(0))
    model.close(f"{case}.x", torch.stack([s.x * model.process.alpha(s.sigma_next) for s in steps]))
    if f"{case}.pred_x0" in model.arrays:
        model.close(f"{case}.pred_x0", torch.stack([s.x0 for s in steps]))


@pytest.mark.parametrize("case", SDXL)
def test_sdxl_trajectories(case: str) -> None:
    model = golden("sdxl_base")
    sampler, guidance, count = SDXL[case]
    grid = Linspace(endpoint=False, rounding="floor")
    steps = run(model, sampler, guidance, grid, count, lambda i: torch.empty(0))
    model.close(f"{case}.x", steps[-1].x)


def test_sdxl_snaps_noise_levels_to_its_table() -> None:
    model = golden("sdxl_base")
    levels, x = model.tensor("denoiser.sigma").tolist(), model.tensor("denoiser.x")
    for i, sigma in enumerate(levels):
        assert model.process.time(sigma) == int(model.arrays["denoiser.idx"][i])
        got = model.denoise(NoGuidance(), [sigma, 0.0], 2)(x, sigma)[i]
        want = model.tensor("denoiser.out")[i]
        assert float((got - want).abs().max() / want.abs().max()) < 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_ancestral_step(name: str) -> None:
    """p_sample of the original at two timesteps of its full chain, and its posterior."""
    model = golden(name)
    process, noise = model.process, model.tensor("p.noise")
    for case, times in (("p.sample", model.tensor("q.t").tolist()), ("p.sample_t0", [0, 5])):
        rows = []
        for row, t in enumerate(times):
            sigma, after = process.sigma_of_time(t), process.sigma_of_time(t - 1) if t else 0.0
            x = model.tensor("q.xt") / process.alpha(sigma)
            denoise = model.denoise(NoGuidance(), [sigma, after], x.shape[0])
            step = next(iter(DDPM().steps(denoise, x, [sigma, after], lambda i: noise)))
            rows.append(step.x[row] * process.alpha(after))
        model.close(case, torch.stack(rows))


@pytest.mark.parametrize("name", MODELS)
def test_forward_process(name: str) -> None:
    """q_sample, its posterior, and the x0 that a network's output stands for."""
    model = golden(name)
    process, times = model.process, model.tensor("q.t").tolist()
    x0, noise, z = model.tensor("q.x0"), model.tensor("q.noise"), model.tensor("q.xt")
    sigmas = [process.sigma_of_time(t) for t in times]
    states = torch.stack([x0[i] + s * noise[i] for i, s in enumerate(sigmas)])
    model.close("q.xt", torch.stack([x * process.alpha(s) for x, s in zip(states, sigmas, strict=True)]), 1e-5)
    posteriors = [process.posterior(t) for t in times]
    means = [p.on_x0 * x0[i] + p.on_z * z[i] for i, p in enumerate(posteriors)]
    model.close("q.posterior_mean", torch.stack(means), 1e-5)
    model.close("q.posterior_variance", torch.tensor([p.variance for p in posteriors]).view(-1, 1, 1, 1))
    model.close("q.posterior_log_variance", torch.tensor([p.log_variance for p in posteriors]).view(-1, 1, 1, 1))
    for i, sigma in enumerate(sigmas):
        skip, out, _ = process.scalings(sigma)
        target = process.target(x0, noise, sigmas)[i]
        assert torch.allclose(target, noise[i], rtol=1e-5, atol=1e-5)
        assert torch.allclose(skip * states[i] + out * target, x0[i], rtol=1e-4, atol=1e-4)


def controlled(model: Golden, sigmas: list[float], guidance: Guidance) -> Guided:
    """The ControlNet of the same file, its hint in both branches."""
    params = yaml.safe_load((GOLDENS / model.name / "config.yaml").read_text())["model"]["params"]
    config = controlnet_from_compvis(params["control_stage_config"]["params"])
    control, keymap = ControlNet(config).eval(), controlnet_compvis(config)
    state = gw.build_state_dict(model.manifest, model.arrays)
    weights = {name: e.read(*(state["control_model." + k] for k in e.keys)) for name, e in keymap.items()}
    control.load_state_dict(weights, strict=True)
    plain = model.conditioning(1)
    hint = Plane(model.tensor("hint")[:1].float())
    slots = {**plain.slots, "canny.hint": control.slots["hint"]}
    conditioning = Conditioning((*plain.parts, Encoded("hint", "canny.hint", hint, None)), slots)
    attach(model.unet.ports, control.taps("canny"))
    run = Run(tuple(sigmas), (16, 24))
    return Guided(Evaluator(model.unet, model.process, conditioning, run, adapters={"canny": control}), guidance)


@pytest.mark.parametrize("case", ["ddim10", "ddim10_cfg3", "ddim10_cfg3_guess"])
def test_controlnet_trajectories(case: str) -> None:
    """With the hint in both branches, and with it in the conditional one alone (guess mode, all residuals in full)."""
    model = Golden("controlnet_v15")
    sigmas = LdmDdim().sigmas(model.process, 10)
    without = model.denoise(CFG(scale=0), sigmas, 1)
    with_hint = controlled(model, sigmas, CFG(scale=3) if case == "ddim10_cfg3" else NoGuidance())
    taps = {name: port.taps for name, port in model.unet.ports.items()}

    def guess(x: Tensor, sigma: float) -> Tensor:
        conditional = with_hint(x, sigma)
        for port in model.unet.ports.values():
            port.taps = ()
        unconditional = without(x, sigma)
        for name, port in model.unet.ports.items():
            port.taps = taps[name]
        return torch.lerp(unconditional, conditional, 3)

    denoise = guess if case.endswith("guess") else with_hint
    x = model.process.prior(model.tensor("sample.xT"), sigmas[0])
    steps = list(DDIM().steps(denoise, x, sigmas, lambda i: torch.empty(0)))
    model.close(f"{case}.x", torch.stack([s.x * model.process.alpha(s.sigma_next) for s in steps]))
