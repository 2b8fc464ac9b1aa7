"""Folders of diffusers with a prior and its decoder: a cascade from a text to an embedding to a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ldmkit import CascadeSource, CascadeSpec, Source, SourceError, suggest
from ldmkit_checkpoints.component_files import read_member_json
from ldmkit_checkpoints.diffusers.encoder import EncoderParts
from ldmkit_checkpoints.diffusers.folder import INDEX
from ldmkit_checkpoints.diffusers.kandinsky import PIPELINES, PRIORS, KandinskyFolder
from ldmkit_checkpoints.diffusers.unclip.prior_folder import ROLES, PriorFolder
from ldmkit_checkpoints.diffusers.unclip_stable import StableUnclipFolder

STAGES: dict[str, Any] = {"prior": {}, "decoder": {"inputs": {"image.embedding": "prior"}}}


class PriorCascade(CascadeSource):
    """The stages `prior` and `decoder` of one folder.

    Args:
        folder: the folder, for errors.
        prior, decoder: open the sources of the stages, which read no weights yet.
    """

    has_variants = True
    takes = frozenset({"ema"})

    def __init__(self, folder: Path, prior: Callable[[], Source], decoder: Callable[[], Source]) -> None:
        super().__init__(str(folder))
        self._opened = {"prior": prior, "decoder": decoder}

    @property
    def cascade(self) -> CascadeSpec:
        return CascadeSpec.read({"stages": STAGES})

    def stage(self, name: str) -> Source:
        if name not in self._opened:
            raise SourceError("unknown-stage", f"no stage {name!r}", where=self.origin, fits=suggest(name, STAGES))
        return self._opened[name]()


def open_combined(folder: Path, ema: bool | None, variant: str | None) -> Source:
    """Kandinsky 2.2's prior and decoder in one folder of diffusers."""
    names = {role: f"prior_{role}" for role in ROLES}
    encoder = EncoderParts("prior_image_encoder", "prior_image_processor")
    return PriorCascade(
        folder,
        lambda: PriorFolder(folder, ema, variant, names),
        lambda: KandinskyFolder(folder, ema, variant, encoder),
    )


def open_pair(folder: Path, ema: bool | None, variant: str | None) -> Source | None:
    """Kandinsky 2.2 as it is published, a folder for the prior and one for the decoder; None: it is not that."""
    prior, decoder = folder / "prior", folder / "decoder"
    if class_of(prior) not in PRIORS or class_of(decoder) not in PIPELINES:
        return None
    encoder = EncoderParts(root=prior)
    return PriorCascade(
        folder, lambda: PriorFolder(prior, ema, variant), lambda: KandinskyFolder(decoder, ema, variant, encoder)
    )


def open_stable(folder: Path, ema: bool | None, variant: str | None) -> Source:
    """Stable unCLIP's prior and decoder; the decoder alone if the index names no prior."""
    entry = read_member_json(folder, INDEX).get("prior")
    if not isinstance(entry, list) or not any(entry):
        return StableUnclipFolder(folder, ema, variant)
    names = {role: role if role == "prior" else f"prior_{role}" for role in ROLES}
    return PriorCascade(
        folder, lambda: PriorFolder(folder, ema, variant, names), lambda: StableUnclipFolder(folder, ema, variant)
    )


def class_of(folder: Path) -> str | None:
    """The class of a folder's pipeline; None if it is not one of diffusers'."""
    if not (folder / INDEX).is_file():
        return None
    name = read_member_json(folder, INDEX).get("_class_name")
    return name if isinstance(name, str) else None
