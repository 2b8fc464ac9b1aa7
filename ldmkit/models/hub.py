"""Models on the Hugging Face hub: selection of the required files, and download."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ldmkit.errors import SourceError
from ldmkit.files.reading import check_network

_TEXTS = frozenset({".json", ".txt", ".yaml", ".yml", ".model", ".gz"})
_PICKLES = frozenset({".bin", ".ckpt", ".pt", ".pth"})
_UNREAD = frozenset({"safety_checker"})
_RAW = "non_ema"
_WEIGHTS = re.compile(
    r"(diffusion_pytorch_model|pytorch_model|model)(\.(?P<variant>[^.]+?))?(-\d{5}-of-\d{5})?(\.(?P<older>[^.]+))?"
    r"\.(safetensors|bin|ckpt|pt|pth)"
)
"""Weights of a component, whole or a shard, including the names that diffusers before 0.33 gave shards of variants."""


def wanted(names: Iterable[str], variant: str | None = None) -> list[str]:
    """The files of a repository that a reader may open.

    These are text files, and weights as safetensors, or as pickles if there are no safetensors. Weights next to a
    `model_index.json` are left out, because no reader opens them, as are variants (`.fp16.`) that were not requested.
    For a component without the requested variant the default weights are included, because they are read instead.
    """
    paths = [PurePosixPath(name) for name in names]
    safe = {(path.parent, _variant(path)) for path in paths if path.suffix == ".safetensors"}
    whole = {path.parent for path in paths if path.name == "model_index.json"}
    plain = {path for path in paths if path.name.count(".") == 1}
    there = {(path.parent, _variant(path)) for path in paths}
    found: list[str] = []
    for path in paths:
        own = _variant(path)
        weights = path.suffix == ".safetensors" or (path.suffix in _PICKLES and (path.parent, own) not in safe)
        if own is None:
            extra = path.suffixes[-2] if len(path.suffixes) > 1 else ""
            left_out = extra != "" and path.with_name(path.name.replace(extra, "", 1)) in plain
        else:
            taken = variant if variant is not None and (path.parent, variant) in there else ""
            left_out = own != taken and not (variant is None and own == _RAW)
        if path.suffix in _TEXTS or (weights and not left_out and path.parent not in whole):
            found.append(str(path))
    return [name for name in found if not _UNREAD & set(PurePosixPath(name).parts)]


def check_variant(names: Iterable[str], variant: str | None, where: str) -> None:
    """Check before a download that a diffusers repository has the requested weights.

    Raises:
        SourceError: `no-variant`: no component has the variant; `variant-needed`: a component has neither the variant
            nor default weights.
    """
    paths = [PurePosixPath(name) for name in names]
    if PurePosixPath("model_index.json") not in paths:
        return
    there: dict[PurePosixPath, set[str]] = {}
    for path in paths:
        if (own := _variant(path)) is not None and len(path.parts) == 2 and not _UNREAD & set(path.parts):
            there.setdefault(path.parent, set()).add(own)
    known = sorted({own for variants in there.values() for own in variants})
    fits = ", ".join(f"variant={own!r}" if own else "default weights (no variant)" for own in known)
    if variant is not None and known and variant not in known:
        raise SourceError("no-variant", f"no weights of variant {variant!r}", where=where, fits=fits)
    for folder, variants in there.items():
        if "" not in variants and variant not in variants and (variant is not None or _RAW not in variants):
            what = f"{folder} has no default weights, only variants {', '.join(map(repr, sorted(variants)))}"
            raise SourceError("variant-needed", what, where=where, fits=fits)


def _variant(path: PurePosixPath) -> str | None:
    """The variant of a weights file, "" for default weights; None for other files."""
    match = _WEIGHTS.fullmatch(path.name)
    return None if match is None else match["variant"] or match["older"] or ""


def fetch(name: str, variant: str | None = None) -> Path:
    """The local folder of `org/name` or `org/name@revision`; downloads missing files, or uses the cache if offline.

    Raises:
        SourceError: `hub`, `no-variant`, `variant-needed`.
    """
    check_network(f"hf:{name}")
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    try:
        patterns: list[str] | None = None
        if not os.environ.get("HF_HUB_OFFLINE"):
            names = HfApi().list_repo_files(repository, revision=revision or None)
            check_variant(names, variant, f"hf:{name}")
            patterns = [glob.escape(one) for one in wanted(names, variant)]
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=patterns))
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise SourceError("hub", f"cannot be downloaded from the hub{offline}: {error}", where=f"hf:{name}") from None
