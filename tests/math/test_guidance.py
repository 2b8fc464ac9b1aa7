"""Guidance laws, on mixtures whose conditional and unconditional estimates are exact."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from ldmkit_processes.discrete import Discrete
from ldmkit_processes.guidance.cfg import CFG, NoGuidance
from ldmkit_processes.guidance.classifier import ClassifierGuidance
from ldmkit_processes.guidance.image import ImageGuidance
from ldmkit_processes.guidance.per_condition import PerCondition
from ldmkit_samplers.ddim import DDIM
from ldmkit_samplers.grids.sigmas import Karras
from ldmkit_samplers.heun import Heun
from torch import Tensor

from ldmkit import CompositionError, Guidance, InputError, Process, SpecError, View
from ldmkit.testing.sampler.mixture import Mixture

PROCESS = Discrete()
MIXTURE = Mixture.random()
LABEL = 2


class Exact:
    """`evaluate` with an exact estimate for each view; counts rows, as a batched network would."""

    process: Process = PROCESS

    def __init__(self, names: Sequence[str], estimate: Callable[[Tensor, float, View], Tensor]):
        self.names = tuple(names)
        self.estimate = estimate
        self.asked: list[tuple[View, ...]] = []
        self.decoder: Callable[[Tensor], Tensor] = lambda x: x

    def __call__(self, x: Tensor, sigma: float, *views: View) -> list[Tensor]:
        self.asked.append(views)
        return [self.estimate(x, sigma, view) for view in views]

    def decode(self, latents: Tensor) -> Tensor:
        return self.decoder(latents)


def labelled() -> Exact:
    """One condition, the component's number: with it the component alone, without it the mixture."""
    component = MIXTURE.component(LABEL)
    return Exact(["label"], lambda x, s, view: MIXTURE.denoise(x, s) if view else component.denoise(x, s))


def linear(names: Sequence[str]) -> Exact:
    """Each condition moves the estimate, jointly and not additively."""

    def estimate(x: Tensor, sigma: float, view: View) -> Tensor:
        kept = [i + 1 for i, name in enumerate(names) if name not in view]
        return 0.5 * x + sum(kept) + math.prod(kept)

    return Exact(names, estimate)


X = torch.randn(6, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
ALL, NONE = frozenset({"label"}), frozenset[str]()


def test_cfg_at_one_and_zero() -> None:
    evaluate = labelled()
    assert torch.equal(CFG(scale=1)(evaluate, X, 0.7), MIXTURE.component(LABEL).denoise(X, 0.7))
    assert torch.equal(CFG(scale=0)(evaluate, X, 0.7), MIXTURE.denoise(X, 0.7))
    assert torch.equal(NoGuidance()(evaluate, X, 0.7), MIXTURE.component(LABEL).denoise(X, 0.7))
    assert evaluate.asked == [(NONE,), (ALL,), (NONE,)]


def test_cfg_is_linear_in_its_scale_and_one_batch() -> None:
    evaluate = labelled()
    with_it, without = MIXTURE.component(LABEL).denoise(X, 0.7), MIXTURE.denoise(X, 0.7)
    for scale in (0.5, 0.3, 2.0, 7.5):
        got = CFG(scale=scale)(evaluate, X, 0.7)
        assert torch.allclose(got, without + scale * (with_it - without), rtol=1e-12, atol=1e-12)
    assert evaluate.asked == [(ALL, NONE)] * 4
    assert CFG(scale=3).views(["label"]) == 2 and CFG(scale=1).views(["label"]) == 1 and CFG(scale=3).views([]) == 1


def test_cfg_interval() -> None:
    guidance = CFG(scale=3, interval=(0.5, 2.0))
    evaluate = labelled()
    for sigma in (0.4, 0.5, 1.0, 2.0, 3.0):
        guidance(evaluate, X, sigma)
    assert [len(views) for views in evaluate.asked] == [1, 1, 2, 2, 1]
    with pytest.raises(SpecError):
        CFG.of({"interval": (2.0, 1.0)})


def test_cfg_rescale_restores_the_spread() -> None:
    evaluate = labelled()
    plain = CFG(scale=5)(evaluate, X, 0.7)
    full = CFG(scale=5, rescale=1)(evaluate, X, 0.7)
    half = CFG(scale=5, rescale=0.5)(evaluate, X, 0.7)
    assert torch.allclose(full.std(1), MIXTURE.component(LABEL).denoise(X, 0.7).std(1))
    assert torch.allclose(half, (plain + full) / 2)


@pytest.mark.parametrize("composition", ["chained", "independent"])
def test_one_condition_is_cfg_exactly(composition: str) -> None:
    evaluate = labelled()
    for scale in (0.0, 0.5, 1.0, 4.0):
        single = PerCondition(scales={"label": scale}, composition=composition)  # type: ignore[arg-type]
        assert torch.equal(single(evaluate, X, 0.7), CFG(scale=scale)(evaluate, X, 0.7))
        assert evaluate.asked[-1] == evaluate.asked[-2]


def test_chained_scales() -> None:
    evaluate = linear(["image", "text"])
    nothing, image, both = (evaluate.estimate(X, 1.0, frozenset(v)) for v in ({"image", "text"}, {"text"}, set[str]()))
    got = PerCondition(scales={"image": 1.5, "text": 7.0})(evaluate, X, 1.0)
    assert torch.allclose(got, nothing + 1.5 * (image - nothing) + 7 * (both - image))
    equal = PerCondition(scales={"image": 3, "text": 3})(evaluate, X, 1.0)
    assert torch.equal(equal, CFG(scale=3)(evaluate, X, 1.0))
    ones = PerCondition(scales={"image": 1, "text": 1})
    assert torch.equal(ones(evaluate, X, 1.0), both) and evaluate.asked[-1] == (NONE,) and ones.views([]) == 1
    assert [len(views) for views in evaluate.asked] == [3, 2, 2, 1]


def test_independent_scales() -> None:
    evaluate = linear(["image", "text"])
    nothing, image, text = (evaluate.estimate(X, 1.0, frozenset(v)) for v in ({"image", "text"}, {"text"}, {"image"}))
    got = PerCondition(scales={"image": 1.5, "text": 7.0}, composition="independent")(evaluate, X, 1.0)
    assert torch.allclose(got, nothing + 1.5 * (image - nothing) + 7 * (text - nothing))


def test_unlisted_conditions_stay_and_unknown_ones_are_refused() -> None:
    evaluate = linear(["image", "text"])
    PerCondition(scales={"text": 7.0})(evaluate, X, 1.0)
    assert evaluate.asked == [(frozenset({"text"}), NONE)]
    with pytest.raises(CompositionError, match="did you mean 'text'"):
        PerCondition(scales={"txet": 7.0})(evaluate, X, 1.0)


def test_per_condition_round_trips() -> None:
    guidance = PerCondition(scales={"image": 1.5, "text": 7.0})
    assert PerCondition.model_validate_json(guidance.model_dump_json()) == guidance
    assert isinstance(hash(guidance), int)


def posterior(x: Tensor, sigma: float) -> Tensor:
    """log p(label | x) of the mixture."""
    return MIXTURE.log_joint(x, sigma).log_softmax(1)[:, LABEL]


def classifier(z: Tensor, t: Tensor) -> Tensor:
    """The same as a network would give it: logits for z = alpha x at time t."""
    sigma = PROCESS.sigma_of_time(float(t[0]))
    return MIXTURE.log_joint(z / PROCESS.alpha(sigma), sigma) + 3.0


@pytest.mark.parametrize("sigma", [0.1, 0.8, 5.0])
@pytest.mark.parametrize(
    "guidance",
    [ClassifierGuidance(log_prob=posterior), ClassifierGuidance(classifier=classifier, labels=(LABEL,))],
    ids=["log_prob", "classifier"],
)
def test_classifier_guidance_at_one_is_the_conditional_estimate(guidance: Guidance, sigma: float) -> None:
    """grad log p(x) + grad log p(y | x) = grad log p(x | y), exactly; float64, the time's float rounding aside."""
    evaluate = Exact([], lambda x, s, view: MIXTURE.denoise(x, s))
    with torch.no_grad():
        got = guidance(evaluate, X, sigma)
    assert not got.requires_grad
    assert torch.allclose(got, MIXTURE.component(LABEL).denoise(X, sigma), rtol=1e-8, atol=1e-8)
    with torch.inference_mode():
        assert torch.equal(guidance(evaluate, X * 1, sigma), got)


def test_classifier_guided_samples_are_the_component() -> None:
    """Mean and deviation of 4000 samples against the component's: 5 standard errors and 2 % for the solver."""
    evaluate = Exact([], lambda x, s, view: MIXTURE.denoise(x, s))
    guidance = ClassifierGuidance(log_prob=posterior)
    sigmas = Karras().sigmas(PROCESS, 40)
    component = MIXTURE.component(LABEL)
    deviation = float(component.variances[0].sqrt())
    x = torch.randn(4000, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    x = component.means + x * math.hypot(deviation, sigmas[0])
    with torch.no_grad():
        end = list(Heun().steps(lambda x, s: guidance(evaluate, x, s), x, sigmas, lambda i: x))[-1].x
    assert float((end.mean(0) - component.means[0]).abs().max()) < deviation * (5 / 4000**0.5 + 0.02)
    assert float((end.std(0) / deviation - 1).abs().max()) < 5 / 8000**0.5 + 0.02


def test_classifier_guidance_refuses_what_it_cannot_use() -> None:
    evaluate = Exact([], lambda x, s, view: MIXTURE.denoise(x, s))
    for values in ({}, {"classifier": classifier}, {"classifier": classifier, "log_prob": posterior, "labels": (1,)}):
        with pytest.raises(SpecError):
            ClassifierGuidance.of(values)
    with pytest.raises(SpecError, match="3 labels for 6 samples"):
        ClassifierGuidance(classifier=classifier, labels=(1, 2, 3))(evaluate, X, 1.0)


def test_guidance_inside_of_guidance_travels_as_json() -> None:
    guidance = ClassifierGuidance(model="classifier", labels=("cat",), base=CFG(scale=3, interval=(0.1, 1)))
    assert json.loads(guidance.model_dump_json())["base"]["type"] == "cfg"
    assert ClassifierGuidance.of(json.loads(guidance.model_dump_json())) == guidance
    assert ClassifierGuidance(model="classifier", labels=(1,), base="none").base == NoGuidance()
    for base in ({"scale": 3}, {"type": "cfg", "scale": 3}):
        with pytest.raises(SpecError, match="guidance-base"):
            ClassifierGuidance.of({"model": "classifier", "labels": (1,), "base": base})


def images_evaluate() -> Exact:
    """A Gaussian prior of variance v over (1, 3, 4, 4) pictures: x0(x) = x v / (v + sigma^2); the decoder doubles."""
    evaluate = Exact([], lambda x, s, view: x * (0.25 / (0.25 + s * s)))
    evaluate.decoder = lambda x: 2 * x
    return evaluate


TARGET = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(8), dtype=torch.float64) * 2 - 1


def test_image_guidance_gradient_in_closed_form() -> None:
    """x0' = x0 + s sigma^2 m 2 (y - 2 x0) for x0 = m x and D = 2."""
    x, sigma = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(9), dtype=torch.float64), 0.8
    shrink = 0.25 / (0.25 + sigma**2)
    with torch.no_grad():
        got = ImageGuidance(target=TARGET, scale=0.3)(images_evaluate(), x, sigma)
    want = shrink * x + 0.3 * sigma**2 * shrink * 2 * (TARGET - 2 * shrink * x)
    assert torch.allclose(got, want, rtol=1e-12, atol=1e-12)
    assert not got.requires_grad


MASK = torch.tensor([1.0, 0, 1, 0], dtype=torch.float64).expand(1, 1, 4, 4)
TRANSFORMS = {
    "identity": (ImageGuidance(target=TARGET), lambda y: y),
    "downsample": (ImageGuidance(target=TARGET[..., :2, :2], transform="downsample"), None),
    "mask": (ImageGuidance(target=TARGET, transform="mask", mask=MASK), lambda y: y * MASK),
    "grey": (ImageGuidance(target=TARGET[:, :1], transform="grey"), None),
    "crop": (
        ImageGuidance(target=TARGET[..., 1:3, 0:2], transform="crop", box=(1, 0, 2, 2)),
        lambda y: y[..., 1:3, 0:2],
    ),
    "function": (ImageGuidance(target=TARGET.mean(1), transform=lambda y: y.mean(1)), lambda y: y.mean(1)),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_picture_follows_the_target_as_the_scale_grows(name: str) -> None:
    guidance, expected = TRANSFORMS[name]
    evaluate, errors = images_evaluate(), []
    sigmas = Karras(largest=5.0).sigmas(PROCESS, 20)
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(10), dtype=torch.float64) * sigmas[0]
    for scale in (0.0, 0.2, 1.0, 3.0):
        guided = guidance.model_copy(update={"scale": scale})
        with torch.no_grad():
            end = list(DDIM().steps(lambda x, s, g=guided: g(evaluate, x, s), x, sigmas, lambda i: x))[-1].x
            errors.append(float(-guidance._log_prob(evaluate.decode(end)).sum()))
            if expected is not None:
                assert torch.equal(guidance._transformed(evaluate.decode(end)), expected(evaluate.decode(end)))
    assert all(after < before for before, after in itertools.pairwise(errors)), errors
    assert errors[-1] < 0.5 * errors[0]


def test_image_guidance_refuses_what_it_cannot_use() -> None:
    with pytest.raises(InputError) as caught:
        ImageGuidance(target=TARGET, transform="grey")(images_evaluate(), TARGET, 1.0)
    assert caught.value.code == "input.guidance-target"
    for transform in ("mask", "crop"):
        with pytest.raises(SpecError):
            ImageGuidance.of({"target": TARGET, "transform": transform})


def test_an_interval_of_per_condition_is_that_of_cfg() -> None:
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))

    class Views:
        names = ("text",)

        def __call__(self, x: Tensor, sigma: float, *views: frozenset[str]) -> list[Tensor]:
            return [x * (0.3 if view else 0.8) + sigma for view in views]

    for interval in (None, (0.5, 2.0), (0.0, 1.0)):
        one, other = CFG(scale=3.0, interval=interval), PerCondition(scales={"text": 3.0}, interval=interval)
        for sigma in (0.4, 0.5, 0.7, 1.0, 2.0, 2.1):
            assert torch.equal(one(Views(), x, sigma), other(Views(), x, sigma))
    with pytest.raises(SpecError, match="not an interval"):
        PerCondition(scales={"text": 3.0}, interval=(2.0, 1.0))
