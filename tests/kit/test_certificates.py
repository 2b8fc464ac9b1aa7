"""docs/certificates.md says what is measured now, and the measurements can tell good from bad."""

from __future__ import annotations

import math

import pytest
import torch
from broken_sampler import ClaimsThree, Overweights, SlopesInSigma
from good_sampler import Jumps, Renewed, Straight, TwoStage

from ldmkit.testing import certify
from ldmkit.testing.certificates import declared, file, in_tree, row, stale, tables
from ldmkit.testing.reference import PREDICTIONS, Prediction, Reference, Rho7
from ldmkit.testing.sampler.convergence import gaussian_moments, path, weak_error
from ldmkit.testing.sampler.marginals import hotelling
from ldmkit.testing.sampler.mixture import Mixture, solution

PAGE = tables(file().read_text(encoding="utf-8"))
SAMPLERS = list(in_tree())
WRITE = "run `python -m ldmkit.testing.certificates --write`"


def shown(label: str, prediction: Prediction) -> dict[str, str]:
    return next(line for line in PAGE[prediction] if line["sampler"] == label)


def test_the_page_lists_every_sampler_with_every_prediction_type() -> None:
    for prediction in PREDICTIONS:
        wanted = [one.label for one in SAMPLERS if one.first or prediction == "eps"]
        assert [line["sampler"] for line in PAGE[prediction]] == wanted, WRITE
    for one in SAMPLERS:
        line = shown(one.label, "eps")
        assert {name: line[name] for name in declared(one.sampler)} == declared(one.sampler), WRITE


FIRST = [one for one in SAMPLERS if one.first]
SAMPLE = [(one, PREDICTIONS[i % 4]) for i, one in enumerate(FIRST)]


@pytest.mark.parametrize(("one", "prediction"), SAMPLE, ids=[f"{one.label[1:-1]}-{p}" for one, p in SAMPLE])
def test_the_page_is_fresh(one, prediction: Prediction) -> None:  # type: ignore[no-untyped-def]
    """One prediction type of each sampler, in turn; the page's script measures all of them."""
    line = row(one.label, certify(one.sampler, prediction, moments=False))
    assert not stale(shown(one.label, prediction), line), WRITE


@pytest.mark.parametrize(
    ("column", "text"),
    [("measured", "1.70"), ("20 steps", "9.9e-01"), ("calls", "3 N"), ("steps", "1 to 1000, not 7"), ("order", "")],
)
def test_a_stale_line_is_seen(column: str, text: str) -> None:
    line = shown("`heun`", "eps")
    assert not stale(line, dict(line))
    assert len(stale({**line, column: text}, line)) == 1


def test_no_sampler_is_certified_to_be_other_than_it_says() -> None:
    lines = [line for table in PAGE.values() for line in table]
    ordered, moments = ([line for line in lines if line[column]] for column in ("order", "moments"))
    deterministic = {one.label for one in SAMPLERS if one.sampler.order is not None}
    assert {line["sampler"] for line in ordered} == deterministic
    lawful = {one.label for one in SAMPLERS if one.label not in deterministic and one.sampler.estimate != "distilled"}
    assert {line["sampler"] for line in moments} == lawful
    for line in ordered:
        assert -0.35 < float(line["measured"]) - int(line["order"]) < 1.1, line
    for line in moments:
        assert float(line["moments"].partition("p = ")[2]) >= 1e-6, line


def test_a_certificate_of_a_solver() -> None:
    found = certify(TwoStage(), "v")
    assert found.measured == pytest.approx(2, abs=0.1) and found.declared == 2 and not found.stochastic
    assert found.calls == (2, -1) and found.failing == () and found.p is None
    assert found.constant is not None and found.constant / 320**2 == pytest.approx(found.some / 256, rel=0.5)
    assert 1e-8 < found.floor < 1e-5
    assert certify(ClaimsThree()).measured == pytest.approx(2, abs=0.2)


def test_a_certificate_of_a_sampler_with_noise() -> None:
    found = certify(Renewed(), "x0")
    assert found.stochastic and found.declared is None and found.measured == pytest.approx(1, abs=0.1)
    assert found.p is not None and found.p > 0.5
    jumps = certify(Jumps())
    assert jumps.measured is None and jumps.few is not None and jumps.few < 1e-9


def test_a_certificate_shows_what_is_wrong() -> None:
    assert certify(Overweights()).measured < 0.5  # type: ignore[operator]
    assert certify(_Divides()).failing == (1,)
    far, near = certify(SlopesInSigma(), "flow"), certify(SlopesInSigma())
    assert near.measured == pytest.approx(2, abs=0.1) and 10 not in near.failing
    assert 10 in far.failing, "from sigma 2^20 Heun's method in sigma ends far outside of the data"


class _Divides(Straight):
    def steps(self, denoise, x, sigmas, noise):  # type: ignore[no-untyped-def]
        reach = math.nan if len(sigmas) == 2 else 1.0
        yield from super().steps(lambda x, s: reach * denoise(x, s), x, sigmas, noise)


def test_the_exact_paths_have_converged() -> None:
    """Against four times as many steps: 1e-8 is a hundredth of the smallest error that is read off them."""
    mixture = Mixture.random()
    for prediction in ("eps", "flow"):
        process = Reference(prediction=prediction)  # type: ignore[arg-type]
        found = path(process)
        finer = solution(mixture.denoise, found.start[:2], min(process.sigma_max, 80.0), process.sigma_min, 1600)
        assert float((finer - found.end[:2]).abs().max()) < 1e-8


def test_moments_without_sampling_agree_with_samples() -> None:
    """The weak error's exact moments against those of 40000 runs, within 5 standard errors."""
    process, sampler = Reference(), Renewed()
    sigmas = Rho7(zero=False).sigmas(process, 12)
    mean, variance = gaussian_moments(sampler, process, sigmas)
    from ldmkit.testing.sampler.convergence import MEANS, VARIANCES, gaussian_mean

    generator = torch.Generator().manual_seed(8)

    def unit(index: int) -> torch.Tensor:
        return torch.randn((40_000, 3), generator=generator, dtype=torch.float64)

    start = torch.tensor(MEANS) + unit(0) * (torch.tensor(VARIANCES).double() + sigmas[0] ** 2).sqrt()
    end = list(sampler.steps(gaussian_mean, start, sigmas, unit))[-1].x
    assert float(((end.mean(0) - mean) / (variance / 40_000).sqrt()).abs().max()) < 5
    assert float((end.var(0) / variance - 1).abs().max()) < 5 * math.sqrt(2 / 40_000)
    assert weak_error(sampler, process, 12) > 0.1


def test_the_false_alarm_rate_of_the_moments_test() -> None:
    """Exact samples of the mixture: Hotelling's p, before any allowance, is below 5 % in 5 % of 600 cases.

    Between 9 and 55 of them, which a fair test leaves with a probability below 1e-5.
    """
    mixture, generator = Mixture.random((2,), 3, seed=4), torch.Generator().manual_seed(9)
    mean, covariance, alarms = mixture.mean(), mixture.covariance(), 0
    for _ in range(600):
        found = hotelling(mixture.sample(2048, generator), mean, covariance)
        assert found.p == 1 or found.distance > 0.1
        half = torch.tensor([2.5, 2048 * found.distance**2 / 2], dtype=torch.float64)
        alarms += float(torch.special.gammaincc(half[0], half[1])) < 0.05
    assert 9 <= alarms <= 55, alarms
