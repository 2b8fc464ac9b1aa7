"""The closed list of kinds of part, and the entry-point group of each. Free of torch."""

from __future__ import annotations

GROUPS: dict[str, str] = {
    "codec": "ldmkit.codecs",
    "denoiser": "ldmkit.denoisers",
    "conditioner": "ldmkit.conditioners",
    "sampler": "ldmkit.samplers",
    "process": "ldmkit.processes",
    "grid": "ldmkit.grids",
    "guidance": "ldmkit.guidance",
    "adapter": "ldmkit.adapters",
    "data": "ldmkit.data",
    "perceptual": "ldmkit.perceptual",
    "classifier": "ldmkit.classifiers",
}
"""kind -> entry-point group whose values are classes."""

MODULES = frozenset({"codec", "denoiser", "conditioner", "adapter", "perceptual", "classifier"})
"""Kinds that own weights (`nn.Module` with a `Config`); the others are frozen values."""

HOOKS_GROUP = "ldmkit"
"""Entry points of this group are pluggy plugins (see `ldmkit.hookspecs`)."""

COMMANDS_GROUP = "ldmkit.commands"
"""Entry points of this group are Typer apps, mounted lazily as `ldmkit NAME`."""

MODELS_GROUP = "ldmkit.models"
"""Entry points of this group are bundled models: name -> `package:folder` holding a saved pipeline."""
