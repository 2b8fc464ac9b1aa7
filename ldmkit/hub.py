"""Models on the Hugging Face hub: which files of a repository are needed, and where they lie afterwards."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ldmkit.errors import SourceError

_TEXTS = frozenset({".json", ".txt", ".yaml", ".yml", ".model", ".gz"})
_PICKLES = frozenset({".bin", ".ckpt", ".pt", ".pth"})
_UNREAD = frozenset({"safety_checker"})
_RAW = "non_ema"


def wanted(names: Iterable[str]) -> list[str]:
    """The files of a repository that a reader may open.

    Texts; of weights safetensors, and pickles in folders without any. Left out are weights beside a
    `model_index.json`, which no reader of such a folder opens, and variants (`.fp16.`) of plain weights.
    """
    paths = [PurePosixPath(name) for name in names]
    safe = {path.parent for path in paths if path.suffix == ".safetensors"}
    whole = {path.parent for path in paths if path.name == "model_index.json"}
    plain = {path for path in paths if path.name.count(".") == 1}
    found: list[str] = []
    for path in paths:
        weights = path.suffix == ".safetensors" or (path.suffix in _PICKLES and path.parent not in safe)
        variant = path.suffixes[-2] if len(path.suffixes) > 1 else ""
        doubled = variant not in ("", f".{_RAW}") and path.with_name(path.name.replace(variant, "", 1)) in plain
        if path.suffix in _TEXTS or (weights and not doubled and path.parent not in whole):
            found.append(str(path))
    return [name for name in found if not _UNREAD & set(PurePosixPath(name).parts)]


def fetch(name: str) -> Path:
    """The local folder of `org/name` or `org/name@revision`: downloaded where needed, the cache's where offline.

    Raises:
        SourceError: `hub`.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    try:
        patterns: list[str] | None = None
        if not os.environ.get("HF_HUB_OFFLINE"):
            patterns = [glob.escape(n) for n in wanted(HfApi().list_repo_files(repository, revision=revision or None))]
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=patterns))
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise SourceError("hub", f"cannot be had from the hub{offline}: {error}", where=f"hf:{name}") from None
