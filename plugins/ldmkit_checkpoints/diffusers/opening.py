"""The source for a folder that diffusers wrote, by the pipeline that its index names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ldmkit import Source
from ldmkit_checkpoints.diffusers.deepfloyd import CLASSES as DEEPFLOYD
from ldmkit_checkpoints.diffusers.deepfloyd import StageFolder
from ldmkit_checkpoints.diffusers.deepfloyd import open_cascade as open_deepfloyd
from ldmkit_checkpoints.diffusers.folder import INDEX as INDEX
from ldmkit_checkpoints.diffusers.folder import open_diffusers
from ldmkit_checkpoints.diffusers.kandinsky import COMBINED, PIPELINES, PRIORS, KandinskyFolder
from ldmkit_checkpoints.diffusers.prior_cascade import class_of, open_combined, open_pair, open_stable
from ldmkit_checkpoints.diffusers.unclip.karlo import PIPELINES as KARLO
from ldmkit_checkpoints.diffusers.unclip.karlo import KarloFolder
from ldmkit_checkpoints.diffusers.unclip.prior_folder import PriorFolder
from ldmkit_checkpoints.diffusers.unclip_stable import StableUnclipFolder

OPENERS: dict[str, Callable[[Path, bool | None, str | None], Source]] = {
    "StableUnCLIPPipeline": open_stable,
    "StableUnCLIPImg2ImgPipeline": StableUnclipFolder,
    **dict.fromkeys(PIPELINES, KandinskyFolder),
    **dict.fromkeys(PRIORS, PriorFolder),
    **dict.fromkeys(KARLO, KarloFolder),
    **dict.fromkeys(COMBINED, open_combined),
    **dict.fromkeys(DEEPFLOYD, StageFolder),
}
"""Pipeline -> what opens its folder, if that is not `open_diffusers`."""


def open_folder(folder: Path, ema: bool | None, variant: str | None = None) -> Source | None:
    """The source for a folder of a diffusers pipeline, of one of its components, or of several pipelines; else None."""
    name = class_of(folder)
    if name in OPENERS:
        return OPENERS[name](folder, ema, variant)
    several = open_pair(folder, ema, variant) or open_deepfloyd(folder, ema, variant)
    return several or open_diffusers(folder, ema, variant)
