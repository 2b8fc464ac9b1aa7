"""Scaling of latents that is in the code of diffusers' pipelines, not in their files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ldmkit import SourceError

DEFAULT_SCALE = 0.18215
"""Default scaling_factor of AutoencoderKL and VQModel."""

SCALED_SINCE = (0, 22)
"""diffusers version since which LDMPipeline divides by scaling_factor, with the KL models' default for VQModel. Older
files, the published models among them, hold U-Nets for unscaled latents."""

_UNSCALED = ("LDMSuperResolutionPipeline", "Kandinsky")
_BY_CHANNEL = "StableDiffusionXL"
"""Pipelines with this prefix use latents_mean and latents_std; no pipeline uses shift_factor."""


def version_of(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """(major, minor) of the diffusers version that wrote a config, if stated."""
    found = re.match(r"(\d+)\.(\d+)", str(config.get("_diffusers_version", "")))
    return None if found is None else (int(found[1]), int(found[2]))


def never_scaled(config: Mapping[str, Any]) -> bool:
    """Whether a VQModel was saved before scaling_factor was applied, and does not set its own."""
    version = version_of(config)
    old = version is not None and version < SCALED_SINCE
    return old and config.get("_class_name") == "VQModel" and config.get("scaling_factor", 1.0) in (1.0, DEFAULT_SCALE)


def quantised(pipeline: str) -> bool | None:
    """Whether a pipeline quantises latents before decoding; None: it has no VQModel."""
    return False if pipeline.startswith("Kandinsky") else True if pipeline.startswith("LDM") else None


def as_in_kandinsky(codec: Mapping[str, Any]) -> list[str]:
    """What is assumed of a first stage whose folder does not say which pipeline it belongs to."""
    if codec.get("spatial_groups") is None:
        return []
    return ["norm_type spatial: latents are decoded without quantisation, as in Kandinsky's pipelines"]


def as_applied(config: Mapping[str, Any], index: Mapping[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
    """A first stage's config with the scaling that its pipeline applies, and notes on entries it ignores.

    Args:
        config: config of the first stage.
        index: the pipeline's model_index.json.
        where: place of the config, for errors.

    Raises:
        SourceError: `unsupported`: scaling that the pipeline applies to decoded latents only.
    """
    name, found, notes = str(index.get("_class_name")), dict(config), list[str]()
    unread = ["shift_factor"] if name.startswith(_BY_CHANNEL) else ["shift_factor", "latents_mean", "latents_std"]
    pair = [found.get(key) is not None for key in ("latents_mean", "latents_std")]
    if name.startswith(_BY_CHANNEL) and pair[0] != pair[1]:
        unread += ["latents_mean", "latents_std"]
    elif name == "StableDiffusionXLInpaintPipeline" and all(pair):
        what = "latents_mean and latents_std: this pipeline applies them when decoding, but not when encoding"
        raise SourceError("unsupported", what, where=f"{where}.latents_mean", fits="scaling_factor alone")
    for key in unread:
        if found.pop(key, None) not in (None, 0, 0.0):
            notes.append(f"{where}: {key} is not applied, as in diffusers' {name}")
    if name.startswith(_UNSCALED):
        if found.get("scaling_factor", 1.0) not in (1.0, DEFAULT_SCALE):
            notes.append(f"{where}: scaling_factor is not applied, as in diffusers' {name}")
        found["scaling_factor"] = 1.0
    elif name == "LDMPipeline" and never_scaled({**index, **config}):
        found["scaling_factor"] = 1.0
        what = f"{where}: latents are not scaled, as in its version of diffusers; today's divides by {DEFAULT_SCALE}"
        notes.append(what)
    elif "scaling_factor" not in found and found.get("_class_name") != "AutoencoderTiny":
        found["scaling_factor"] = DEFAULT_SCALE
    found.pop("_diffusers_version", None)  # the factor is explicit from here on
    return found, notes
