"""What a pipeline of diffusers applies to latents of its first stage: written in its code, not in files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ldmkit.errors import SourceError

DEFAULT_SCALE = 0.18215
"""scaling_factor of AutoencoderKL and VQModel where the file names none."""

SCALED_SINCE = (0, 22)
"""LDMPipeline divides by scaling_factor since this version, and VQModel's default is one of KL models'. Files of older
ones, the published models among them, hold a U-Net of latents that were never scaled."""

_UNSCALED = "LDMSuperResolutionPipeline"
_BY_CHANNEL = "StableDiffusionXL"
"""Pipelines of this family read latents_mean and latents_std; none reads shift_factor."""


def version_of(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Major and minor number of the diffusers that wrote a config; None where it does not say."""
    found = re.match(r"(\d+)\.(\d+)", str(config.get("_diffusers_version", "")))
    return None if found is None else (int(found[1]), int(found[2]))


def never_scaled(config: Mapping[str, Any]) -> bool:
    """Whether a VQModel is of the time in which scaling_factor was not applied, and has no number of its own."""
    version = version_of(config)
    old = version is not None and version < SCALED_SINCE
    return old and config.get("_class_name") == "VQModel" and config.get("scaling_factor", 1.0) in (1.0, DEFAULT_SCALE)


def as_applied(config: Mapping[str, Any], index: Mapping[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
    """A first stage's config with the numbers that the pipeline applies, and notes on those that it does not.

    Args:
        config: of the first stage.
        index: the pipeline's model_index.json.
        where: the config's place, for errors.

    Raises:
        SourceError: `unsupported`: numbers that the pipeline applies to one part of its latents only.
    """
    name, found, notes = str(index.get("_class_name")), dict(config), list[str]()
    unread = ["shift_factor"] if name.startswith(_BY_CHANNEL) else ["shift_factor", "latents_mean", "latents_std"]
    pair = [found.get(key) is not None for key in ("latents_mean", "latents_std")]
    if name.startswith(_BY_CHANNEL) and pair[0] != pair[1]:
        unread += ["latents_mean", "latents_std"]
    elif name == "StableDiffusionXLInpaintPipeline" and all(pair):
        what = "latents_mean and latents_std: that pipeline applies them to what it decodes, not to what it encodes"
        raise SourceError("unsupported", what, where=f"{where}.latents_mean", fits="scaling_factor alone")
    for key in unread:
        if found.pop(key, None) not in (None, 0, 0.0):
            notes.append(f"{where}: {key} is not applied, as {name} of diffusers does not")
    if name == _UNSCALED:
        if found.get("scaling_factor", 1.0) not in (1.0, DEFAULT_SCALE):
            notes.append(f"{where}: scaling_factor is not applied, as {name} of diffusers does not")
        found["scaling_factor"] = 1.0
    elif name == "LDMPipeline" and never_scaled({**index, **config}):
        found["scaling_factor"] = 1.0
        what = f"{where}: latents are not scaled, as in the diffusers of its time; today's divides by {DEFAULT_SCALE}"
        notes.append(what)
    elif "scaling_factor" not in found and found.get("_class_name") != "AutoencoderTiny":
        found["scaling_factor"] = DEFAULT_SCALE
    found.pop("_diffusers_version", None)  # the number now stands for itself
    return found, notes
