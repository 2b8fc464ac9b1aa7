"""Builds a cache of latents in a temporary folder; it can be interrupted, and appears only when it is complete."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows: nobody else waits there
    fcntl = None  # type: ignore[assignment]

import numpy as np
import torch
from torch import Tensor

from ldmkit import Codec, CompositionError, Dataset, InputError, LdmkitError, RunError, ValueMap, read_json
from ldmkit.models.spec import check_names
from ldmkit.run.guards import finite
from ldmkit_training.data.ahead import ahead
from ldmkit_training.data.cache.files import (
    DEVIATION,
    DIGESTS,
    LINES,
    META,
    MODE,
    OFFSETS,
    Meta,
    map_file,
    map_name,
    read_meta,
)
from ldmkit_training.data.cache.reuse import Older, view_digest
from ldmkit_training.data.cache.rows import STATE, Arrays, Chunk, State, Writer
from ldmkit_training.data.geometry import random_draw
from ldmkit_training.data.places import Place, replaced
from ldmkit_training.data.reading import Reader, Row, stacked, unit
from ldmkit_training.data.section import DataSection
from ldmkit_training.data.sources.lying import SpatialInput, array_places, spatial_inputs_of

WAITED = 0.1
"""Seconds between two looks at whether another process's build is over."""
TELL_EVERY = 20.0
"""Seconds between two sentences about how far a build has come."""


def build_cache(
    dataset: Dataset,
    section: DataSection,
    codec: Codec,
    target: Path,
    key: Mapping[str, str],
    say: Callable[[str], None],
    progress: Callable[[int, int], None] | None,
    older: Meta | None = None,
) -> None:
    """Encode all samples into `target`, replacing what is there at the end; the errors of `latent_cache`.

    Args:
        older: what is there, where it is whole: latents of views that show the same are taken from it.
    """
    cache = section.cache
    assert cache is not None
    _check_target(target)
    aside = target.with_name(f"{target.name}.building")
    with _disk(target), _evaluating(codec):
        found = read_meta(aside)
        if found is None or found.key != dict(key):
            state = _interrupted(aside, key)
            if state is None:
                state = _fresh(aside, State(key=dict(key), arrays=_arrays(dataset, section, codec)))
            known = Older(target, older, key)
            many = f"{len(dataset) - state.done} of {len(dataset)} samples into {target}"
            say(f"encoding what is new of {many}" if known else f"encoding {many}")
            with Writer(aside, state, dataset, cache.views) as writer:
                told = time.monotonic()
                for chunk in _chunks(dataset, section, state.done):
                    writer.add(chunk, *_encode(codec, chunk, DEVIATION in state.arrays, known))
                    if time.monotonic() - told > TELL_EVERY:
                        told = time.monotonic()
                        say(f"encoded {writer.state.done} of {len(dataset)} samples")
                    if progress is not None:
                        progress(writer.state.done, len(dataset))
                writer.finish()
            if known:
                say(f"{known.kept} views were taken from the older latents, which show the same")
            known.close()
        _replace(aside, target)


@contextmanager
def alone(target: Path, say: Callable[[str], None], look: Callable[[], None]) -> Iterator[None]:
    """Wait until no other process builds the same cache, and keep others waiting; the system ends it with a process.
    While it waits, `look` is called now and then: it may end the waiting by an exception."""
    with _disk(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = target.with_name(f"{target.name}.lock").open("wb")
    with lock:
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                say(f"waiting for another process that encodes into {target}")
                while not _taken(lock):
                    look()
                    time.sleep(WAITED)
        yield


def _taken(lock: BinaryIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _replace(aside: Path, target: Path) -> None:
    (aside / STATE).unlink(missing_ok=True)
    old = target.with_name(f"{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    aside.rename(target)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _disk(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise RunError("cannot-write", f"writing failed: {problem.strerror or problem}", where=str(target)) from problem


def _check_target(target: Path) -> None:
    if not target.exists():
        return
    names = {path.name for path in target.iterdir()} if target.is_dir() else {target.name}
    foreign = sorted(
        n for n in names if not (n in (META, LINES, OFFSETS, MODE, DEVIATION, DIGESTS) or n.startswith("map-"))
    )
    if foreign:
        what = f"the folder for cached latents holds something else: {foreign[0]!r}"
        raise InputError("folder-taken", what, where=str(target), fits="a new or empty folder")


def _interrupted(aside: Path, key: Mapping[str, str]) -> State | None:
    """How far an interrupted build for the same key came; None where there is nothing to go on with."""
    try:
        state = State.of(read_json(aside / STATE), STATE)
    except LdmkitError:
        return None
    complete = all((aside / name).is_file() for name in (*state.arrays, LINES))
    return state if state.key == dict(key) and complete else None


def _fresh(aside: Path, state: State) -> State:
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    return state


def _arrays(dataset: Dataset, section: DataSection, codec: Codec) -> Arrays:
    """The cache's arrays, as the first readable sample has them."""
    cache = section.cache
    assert cache is not None
    row = Reader(dataset, section).read(0, None)
    images = unit(stacked([row])).to(device=codec.device, dtype=codec.dtype)
    mode = codec.encode(images)
    shape = tuple(mode.shape[1:])
    found: Arrays = {MODE: (cache.dtype, shape), DIGESTS: ("uint8", (16,))}
    if cache.deviation and _has_deviation(codec, images, mode):
        found[DEVIATION] = (cache.dtype, shape)
    found |= _maps(dataset, section, row)
    return found


def _maps(dataset: Dataset, section: DataSection, row: Row) -> Arrays:
    """Those of inputs: labels, and what is decoded."""
    places, lying = sorted(array_places(dataset), key=map_name), spatial_inputs_of(dataset)
    check_names({place.name for place in places})
    there: dict[Place, np.ndarray] = {}
    replaced(row.inputs, places, lambda value, place: there.setdefault(place, value))
    found: Arrays = {}
    for place in places:
        lies = lying.get(place)
        kind = str(there[place].dtype) if place in there else _unseen_dtype(lies)
        found[map_file(map_name(place))] = (kind, section.size if lies is None else lies.shape)
    return found


def _unseen_dtype(lies: SpatialInput | None) -> str:
    """Of an input that the first sample has not."""
    if lies is not None and isinstance(lies.kind, ValueMap):
        return "float32"
    return "uint16" if lies is None or lies.kind == "labels" else "uint8"


def _has_deviation(codec: Codec, images: Tensor, mode: Tensor) -> bool:
    """Whether a codec's latents depend on noise, and then as mode + deviation * noise.

    Raises:
        CompositionError: `codec-noise`: in another way.
    """
    ones = torch.ones_like(mode)
    deviation = codec.encode(images, ones) - mode
    doubled = codec.encode(images, 2 * ones) - mode
    slack = 1e-2 * float(deviation.abs().max()) + 1e-5 * float(mode.abs().max())
    if not torch.allclose(doubled, 2 * deviation, rtol=1e-2, atol=slack):
        what = "its latents are not mode + deviation * noise, so no deviation can be kept"
        raise CompositionError("codec-noise", what, where=type(codec).__name__, fits="cache.deviation: false")
    return bool(deviation.any())


class _Read:
    """Reads the views of samples; goes to other processes."""

    def __init__(self, reader: Reader, views: int) -> None:
        self.reader, self.views = reader, views

    def __call__(self, indices: tuple[int, ...]) -> Chunk | LdmkitError:
        try:
            return Chunk(indices, tuple(self._views(index) for index in indices))
        except LdmkitError as problem:
            return problem

    def _views(self, index: int) -> tuple[Row, ...] | InputError:
        random = self.reader.section.random
        name = self.reader.dataset.id(index)  # not the index: a sample looks the same when others come or go
        draws = [random_draw("cache", view, name) if random else None for view in range(self.views)]
        return self.reader.try_views(index, draws)


def _chunks(dataset: Dataset, section: DataSection, done: int) -> Iterator[Chunk]:
    assert section.cache is not None
    size = max(1, section.cache.batch // section.cache.views)
    total = len(dataset)
    groups = (tuple(range(first, min(first + size, total))) for first in range(done, total, size))
    for chunk in ahead(_Read(Reader(dataset, section), section.cache.views), groups, section.workers):
        if isinstance(chunk, LdmkitError):
            raise chunk
        yield chunk


@contextmanager
def _evaluating(codec: Codec) -> Iterator[None]:
    training = codec.training
    codec.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        codec.train(training)


def _encode(
    codec: Codec, chunk: Chunk, varies: bool, older: Older
) -> tuple[Tensor | None, Tensor | None, list[np.ndarray]]:
    """Mode and deviation (rows,C,h,w) of a chunk's readable rows, and what these show; None where there are none."""
    rows = [row for views in chunk.rows if not isinstance(views, InputError) for row in views]
    if not rows:
        return None, None, []
    digests = [view_digest(row) for row in rows]
    places = older.places(digests)
    fresh = [i for i, place in enumerate(places) if place is None]
    kept = [(i, place) for i, place in enumerate(places) if place is not None]
    parts: list[tuple[list[int], Tensor, Tensor | None]] = []
    if fresh:
        images = unit(stacked([rows[i] for i in fresh])).to(device=codec.device, dtype=codec.dtype)
        mode = codec.encode(images)
        finite(mode, "codec")
        deviation = (codec.encode(images, torch.ones_like(mode)) - mode).float().cpu() if varies else None
        parts.append((fresh, mode.float().cpu(), deviation))
    if kept:
        parts.append(([i for i, _ in kept], *older.latents([place for _, place in kept])))
    order = torch.argsort(torch.tensor([i for part, _, _ in parts for i in part]))
    deviations = [deviation for _, _, deviation in parts if deviation is not None]
    mode = torch.cat([mode for _, mode, _ in parts])[order]
    return mode, torch.cat(deviations)[order] if deviations else None, digests
