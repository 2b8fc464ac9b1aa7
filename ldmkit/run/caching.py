"""Insertion of a run's cache among the wrappers of `denoise`, and counting of the calls that it saves."""

from __future__ import annotations

from torch import Tensor

from ldmkit.contracts.cache import Cache
from ldmkit.contracts.denoised import DenoiseWrapper
from ldmkit.contracts.process import Process
from ldmkit.contracts.step import Denoise, Evaluations
from ldmkit.errors import InputError
from ldmkit.run.guards import check_returned
from ldmkit.run.request import Choices


def with_cache(
    denoise: Denoise, cache: Cache, process: Process, sigmas: tuple[float, ...], taken: Evaluations
) -> Denoise:
    """`denoise`, started for a run, with the cache directly around guidance and inside of the other wrappers, such as
    the one that keeps the known region when inpainting.

    Args:
        taken: its `reused` counts the calls answered by the cache.
    """
    if isinstance(denoise, DenoiseWrapper):
        denoise.denoise = with_cache(denoise.denoise, cache, process, sigmas, taken)
        return denoise
    made = _Counted(denoise)
    return _Cached(made, cache, cache.around(made, process, sigmas), taken)


def check_cache(request: Choices) -> None:
    """Refuse a cache if the sampler needs more than x0 estimates, which is all that a cache provides.

    Raises:
        InputError: `cache-sampler`.
    """
    if request.cache is not None and request.sampler.needs:
        needs = ", ".join(sorted(request.sampler.needs))
        what = f"the sampler needs more than x0 from every call ({needs}), which a cache does not provide"
        raise InputError("cache-sampler", what, where="cache", fits="another sampler, or no cache")


class _Counted:
    """`denoise` with a counter of its calls."""

    def __init__(self, denoise: Denoise) -> None:
        self.denoise, self.calls = denoise, 0

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self.calls += 1
        return self.denoise(x, sigma)


class _Cached:
    """The cached `denoise`, whose results are checked and counted."""

    def __init__(self, made: _Counted, cache: Cache, cached: Denoise, taken: Evaluations) -> None:
        self._made, self._cache, self._cached, self._taken = made, cache, cached, taken

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        before = self._made.calls
        answer: Tensor = check_returned(self._cached(x, sigma), (x.shape,), "cache", self._cache)
        self._taken.reused += self._made.calls == before
        return answer
