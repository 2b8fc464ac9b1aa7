"""The identity of training data: a digest of their content, independent of paths and timestamps."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmkit import Dataset, InputError
from ldmkit.contracts.data import SPREAD
from ldmkit.contracts.data_content import framed, sample_bytes, stable_bytes

WHOLE = 64 * 1024
"""Files up to this many bytes are read whole."""

BLOCK = 16 * 1024
"""Of a longer one, its size and a block at its start, middle and end are read."""

ASPECTS = {
    "count": "how many samples there are",
    "ids": "their names or their order",
    "inputs": "labels, texts, boxes or other inputs",
    "pictures": "pictures or maps, or how they are read",
    "mixture": "how often each source is drawn",
}
"""What is compared, and what it is about."""


def identity(dataset: Dataset) -> dict[str, Any]:
    """`{count, ids, inputs, pictures, exact}`: digests of a source's samples in their order; its `mixture`, if any.

    `exact` says whether all samples were looked at; otherwise inputs and pictures are those of `SPREAD` of them.
    """
    ids, inputs, pictures = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    inputs.update(stable_bytes(dict(dataset.geometry)))
    count = len(dataset)
    exact = dataset.content(0) is not None
    looked_at = range(count) if exact else sorted({i * count // SPREAD for i in range(SPREAD)})
    for index in range(count):
        ids.update(framed(dataset.id(index).encode(errors="surrogatepass")))
    for index in looked_at:
        known, files = dataset.content(index) or _decoded(dataset, index)
        inputs.update(framed(known))
        pictures.update(framed(files))
    digests = {"ids": ids, "inputs": inputs, "pictures": pictures}
    found = {"count": count, **{name: made.hexdigest()[:32] for name, made in digests.items()}, "exact": exact}
    mixture = [list(stretch) for stretch in dataset.mixture]
    return found | ({"mixture": mixture} if mixture else {})


def differing(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The aspects in which two identities differ, as words. Other samples have other inputs and pictures as well:
    where names or numbers differ, that is all that is said."""
    for group in (("count",), ("ids",), ("inputs", "pictures", "mixture")):
        if found := [key for key in group if was.get(key) != now.get(key)]:
            numbers = f" ({was.get('count')} before, {now.get('count')} now)" if found == ["count"] else ""
            return [ASPECTS[key] + numbers for key in found]
    return []


def file_bytes(path: Path, start: int = 0, size: int | None = None) -> bytes:
    """What stands for a file's content, or for that of `size` bytes of it: all of a small one; of others the size and
    three blocks. A file that cannot be read stands for itself, by its reason."""
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            return b"no file"
        length = info.st_size if size is None else size
        offsets = [(0, length)] if length <= WHOLE else [(at, BLOCK) for at in (0, length // 2, length - BLOCK)]
        with path.open("rb", buffering=0) as file:
            found = [str(length).encode()]
            for at, many in offsets:
                file.seek(start + at)
                found.append(file.read(many))
    except OSError as problem:
        return f"unreadable: {problem.errno}".encode()
    return b"\n".join(found)


def known_bytes(inputs: Mapping[str, Any]) -> bytes:
    """Inputs as bytes that are the same for the same inputs."""
    return stable_bytes(inputs)


def joined(parts: list[bytes]) -> bytes:
    """Several as one, so that none can pass for its neighbour's share."""
    return b"".join(map(framed, parts))


def _decoded(dataset: Dataset, index: int) -> tuple[bytes, bytes]:
    try:
        sample = dataset[index]
    except InputError as problem:
        return b"", problem.code.encode()
    return sample_bytes(sample.inputs, sample.image)
