"""pluggy hooks: which checkpoint files and folders this package reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldmkit import hookimpl

if TYPE_CHECKING:
    from ldmkit import Learnt, Source
    from ldmkit.models.composed import Composed


@hookimpl
def ldmkit_identify_checkpoint(path: Path, config: Path | None, ema: bool | None, variant: str | None) -> Source | None:
    """Return a reader for a CompVis or single-file checkpoint, a diffusers folder or a TAESD folder, else None.

    Raises:
        SourceError: the format is recognised, but the file cannot be read.
    """
    from ldmkit_checkpoints.compvis.checkpoint import checkpoint_in, is_checkpoint, open_compvis
    from ldmkit_checkpoints.diffusers.opening import INDEX, open_folder
    from ldmkit_checkpoints.tiny.folder import TinyFolder, is_tiny_folder
    from ldmkit_checkpoints.unsupported.files import refuse_unsupported_file

    if is_checkpoint(path):
        refuse_unsupported_file(path)
        return open_compvis(path, config, ema)
    if not path.is_dir():
        return None
    if (path / INDEX).is_file():  # many published folders also hold the same model as one file
        return open_folder(path, ema, variant)
    if is_tiny_folder(path):
        return TinyFolder(path)
    if (alone := checkpoint_in(path)) is not None:
        return open_compvis(alone, config, ema)
    return open_folder(path, ema, variant)


@hookimpl
def ldmkit_identify_update(path: Path, pipeline: Composed) -> Source | None:
    """Return a reader for a LoRA in a dialect of kohya's scripts, diffusers or peft, else None.

    Raises:
        SourceError: it is one, and does not fit the pipeline or cannot be read.
    """
    from ldmkit_checkpoints.lora.files import open_update

    return open_update(path, pipeline)


@hookimpl
def ldmkit_describe_file(path: Path) -> dict[str, str] | None:
    """Say what a file of changes to weights is; None for other files.

    Raises:
        SourceError: it is one, and cannot be read.
    """
    from ldmkit_checkpoints.lora.description import describe

    return describe(path)


@hookimpl(specname="ldmkit_identify_adapter")
def read_gligen(path: Path, pipeline: Composed) -> Source | None:
    """Return a reader for a file of GLIGEN's gates, else None.

    Raises:
        SourceError: it is one, and does not fit the pipeline or cannot be read.
    """
    from ldmkit_checkpoints.compvis.gligen_file import open_gligen

    return open_gligen(path, pipeline)


@hookimpl(specname="ldmkit_identify_adapter", tryfirst=True)  # it alone knows pickles of two mappings
def read_ip_adapter(path: Path, pipeline: Composed, options: Mapping[str, Any]) -> Source | None:
    """Return a reader for an IP-Adapter, else None.

    Raises:
        SourceError: it is one, and does not fit the pipeline or cannot be read.
    """
    from ldmkit_checkpoints.ip_adapter.files import open_ip_adapter

    return open_ip_adapter(path, pipeline, options)


@hookimpl(specname="ldmkit_identify_adapter")
def read_control_lora(path: Path, pipeline: Composed) -> Source | None:
    """Return a reader for a Control-LoRA, else None.

    Raises:
        SourceError: it is one, and does not fit the pipeline or cannot be read.
    """
    from ldmkit_checkpoints.compvis.control_lora import open_control_lora

    return open_control_lora(path, pipeline)


@hookimpl
def ldmkit_identify_embedding(path: Path) -> Sequence[Learnt] | None:
    """Return the learnt vectors of a textual inversion in a layout of A1111, kohya's scripts or diffusers, else None.

    Raises:
        SourceError: it is one that cannot be read.
    """
    from ldmkit_checkpoints.embeddings import open_embedding

    return open_embedding(path)


@hookimpl(specname="ldmkit_identify_checkpoint", trylast=True)
def name_what_nobody_reads(path: Path) -> None:
    """Explain what a file or folder is that no reader accepted.

    Raises:
        SourceError: a known format that ldmkit does not read.
    """
    from ldmkit_checkpoints.unsupported.files import refuse_unsupported

    refuse_unsupported(path)
