"""Networks of transformers from local folders."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from ldmkit import SourceError


@lru_cache(maxsize=4)
def local_network(folder: str, device: str, network: str, preparer: str, kind: str) -> tuple[Any, Any]:
    """What prepares the input of the network in a folder, and the network. Nothing is downloaded, no code in it is run.

    Args:
        network, preparer: names of transformers' classes, such as AutoModelForCausalLM and AutoTokenizer.
        kind: what the network is, for errors.

    Raises:
        SourceError: `not-found`; `unsupported`: transformers does not read it.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise SourceError("not-found", "there is no such folder", where=folder, fits="a folder of transformers")
    import transformers

    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        prepares = getattr(transformers, preparer).from_pretrained(path, **options)
        made = getattr(transformers, network).from_pretrained(path, use_safetensors=True, **options)
    except (OSError, ValueError, KeyError, ImportError) as problem:
        what = f"transformers reads no {kind} there: {str(problem)[:300]}"
        fits = f"the folder of a {kind}, as save_pretrained writes it"
        raise SourceError("unsupported", what, where=folder, fits=fits) from None
    return prepares, made.to(device).eval()
