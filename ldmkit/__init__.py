"""ldmkit: latent diffusion from parts. Importing this package imports neither torch nor any plugin."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES: dict[str, str] = {}
for _home, _names in {
    "ldmkit.plugins": ("components", "get"),
    "ldmkit.loading": ("load", "load_adapter", "load_classifier", "load_codec"),
    "ldmkit.pipeline": ("Pipeline",),
    "ldmkit.output": ("Output", "Start"),
    "ldmkit.spec": ("PipelineSpec", "PartSpec", "ConditionerSpec"),
    "ldmkit.signals": ("Tokens", "Vector", "Plane", "Residuals", "Signal"),
    "ldmkit.conditioning": ("Conditioning", "Encoded"),
    "ldmkit.contracts": (
        *("Adapter", "Classifier", "Codec", "Conditioner", "Context", "Denoiser", "Evaluate", "Frame", "Grid"),
        *("Guidance", "Part", "Perceptual", "Process", "Reconstruction", "Run", "Sampler", "Slot", "Step", "View"),
    ),
    "ldmkit.data": ("Data", "Dataset", "Sample"),
    "ldmkit.examples": ("Example",),
    "ldmkit.noise": ("Noise",),
    "ldmkit.ports": ("Port", "attached"),
    "ldmkit.value": ("Value",),
    "ldmkit.loss": ("diffusion_loss",),
    "ldmkit.hookspecs": ("hookimpl",),
    "ldmkit.errors": (
        *("CompositionError", "InputError", "LdmkitError", "PluginError", "RunError", "SourceError"),
        *("SpecError", "WeightsError"),
    ),
}.items():
    for _name in _names:
        _HOMES[_name] = _home

__all__ = sorted([*_HOMES, "__version__"])

if TYPE_CHECKING:
    from ldmkit.conditioning import Conditioning, Encoded
    from ldmkit.contracts import (
        Adapter,
        Classifier,
        Codec,
        Conditioner,
        Context,
        Denoiser,
        Evaluate,
        Frame,
        Grid,
        Guidance,
        Part,
        Perceptual,
        Process,
        Reconstruction,
        Run,
        Sampler,
        Slot,
        Step,
        View,
    )
    from ldmkit.data import Data, Dataset, Sample
    from ldmkit.errors import (
        CompositionError,
        InputError,
        LdmkitError,
        PluginError,
        RunError,
        SourceError,
        SpecError,
        WeightsError,
    )
    from ldmkit.examples import Example
    from ldmkit.hookspecs import hookimpl
    from ldmkit.loading import load, load_adapter, load_classifier, load_codec
    from ldmkit.loss import diffusion_loss
    from ldmkit.noise import Noise
    from ldmkit.output import Output, Start
    from ldmkit.pipeline import Pipeline
    from ldmkit.plugins import components, get
    from ldmkit.ports import Port, attached
    from ldmkit.signals import Plane, Residuals, Signal, Tokens, Vector
    from ldmkit.spec import ConditionerSpec, PartSpec, PipelineSpec
    from ldmkit.value import Value


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ldmkit' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
