"""The closed list of kinds of part, the entry-point group of each, the versions of their contracts. Free of torch."""

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
}
"""kind -> entry-point group whose values are classes."""

CONTRACTS: dict[str, str] = {
    **{kind: f"ldmkit.contracts.{kind}:{kind.capitalize()}" for kind in GROUPS},
    "perceptual": "ldmkit.contracts.judges:Perceptual",
    "classifier": "ldmkit.contracts.judges:Classifier",
}
"""kind -> where its contract stands, a class that its parts derive from."""

API: dict[str, int] = {**dict.fromkeys(GROUPS, 1), "conditioner": 2}
"""kind -> version of its contract in this release. A class says which one it was written against: `api = 1`."""

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
    """The contract of a kind; imports it, and torch with it."""
    module, _, name = CONTRACTS[kind].partition(":")
    contract: type[Any] = getattr(import_module(module), name)
    return contract


def oldest_api(kind: str) -> int:
    """The oldest version of a kind's contract that still works: the one before the present one, if there is one."""
    return max(1, API[kind] - 1)
