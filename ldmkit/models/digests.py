"""Digests of saved models: made when a folder is written, compared when it is read.

They find accidents: bits that flipped, files cut short, mixed up or edited. Whoever can write the folder can write its
digests too; only who has noted the digest of `pipeline.json` elsewhere is safe from them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ldmkit.errors import LdmkitError, SourceError, shown
from ldmkit.files.json import inside, parse_json
from ldmkit.files.reading import check_ordinary
from ldmkit.models.spec import FileDigest, Verify
from ldmkit.models.weights import open_safetensors, read_metadata
from ldmkit.printable import first_few

TENSORS = "ldmkit.sha256"
"""Key of a safetensors file's metadata: a JSON object, name of a tensor -> SHA-256 of its bytes."""

PAGE = 4096
_BLOCK = 1 << 20
_AGAIN = "a good copy; verify='off' (--verify off) loads it as it is"


def tensor_digests(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Metadata of a safetensors file that lets a damaged tensor be named."""
    made = {key: _sha256(tensor.detach().cpu().contiguous()) for key, tensor in tensors.items()}
    return {TENSORS: json.dumps(made, separators=(",", ":"))}


def file_digests(folder: Path, names: Collection[str] | None = None) -> dict[str, FileDigest]:
    """The digests of every file in a folder and below it, or of some, by its path from there."""
    every = (path for path in folder.rglob("*") if path.is_file())
    files = sorted(every if names is None else (folder / name for name in names))
    return {path.relative_to(folder).as_posix(): _made(path) for path in files}


def spec_digest(data: Mapping[str, Any]) -> str:
    """SHA-256 of a spec's JSON without its `digest`: spaces and line ends do not count, the order of keys does."""
    rest = {key: value for key, value in data.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, separators=(",", ":")).encode()).hexdigest()


def page_sums(path: Path) -> str:
    """BLAKE2b of the sums modulo 2^64 of the little-endian 64-bit words of each 4 KiB page, at the speed of memory.

    A change within one word, as a flipped bit makes it, is found always, pages that are swapped, moved or replaced are
    too. Changes that keep a page's sum are not, words that change places within a page among them.
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


class Checked:
    """The files of a saved folder, each compared with its digest before anything is made of it.

    Args:
        folder: of the saved pipeline or part.
        files: what its spec lists; None for one that was saved without digests.
        verify: "fast" compares sizes, page sums of weights and SHA-256 of all else; "full" SHA-256 throughout.
    """

    def __init__(self, folder: Path, files: Mapping[str, FileDigest] | None, verify: Verify) -> None:
        self.folder, self.full = folder, verify == "full"
        self.files = None if verify == "off" else files
        if self.full and files is None:
            raise no_digests(str(folder))

    def check(self, name: str) -> None:
        """Compare a file; one that is neither listed nor there is fine.

        Raises:
            SourceError: `digest-differs`, naming the file, and the tensors where it holds such; `not-listed`.
        """
        path = inside(self.folder, name)
        if self.files is None or not (name in self.files or path.exists()):
            return
        if name not in self.files:
            raise SourceError("not-listed", "the saved model had no such file", where=str(path), fits=_AGAIN)
        wanted, size = self.files[name], check_ordinary(path).st_size
        if size != wanted.size:
            what = f"it has {size} bytes, {wanted.size} were saved"
        elif self.full or wanted.pages is None:
            what = "" if _file_sha256(path) == wanted.sha256 else "its bytes are not those that were saved"
        else:
            what = "" if page_sums(path) == wanted.pages else "its bytes are not those that were saved"
        if what:
            raise SourceError("digest-differs", what + _damage(path), where=str(path), fits=_AGAIN)

    def check_below(self, folder: str) -> None:
        """Compare all files of a folder, those that should be there and those that are; hidden ones do not count.

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
    """Compare a spec, as it was read, with its own digest.

    Raises:
        SourceError: `spec-edited`; `no-digests` where "full" has nothing to compare with.
    """
    if verify == "off":
        return
    digest = data.get("digest")
    if digest is None:
        if verify == "full":
            raise no_digests(where)
        return
    if digest != spec_digest(data):
        what = "it is not as it was saved: edited, or damaged"
        fits = "where the edit is meant, its 'digest' taken out; verify='off' (--verify off) loads it as it is"
        raise SourceError("spec-edited", what, where=where, fits=fits)


def no_digests(where: str) -> SourceError:
    """The error for a source that `verify="full"` cannot check."""
    fits = "verify='fast'; a folder that was saved with digests (saving it again makes them)"
    return SourceError("no-digests", "it has no digests to check against", where=where, fits=fits)


def _made(path: Path) -> FileDigest:
    pages = page_sums(path) if path.suffix == ".safetensors" else None
    return FileDigest(size=path.stat().st_size, sha256=_file_sha256(path), pages=pages)


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.reshape(-1).view(torch.uint8).numpy().data).hexdigest()


def _damage(path: Path) -> str:
    """The damaged tensors of a safetensors file, as the end of a sentence; nothing where its header does not tell."""
    if path.suffix != ".safetensors":
        return ""
    try:
        kept = parse_json(read_metadata(path).get(TENSORS, "{}"), str(path))
        held = open_safetensors(path) if kept else {}
        differ = [key for key, lazy in held.items() if kept.get(key) != _sha256(lazy.read(True))]
    except (LdmkitError, AttributeError, OSError):
        return "; its header is damaged, or it is cut short"
    if not kept:
        return ""
    return f": tensor {first_few(differ, show=shown)}" if differ else ": its header, or what is between its tensors"
