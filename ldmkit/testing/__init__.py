"""The contract kit: the contract of each kind of part, as checks that authors run on their own parts.

    import ldmkit.testing
    ldmkit.testing.check_sampler(MySampler).require()

`pytest --ldmkit my-distribution` checks all parts of a distribution; `ldmkit plugins check NAME`
checks one part. Importing this package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES: dict[str, str] = {}
for _home, _names in {
    "ldmkit.testing.checks": ("Check", "Failed", "NotApplicable", "Outcome", "Report"),
    "ldmkit.testing.discovery": ("check", "select"),
    "ldmkit.testing.cache": ("check_cache",),
    "ldmkit.testing.codec.checks": ("check_codec",),
    "ldmkit.testing.denoiser.checks": ("check_denoiser",),
    "ldmkit.testing.conditioner.checks": ("check_conditioner",),
    "ldmkit.testing.adapter.checks": ("check_adapter",),
    "ldmkit.testing.perceptual": ("check_perceptual",),
    "ldmkit.testing.classifier": ("check_classifier",),
    "ldmkit.testing.data": ("check_data",),
    "ldmkit.testing.sampler.checks": ("check_sampler",),
    "ldmkit.testing.process": ("check_process",),
    "ldmkit.testing.captioner": ("check_captioner",),
    "ldmkit.testing.rewriter": ("check_rewriter",),
    "ldmkit.testing.extractor": ("check_extractor",),
    "ldmkit.testing.grid": ("check_grid",),
    "ldmkit.testing.guidance.checks": ("check_guidance",),
    "ldmkit.testing.stage": ("check_stage",),
    "ldmkit.testing.sampler.mixture": ("Mixture", "solution"),
    "ldmkit.testing.denoiser.tiny": ("TinyDenoiser",),
    "ldmkit.testing.sampler.certificate": ("Certificate", "certify"),
}.items():
    for _name in _names:
        _HOMES[_name] = _home

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from ldmkit.testing.adapter.checks import check_adapter as check_adapter
    from ldmkit.testing.cache import check_cache as check_cache
    from ldmkit.testing.captioner import check_captioner as check_captioner
    from ldmkit.testing.checks import Check as Check
    from ldmkit.testing.checks import Failed as Failed
    from ldmkit.testing.checks import NotApplicable as NotApplicable
    from ldmkit.testing.checks import Outcome as Outcome
    from ldmkit.testing.checks import Report as Report
    from ldmkit.testing.classifier import check_classifier as check_classifier
    from ldmkit.testing.codec.checks import check_codec as check_codec
    from ldmkit.testing.conditioner.checks import check_conditioner as check_conditioner
    from ldmkit.testing.data import check_data as check_data
    from ldmkit.testing.denoiser.checks import check_denoiser as check_denoiser
    from ldmkit.testing.denoiser.tiny import TinyDenoiser as TinyDenoiser
    from ldmkit.testing.discovery import check as check
    from ldmkit.testing.discovery import select as select
    from ldmkit.testing.extractor import check_extractor as check_extractor
    from ldmkit.testing.grid import check_grid as check_grid
    from ldmkit.testing.guidance.checks import check_guidance as check_guidance
    from ldmkit.testing.perceptual import check_perceptual as check_perceptual
    from ldmkit.testing.process import check_process as check_process
    from ldmkit.testing.rewriter import check_rewriter as check_rewriter
    from ldmkit.testing.sampler.certificate import Certificate as Certificate
    from ldmkit.testing.sampler.certificate import certify as certify
    from ldmkit.testing.sampler.checks import check_sampler as check_sampler
    from ldmkit.testing.sampler.mixture import Mixture as Mixture
    from ldmkit.testing.sampler.mixture import solution as solution
    from ldmkit.testing.stage import check_stage as check_stage
else:
    # type checkers see the imports above: to them a misspelt name is an error, not Any
    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'ldmkit.testing' has no attribute {name!r}")
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__
