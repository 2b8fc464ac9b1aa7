"""The source for a folder that diffusers wrote, by the pipeline that its index names."""

from __future__ import annotations

from pathlib import Path

from ldmkit import Source
from ldmkit_checkpoints.component_files import read_member_json
from ldmkit_checkpoints.diffusers.deepfloyd import CLASSES as DEEPFLOYD
from ldmkit_checkpoints.diffusers.deepfloyd import StageFolder, open_cascade
from ldmkit_checkpoints.diffusers.folder import INDEX, DiffusersFolder, open_diffusers
from ldmkit_checkpoints.diffusers.kandinsky import PIPELINES as KANDINSKY
from ldmkit_checkpoints.diffusers.kandinsky import PRIORS, KandinskyFolder
from ldmkit_checkpoints.diffusers.unclip.karlo import PIPELINES as KARLO
from ldmkit_checkpoints.diffusers.unclip.karlo import KarloFolder
from ldmkit_checkpoints.diffusers.unclip.prior_folder import PriorFolder
from ldmkit_checkpoints.diffusers.unclip_stable import PIPELINES as STABLE_UNCLIP
from ldmkit_checkpoints.diffusers.unclip_stable import StableUnclipFolder

SOURCES: dict[str, type[DiffusersFolder]] = {
    **dict.fromkeys(STABLE_UNCLIP, StableUnclipFolder),
    **dict.fromkeys(KANDINSKY, KandinskyFolder),
    **dict.fromkeys(PRIORS, PriorFolder),
    **dict.fromkeys(DEEPFLOYD, StageFolder),
}
"""Pipeline -> its reader, where that is not `DiffusersFolder` itself."""


def open_folder(folder: Path, ema: bool | None, variant: str | None = None) -> Source | None:
    """The source for a diffusers pipeline or component folder, or for one of a cascade's pipelines; None for others."""
    if (folder / INDEX).is_file():
        name = read_member_json(folder, INDEX).get("_class_name")
        if isinstance(name, str) and name in KARLO:
            return KarloFolder(folder, ema, variant)
        if isinstance(name, str) and name in SOURCES:
            return SOURCES[name](folder, ema, variant)
    return open_diffusers(folder, ema, variant) or open_cascade(folder, ema, variant)
