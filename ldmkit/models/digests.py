"""Digests of saved models, computed when a folder is written and verified when it is read.

They detect accidents: flipped bits, truncated, swapped or edited files. They do not protect against an attacker, who
can replace the digests as well, unless the digest of `pipeline.json` is recorded elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ldmkit.errors import LdmkitError, SourceError, shown
from ldmkit.files.json import inside, parse_json
from ldmkit.files.reading import check_ordinary
from ldmkit.models.spec import FileDigest, Verify
from ldmkit.models.weights import open_safetensors, read_metadata
from ldmkit.printable import first_few

TENSORS = "ldmkit.sha256"
"""Key in the metadata of a safetensors file: a JSON object, tensor name -> SHA-256 of its bytes."""

PAGE = 4096
_BLOCK = 1 << 20
_FITS = "an intact copy; verify='off' (--verify off) loads it unchecked"


def tensor_digests(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Safetensors metadata with which a damaged tensor can be identified."""
    made = {key: _sha256(tensor.detach().cpu().contiguous()) for key, tensor in tensors.items()}
    return {TENSORS: json.dumps(made, separators=(",", ":"))}


def file_digests(folder: Path, names: Collection[str] | None = None) -> dict[str, FileDigest]:
    """Relative path -> digest, for every file in a folder and its subfolders, or for some of them."""
    every = (path for path in folder.rglob("*") if path.is_file())
    files = sorted(every if names is None else (folder / name for name in names))
    return {path.relative_to(folder).as_posix(): _file_digest(path) for path in files}


def spec_digest(data: Mapping[str, Any]) -> str:
    """SHA-256 of a spec's JSON without its `digest`; depends on the order of keys, but not on whitespace."""
    rest = {key: value for key, value in data.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, separators=(",", ":")).encode()).hexdigest()


def page_sums(path: Path) -> str:
    """BLAKE2b of the sums modulo 2^64 of the little-endian 64-bit words of each 4 KiB page, at memory speed.

    It always detects a change within one word, such as a flipped bit, and pages that are swapped, moved or replaced. It
    does not detect changes that preserve a page's sum, such as swapped words within a page.
    """
    block = np.zeros(_BLOCK, dtype=np.uint8)
    words, digest, size = block.view("<u8").reshape(-1, PAGE // 8), hashlib.blake2b(digest_size=16), 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block.data):
            size += count
            while count < _BLOCK and (more := file.readinto(block[count:].data)):
                size, count = size + more, count + more
            block[count:] = 0
            digest.update(words[: -(-count // PAGE)].sum(axis=1, dtype=np.uint64).astype("<u8").tobytes())
    digest.update(size.to_bytes(8, "little"))
    return digest.hexdigest()


def weights_digest(modules: Mapping[str, nn.Module]) -> str:
    """What the weights of parts are, whatever they were read from: every tensor is read once, at memory speed.

    Of each tensor its name, dtype, shape and the sums of its pages, as `page_sums` has them.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path, module in sorted(modules.items()):
        for name, tensor in sorted(module.state_dict().items()):
            if isinstance(tensor, Tensor):
                digest.update(f"{path}.{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
                digest.update(_tensor_sums(tensor.detach()).cpu().numpy().tobytes())
    return digest.hexdigest()


def _tensor_sums(tensor: Tensor) -> Tensor:
    """Sums modulo 2^64 of the 64-bit words of each page of a tensor's bytes, int64 on its device, zeros at the end."""
    raw = tensor.contiguous().reshape(-1).view(torch.uint8)
    whole = len(raw) // PAGE * PAGE
    pages, rest = raw[:whole], torch.zeros(PAGE, dtype=torch.uint8, device=raw.device)
    rest[: len(raw) - whole] = raw[whole:]
    pages = pages if pages.storage_offset() % 8 == 0 else pages.clone()
    return torch.cat([part.view(torch.int64).reshape(-1, PAGE // 8).sum(1) for part in (pages, rest)])


class Checked:
    """The files of a saved folder, each verified against its digest before it is used.

    Args:
        folder: the folder of the saved pipeline or part.
        files: the digests in its spec; None if it was saved without.
        verify: "fast" compares sizes, page sums of weights and SHA-256 of other files; "full" SHA-256 of all files.
    """

    def __init__(self, folder: Path, files: Mapping[str, FileDigest] | None, verify: Verify) -> None:
        self.folder, self.full = folder, verify == "full"
        self.files = None if verify == "off" else files
        if self.full and files is None:
            raise no_digests(str(folder))

    def check(self, name: str) -> None:
        """Verify a file; a file that is neither listed nor present is accepted.

        Raises:
            SourceError: `digest-differs`, with the file and its damaged tensors, if any; `not-listed`.
        """
        path = inside(self.folder, name)
        if self.files is None or not (name in self.files or path.exists()):
            return
        if name not in self.files:
            raise SourceError("not-listed", "the saved model had no such file", where=str(path), fits=_FITS)
        wanted, size = self.files[name], check_ordinary(path).st_size
        if size != wanted.size:
            what = f"it has {size} bytes, but was saved with {wanted.size}"
        elif self.full or wanted.pages is None:
            what = "" if file_sha256(path) == wanted.sha256 else "its contents have changed since it was saved"
        else:
            what = "" if page_sums(path) == wanted.pages else "its contents have changed since it was saved"
        if what:
            raise SourceError("digest-differs", what + _damage(path), where=str(path), fits=_FITS)

    def check_below(self, folder: str) -> None:
        """Verify all files of a folder, both listed and present ones; hidden files are ignored.

        Raises:
            SourceError: as `check`.
        """
        if self.files is None:
            return
        there = (path for path in (self.folder / folder).rglob("*") if path.is_file() and path.name[:1] != ".")
        names = {path.relative_to(self.folder).as_posix() for path in there}
        for name in sorted(names | {name for name in self.files if name.startswith(f"{folder}/")}):
            self.check(name)


def check_spec(data: Mapping[str, Any], where: str, verify: Verify) -> None:
    """Verify a spec against its own digest.

    Raises:
        SourceError: `spec-edited`; `no-digests` if `verify` is "full" and the spec has no digest.
    """
    if verify == "off":
        return
    digest = data.get("digest")
    if digest is None:
        if verify == "full":
            raise no_digests(where)
        return
    if digest != spec_digest(data):
        what = "it was edited or damaged after it was saved"
        fits = "remove its 'digest' if the edit is intended; verify='off' (--verify off) loads it unchecked"
        raise SourceError("spec-edited", what, where=where, fits=fits)


def no_digests(where: str) -> SourceError:
    """The error for a source that `verify="full"` cannot check."""
    fits = "verify='fast'; a folder that was saved with digests (saving it again adds them)"
    return SourceError("no-digests", "it has no digests to check against", where=where, fits=fits)


def _file_digest(path: Path) -> FileDigest:
    pages = page_sums(path) if path.suffix == ".safetensors" else None
    return FileDigest(size=path.stat().st_size, sha256=file_sha256(path), pages=pages)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.reshape(-1).view(torch.uint8).numpy().data).hexdigest()


def _damage(path: Path) -> str:
    """The damaged tensors of a safetensors file, as the end of a sentence; "" if its header has no digests."""
    if path.suffix != ".safetensors":
        return ""
    try:
        kept = parse_json(read_metadata(path).get(TENSORS, "{}"), str(path))
        held = open_safetensors(path) if kept else {}
        differ = [key for key, lazy in held.items() if kept.get(key) != _sha256(lazy.read(True))]
    except (LdmkitError, AttributeError, OSError):
        return "; its header is damaged, or it is truncated"
    if not kept:
        return ""
    return f": tensor {first_few(differ, show=shown)}" if differ else ": its header, or bytes between its tensors"
