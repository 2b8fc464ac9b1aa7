"""Command-line options for what a run starts from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldmkit.errors import InputError, SourceError

if TYPE_CHECKING:
    from ldmkit.contracts.codec import Codec


def check_start(starts: Sequence[Path], strength: float | None, masks: Sequence[Path]) -> None:
    """Refuse options without the --start that they require, and a wrong number of masks; reads no files.

    Raises:
        InputError: `option-conflict`, `batch-mismatch`.
    """
    for option, given in (("--strength", strength is not None), ("--mask", bool(masks))):
        if given and not starts:
            fits = "--start PICTURE, or the model's own input for a masked picture"
            raise InputError("option-conflict", f"{option} requires --start", where=option, fits=fits)
    if masks and starts and len(masks) != len(starts) and 1 not in (len(masks), len(starts)):
        what = f"{len(masks)} masks for {len(starts)} pictures"
        raise InputError("batch-mismatch", what, where="--mask", fits="one mask, or one per start")


def starting(starts: Sequence[Path], strength: float | None, masks: Sequence[Path], codec: Codec) -> Any:
    """The argument `start` of `Pipeline.prepare`; None: the run starts from noise. `codec` is the pipeline's.

    A file of latents stands for its picture, whose size it records.

    Raises:
        SourceError: `no-latents`: a safetensors file without latents, or whose latents do not match the recorded size.
        InputError: `other-latents`: the latents are of another codec.
    """
    if not starts:
        return None
    from ldmkit.run.starts import Begun, Start

    count = max(len(starts), len(masks))
    names = ["start"] if count == 1 else [f"start[{i}]" for i in range(count)]
    shared = {} if strength is None else {"strength": strength}
    read = [_read(path, codec) for path in starts]
    rows = []
    for i, name in enumerate(names):
        own, size = read[i % len(read)]
        mask = {"mask": masks[i % len(masks)]} if masks else {}
        rows.append(Begun(Start.of({**own, **shared, **mask}, name), size))
    return rows


def _read(path: Path, codec: Codec) -> tuple[dict[str, Any], tuple[int, ...] | None]:
    """Fields of a start, and the picture's size if the fields do not determine it."""
    from ldmkit.models.weights import read_metadata
    from ldmkit.run.latent_files import check_codec_of, size_of

    if path.suffix.lower() != ".safetensors":
        return {"image": path}, None
    latents, about = stored_latents(path).read(True), read_metadata(path)
    size = size_of(about, codec, latents, str(path))
    check_codec_of(about, codec, latents, str(path))
    return {"latents": latents[0]}, size


def stored_latents(path: Path) -> Any:
    """The latents (1,C,h,w) in a file that `ldmkit encode` wrote, read lazily.

    Raises:
        SourceError: `no-latents`.
    """
    from ldmkit.models.weights import open_safetensors

    tensors = open_safetensors(path)
    if "latents" not in tensors or tensors["latents"].shape[:1] != (1,):
        what = "there is no tensor `latents` (1, channels, height, width) in it"
        raise SourceError("no-latents", what, where=str(path), fits="a file that `ldmkit encode` wrote")
    return tensors["latents"]
