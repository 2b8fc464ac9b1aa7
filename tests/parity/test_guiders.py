"""Guidance in both spaces against diffusers' guiders, over whole runs of random estimates; float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import diffusers.guiders as theirs
import pytest
import torch
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer
from ldmkit_processes.discrete import Discrete
from ldmkit_processes.flow import Flow
from ldmkit_processes.guidance.apg import APG
from ldmkit_processes.guidance.cfg import CFG
from ldmkit_processes.guidance.per_condition import PerCondition
from ldmkit_processes.guidance.tcfg import TCFG
from ldmkit_processes.guidance.zero_star import CFGZeroStar
from torch import Tensor

from ldmkit import Guidance, Process, Run, View

STEPS = 10
SHAPE = (3, 4, 6, 5)
PROCESSES = {"eps": Discrete(), "v": Discrete(prediction="v"), "flow": Flow()}


def rand(seed: int, shape: Sequence[int] = SHAPE) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Random:
    """`evaluate` of a network whose outputs are random numbers, another pair a step; conditional and unconditional ones
    resemble each other as they do in practice."""

    names = ("text",)

    def __init__(self, process: Process, shape: Sequence[int] = SHAPE, steps: int = STEPS):
        self.process, self.shape, self.memory = process, shape, dict[Any, Any]()
        low, high = process.sigma(0.05), process.sigma(0.9)
        self.run = Run((*(high * (low / high) ** (i / (steps - 1)) for i in range(steps)), 0.0), (6, 5))

    def outputs(self, sigma: float) -> tuple[Tensor, Tensor]:
        step = self.run.sigmas.index(sigma)
        conditional = rand(2 * step, self.shape)
        return conditional, 0.8 * conditional + 0.4 * rand(2 * step + 1, self.shape)

    def x0(self, x: Tensor, sigma: float, output: Tensor) -> Tensor:
        skip, out, _ = self.process.scalings(sigma)
        return skip * x + out * output

    def __call__(self, x: Tensor, sigma: float, *views: View) -> list[Tensor]:
        conditional, without = self.outputs(sigma)
        return [self.x0(x, sigma, without if view else conditional) for view in views]


def worst(guidance: Guidance, guider: Any, process: Process, space: str, first: int = 0) -> float:
    """The largest difference to diffusers' result in any step from `first` on, relative to its largest value.

    diffusers combines what the network returns; in x0 space it is given x0 instead.
    """
    evaluate, found = Random(process), 0.0
    guider.momentum_buffer = MomentumBuffer(getattr(guider, "adaptive_projected_guidance_momentum", None) or 0.0)
    for step, sigma in enumerate(evaluate.run.sigmas[:-1]):
        x = rand(100 + step) * max(1.0, sigma)
        guider.set_state(step=step, num_inference_steps=STEPS, timestep=torch.tensor(0))
        pair = evaluate.outputs(sigma)
        if space == "x0":
            pair = tuple(evaluate.x0(x, sigma, output) for output in pair)  # type: ignore[assignment]
        wanted = guider.forward(*pair).pred
        wanted = wanted if space == "x0" else evaluate.x0(x, sigma, wanted)
        ours = guidance(evaluate, x, sigma)  # type: ignore[arg-type]
        if step >= first:
            found = max(found, float((ours - wanted).abs().max() / wanted.abs().max()))
    return found


@pytest.fixture(autouse=True)
def double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their code rounds to float32 on the way (`.float()`); it is compared in float64."""
    monkeypatch.setattr(Tensor, "float", Tensor.double)


Make = Callable[[str], Guidance]
CASES: dict[str, tuple[Make, Callable[[], Any]]] = {
    "cfg": (lambda space: CFG(scale=5.0), lambda: theirs.ClassifierFreeGuidance(5.0)),
    "rescale": (
        lambda space: CFG(scale=5.0, rescale=0.7, space=space),  # type: ignore[arg-type]
        lambda: theirs.ClassifierFreeGuidance(5.0, guidance_rescale=0.7),
    ),
    "apg as published": (
        lambda space: APG(scale=5.0, eta=0.0, momentum=-0.5, threshold=7.5, space=space),  # type: ignore[arg-type]
        lambda: theirs.AdaptiveProjectedGuidance(
            4.0, adaptive_projected_guidance_momentum=-0.5, adaptive_projected_guidance_rescale=7.5, eta=0.0,
            use_original_formulation=True,
        ),
    ),
    "apg as theirs": (
        lambda space: APG(
            scale=7.5, eta=1.0, momentum=-0.75, threshold=15.0, anchor="unconditional", space=space, rescale=0.2  # type: ignore[arg-type]
        ),
        lambda: theirs.AdaptiveProjectedGuidance(
            7.5, adaptive_projected_guidance_momentum=-0.75, guidance_rescale=0.2
        ),
    ),
    "apg without memory": (
        lambda space: APG(scale=3.0, eta=0.3, momentum=0.0, threshold=0.0, anchor="unconditional", space=space),  # type: ignore[arg-type]
        lambda: theirs.AdaptiveProjectedGuidance(3.0, adaptive_projected_guidance_rescale=0.0, eta=0.3),
    ),
    "zero star": (
        lambda space: CFGZeroStar(scale=5.0, zero_steps=2, space=space),  # type: ignore[arg-type]
        lambda: theirs.ClassifierFreeZeroStarGuidance(5.0, zero_init_steps=2),
    ),
    "zero star, rescaled": (
        lambda space: CFGZeroStar(scale=0.5, zero_steps=0, rescale=0.4, space=space),  # type: ignore[arg-type]
        lambda: theirs.ClassifierFreeZeroStarGuidance(0.5, zero_init_steps=0, guidance_rescale=0.4),
    ),
    "tcfg": (
        lambda space: TCFG(scale=5.0, space=space),  # type: ignore[arg-type]
        lambda: theirs.TangentialClassifierFreeGuidance(5.0),
    ),
    "tcfg, rescaled": (
        lambda space: TCFG(scale=2.0, rescale=0.9, space=space),  # type: ignore[arg-type]
        lambda: theirs.TangentialClassifierFreeGuidance(2.0, guidance_rescale=0.9),
    ),
}  # fmt: skip


@pytest.mark.parametrize("prediction", PROCESSES)
@pytest.mark.parametrize("space", ["x0", "output"])
@pytest.mark.parametrize("name", CASES)
def test_every_rule_is_diffusers_in_both_spaces(name: str, space: str, prediction: str) -> None:
    """1e-9 of the largest value, where 1e-6 was asked for: the arithmetic is the same but for its order."""
    ours, guider = CASES[name]
    first = 2 if name == "zero star, rescaled" else 0
    assert worst(ours(space), guider(), PROCESSES[prediction], space, first) < 1e-9


@pytest.mark.parametrize("name", [name for name in CASES if name != "cfg"])
def test_the_space_matters_but_for_plain_guidance(name: str) -> None:
    """The power of the comparison: in the other space each of them is far away. Plain CFG is the same in both."""
    ours, guider = CASES[name]
    assert worst(ours("x0"), guider(), PROCESSES["eps"], "output") > 1e-2
    cfg, plain = CASES["cfg"]
    assert worst(cfg("x0"), plain(), PROCESSES["eps"], "output") < 1e-9


@pytest.mark.parametrize("guidance", [APG(momentum=0.0), CFGZeroStar(zero_steps=0), TCFG()], ids=repr)
def test_parts_of_a_run_in_fractions_are_steps(guidance: Any) -> None:
    """start 0.3 and end 0.7 of ten steps are steps 3 to 6, as diffusers counts them; the interval is in sigma."""
    part = guidance.model_copy(update={"start": 0.3, "end": 0.7})
    evaluate = Random(PROCESSES["eps"])
    sigmas = evaluate.run.sigmas
    band = guidance.model_copy(update={"interval": (sigmas[7], sigmas[3])})
    for step, sigma in enumerate(sigmas[:-1]):
        x = rand(100 + step)
        plain, full = evaluate(x, sigma, frozenset())[0], guidance(evaluate, x, sigma)
        for some in (part, band):
            assert torch.equal(some(evaluate, x, sigma), full if 3 <= step < 7 else plain), step
    off = theirs.ClassifierFreeGuidance(start=0.3, stop=0.7)
    acting = []
    for step in range(STEPS):
        off.set_state(step=step, num_inference_steps=STEPS, timestep=torch.tensor(0))
        acting.append(off.num_conditions == 2)
    assert acting == [3 <= step < 7 for step in range(STEPS)]


def test_a_scale_of_one_and_no_condition() -> None:
    """1 leaves even the first steps of CFG-Zero* alone; without conditions every other scale is refused."""
    evaluate = Random(PROCESSES["flow"])
    sigma = evaluate.run.sigmas[0]
    for guidance in (APG(scale=1.0), CFGZeroStar(scale=1.0), TCFG(scale=1.0)):
        assert torch.equal(guidance(evaluate, rand(1), sigma), evaluate(rand(1), sigma, frozenset())[0])  # type: ignore[arg-type]
        assert guidance.views(["text"]) == 1
    evaluate.names = ()  # type: ignore[assignment]
    for guidance in (APG(), CFGZeroStar(), TCFG()):
        with pytest.raises(Exception, match="no condition of this model can be left out"):
            guidance(evaluate, rand(1), sigma)  # type: ignore[arg-type]


def test_per_condition_takes_the_interval_as_well() -> None:
    evaluate = Random(PROCESSES["eps"])
    sigmas = evaluate.run.sigmas
    guidance = PerCondition(scales={"text": 4.0}, interval=(sigmas[7], sigmas[3]))  # type: ignore[arg-type]
    same = [torch.equal(guidance(evaluate, rand(1), s), evaluate(rand(1), s, frozenset())[0]) for s in sigmas[:-1]]  # type: ignore[arg-type]
    assert same == [not 3 <= step < 7 for step in range(STEPS)]


@pytest.mark.parametrize("shape", [(2, 7), (2, 3, 2, 4, 4)])
def test_rules_know_no_rank(shape: tuple[int, ...]) -> None:
    """Vectors and videos are guided as the same numbers in the shape of a picture."""
    for guidance in (APG(), TCFG(), CFGZeroStar(zero_steps=0)):
        evaluate = Random(PROCESSES["flow"], shape)
        sigma, x = evaluate.run.sigmas[4], rand(1, shape)
        flat = (shape[0], 1, x[0].numel(), 1)
        other = Random(PROCESSES["flow"], flat)
        found, wanted = guidance(evaluate, x, sigma), guidance(other, x.view(flat), sigma)  # type: ignore[arg-type]
        assert torch.allclose(found.view(flat), wanted, rtol=1e-12, atol=1e-12)
