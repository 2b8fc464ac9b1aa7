"""Parts that break their contract while a pipeline runs: the error names the part instead of what broke further on."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import tiny_parts
import torch

import ldmkit

CHANGES: dict[str, tuple[Callable[[torch.Tensor], Any], str]] = {
    "shape": (lambda x: x[:, :1], r"yielded \(1, 1, 8, 8\) torch.float32 on cpu for a state \(1, 3, 8, 8\)"),
    "dtype": (lambda x: x.double(), r"yielded \(1, 3, 8, 8\) torch.float64 on cpu for a state .* torch.float32"),
    "device": (
        lambda x: x.to("meta"),
        r"yielded \(1, 3, 8, 8\) torch.float32 on meta for a state .* torch.float32 on cpu",
    ),
}


class Faulty(ldmkit.Sampler):
    """Euler's method, and then one of `CHANGES`."""

    fault: str

    def steps(self, denoise: Any, x: Any, sigmas: Any, noise: Any) -> Any:
        for i, (sigma, after) in enumerate(pairwise(sigmas)):
            x0 = denoise(x, sigma)
            x = x0.lerp(x, after / sigma)
            if self.fault == "no step":
                yield x
            yield ldmkit.Step(i, len(sigmas) - 1, sigma, after, CHANGES[self.fault][0](x), x0)


@pytest.mark.parametrize("fault", CHANGES)
def test_a_step_is_like_the_state(class_pipe: ldmkit.Pipeline, fault: str) -> None:
    with pytest.raises(ldmkit.RunError, match=f"bad-step.*Faulty breaks its contract: it {CHANGES[fault][1]}"):
        class_pipe({"label": 1}, steps=2, sampler=Faulty(fault=fault))


def test_a_step_is_a_step(class_pipe: ldmkit.Pipeline) -> None:
    with pytest.raises(ldmkit.RunError, match=r"bad-step.*yielded Tensor \(an ldmkit.Step\)"):
        class_pipe({"label": 1}, steps=2, sampler=Faulty(fault="no step"))


class Short(ldmkit.Sampler):
    """Euler's method, which forgets the last `left` transitions."""

    left: int

    def steps(self, denoise: Any, x: Any, sigmas: Any, noise: Any) -> Any:
        for i, (sigma, after) in enumerate(list(pairwise(sigmas))[: -self.left]):
            x0 = denoise(x, sigma)
            x = x0.lerp(x, after / sigma)
            yield ldmkit.Step(i, len(sigmas) - 1, sigma, after, x, x0)


@pytest.mark.parametrize(("left", "words"), [(1, r"ended at sigma [\d.]+"), (2, "ended without a step")])
def test_a_run_goes_to_its_end(class_pipe: ldmkit.Pipeline, left: int, words: str) -> None:
    told = rf"bad-step.*Short breaks its contract: it {words} \(one step for each of 2 transitions, ending at sigma 0\)"
    with pytest.raises(ldmkit.RunError, match=told):
        class_pipe({"label": 1}, steps=2, sampler=Short(left=left))


class Tones(ldmkit.Conditioner):
    """Three numbers as one token, but for what `fault` does to it."""

    Input = list[float]
    kind = "tokens"
    dim = 8
    fault: Callable[[torch.Tensor], Any]

    def forward(self, inputs: list[Any]) -> Any:
        tokens = torch.tensor(inputs)[:, None, :1].expand(-1, 1, 8)
        return type(self).fault(tokens)

    def example(self, size: tuple[int, int]) -> Any:
        return [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda t: t, "returned Tensor"),
        (lambda t: None, "returned NoneType"),
        (lambda t: ldmkit.Tokens(t[:, 0]), r"returned tokens of shape \(1, 8\).*3 axes"),
        (lambda t: ldmkit.Plane(t), r"returned plane of shape \(1, 1, 8\)"),
        (lambda t: ldmkit.Tokens(t[..., :4]), "returned tokens with 1 rows and dim 4"),
        (lambda t: ldmkit.Tokens(t.expand(2, 1, 8)), "returned tokens with 2 rows and dim 8"),
        (lambda t: ldmkit.Vector(t[:, 0]), "returned vector with 1 rows"),
    ],
    ids=["tensor", "none", "axes", "plane", "dim", "rows", "kind"],
)
def test_a_signal_is_as_declared(fault: Callable[[torch.Tensor], Any], words: str) -> None:
    pipe = ldmkit.Pipeline.of(
        codec=tiny_parts.part("codec", "identity", {}),
        denoiser=tiny_parts.unet(3),
        process=ldmkit.get("process", "discrete")(),
        conditioners={"tones": type("Broken", (Tones,), {"fault": staticmethod(fault)})()},
        defaults={"size": (8, 8)},
    )
    with pytest.raises(ldmkit.CompositionError, match=f"wrong-signal.*conditioner 'tones' {words}"):
        pipe({"tones": [1.0, 2.0, 3.0]}, steps=2)


@pytest.mark.parametrize("plan", ["eager", "prepacked"])
def test_a_plane_of_another_size_is_blamed_on_its_conditioner(plan: str) -> None:
    unet: dict[str, Any] = {"channels": 3, "in_channels": 6, "widths": [8], "blocks": 1, "norm_groups": 4, "heads": 2}
    pipe = ldmkit.Pipeline.of(
        codec=ldmkit.get("codec", "identity")(),
        denoiser=ldmkit.get("denoiser", "unet")(unet | {"attention": ["none"]}),
        process=ldmkit.get("process", "discrete")(),
        conditioners={"sketch": ldmkit.get("conditioner", "given")({"kind": "plane", "dim": 3})},
        wiring={"sketch": {"input": "drawing", "slot": "plane"}},
        defaults={"size": (8, 8), "steps": 2},
    ).planned(plan)
    pipe({"drawing": torch.zeros(3, 8, 8)})
    with pytest.raises(ldmkit.InputError) as raised:
        pipe({"drawing": torch.zeros(3, 4, 8)}, size=(8, 8))
    assert raised.value.code == "input.plane-size"
    assert raised.value.where == "plane, filled by conditioner 'sketch'"
