"""The closed list of part kinds, with entry-point groups and contract versions. Does not import torch."""

from __future__ import annotations

from importlib import import_module
from typing import Any

GROUPS: dict[str, str] = {
    "codec": "ldmkit.codecs",
    "denoiser": "ldmkit.denoisers",
    "conditioner": "ldmkit.conditioners",
    "sampler": "ldmkit.samplers",
    "process": "ldmkit.processes",
    "grid": "ldmkit.grids",
    "guidance": "ldmkit.guidance",
    "cache": "ldmkit.caches",
    "adapter": "ldmkit.adapters",
    "data": "ldmkit.data",
    "perceptual": "ldmkit.perceptual",
    "classifier": "ldmkit.classifiers",
    "stage": "ldmkit.stages",
    "extractor": "ldmkit.extractors",
    "captioner": "ldmkit.captioners",
    "rewriter": "ldmkit.rewriters",
}
"""kind -> entry-point group of its classes."""

CONTRACTS: dict[str, str] = {
    **{kind: f"ldmkit.contracts.{kind}:{kind.capitalize()}" for kind in GROUPS},
    "perceptual": "ldmkit.contracts.judges:Perceptual",
    "classifier": "ldmkit.contracts.judges:Classifier",
}
"""kind -> `module:class` of its contract, the base class of its parts."""

API: dict[str, int] = {**dict.fromkeys(GROUPS, 1), "conditioner": 2}
"""kind -> version of its contract in this release. A class declares the version it was written against: `api = 1`."""

MODULES = frozenset({"codec", "denoiser", "conditioner", "adapter", "perceptual", "classifier"})
"""Kinds that own weights (`nn.Module` with a `Config`); the others are frozen values, except stages."""

CONFIGURED = MODULES | {"stage"}
"""Kinds whose classes have a `Config`; the others are their own configuration."""

HOOKS_GROUP = "ldmkit"
"""Entry points of this group are pluggy plugins (see `ldmkit.plugins.hooks`)."""

COMMANDS_GROUP = "ldmkit.commands"
"""Entry points of this group are Typer apps, mounted lazily as `ldmkit NAME`."""

MODELS_GROUP = "ldmkit.models"
"""Entry points of this group are bundled models: name -> `package:folder` holding a saved pipeline."""


def contract_of(kind: str) -> type[Any]:
    """The contract class of a kind; importing it imports torch."""
    module, _, name = CONTRACTS[kind].partition(":")
    contract: type[Any] = getattr(import_module(module), name)
    return contract


def oldest_api(kind: str) -> int:
    """The oldest supported version of a kind's contract: the one before the current version, if any."""
    return max(1, API[kind] - 1)
