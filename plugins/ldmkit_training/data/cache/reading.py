"""Cached latents: a folder of arrays that training reads instead of pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ldmkit import Codec, Dataset, InputError, SpecError
from ldmkit.contracts.data import SAMPLED, SPREAD
from ldmkit_training.data.buckets import OneBucket, buckets_of
from ldmkit_training.data.cache.files import DEVIATION, MODE, Meta, StoredInputs, changed_file, differing, read_meta
from ldmkit_training.data.cache.key import cache_key
from ldmkit_training.data.cache.writing import alone, build_cache
from ldmkit_training.data.order import Mixture, after
from ldmkit_training.data.section import DataSection


class LatentCache:
    """An open cache. Row index * views + view holds a sample's view.

    Args:
        folder: a complete one.
        mixture: stretches of its samples, where they are those of one bucket.
    """

    def __init__(self, folder: Path, meta: Meta, mixture: Mixture = ()) -> None:
        self.folder, self.meta, self.mixture = folder, meta, mixture
        self.views = meta.views
        self._mode = np.load(folder / MODE, mmap_mode="r")
        self._deviation = np.load(folder / DEVIATION, mmap_mode="r") if meta.deviation else None
        self._inputs = StoredInputs(folder, meta)
        self._damaged = dict(meta.damaged)

    def __len__(self) -> int:
        return self.meta.samples

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, h, w) of the latents."""
        return tuple(self._mode.shape[1:])

    def latents(self, rows: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Modes and deviations (B,C,h,w) float32 of rows; None for a codec without deviation."""
        chosen = list(rows)
        mode = torch.from_numpy(self._mode[chosen]).float()
        return mode, None if self._deviation is None else torch.from_numpy(self._deviation[chosen]).float()

    def inputs(self, row: int) -> tuple[str, dict[str, Any]]:
        """Id, and inputs as the row's view shows them, by the data's names; maps are (H,W) uint8 or uint16."""
        return self._inputs.read(row)

    def usable(self, index: int, mixture: Mixture = ()) -> tuple[int, dict[str, str]]:
        """The sample, or the next one of its stretch that is not damaged; what was wrong with those between, by id.

        Raises:
            InputError: `no-samples`: all of them are damaged.
        """
        skipped: dict[str, str] = {}
        for chosen in after(index, len(self), mixture):
            if chosen not in self._damaged:
                return chosen, skipped
            skipped[self.inputs(chosen * self.views)[0]] = self._damaged[chosen]
        what, first = f"none of the {len(skipped)} samples can be read", next(iter(skipped))
        raise InputError("no-samples", what, where=first, fits=skipped[first])


Latents: TypeAlias = LatentCache | Mapping[tuple[int, int], LatentCache]
"""Of a dataset, or by size of each of its buckets."""


def cache_of(caches: Latents, size: tuple[int, int]) -> LatentCache:
    """The one for pictures of a size."""
    return caches if isinstance(caches, LatentCache) else caches[size]


def latent_caches(
    dataset: Dataset,
    section: DataSection,
    codec: Codec,
    folder: Path,
    *,
    say: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Latents:
    """The latents of a dataset, or of each of its buckets in a folder of its own; see `latent_cache`."""
    buckets = buckets_of(dataset)
    if buckets is None or section.cache is None:
        return latent_cache(dataset, section, codec, folder, say=say, progress=progress)
    made: dict[tuple[int, int], LatentCache] = {}
    for number, size in enumerate(buckets.sizes):
        where = f"{section.cache.folder}/{size[0]}x{size[1]}"
        cache = section.cache.model_copy(update={"folder": where})
        of_bucket = section.at(size).model_copy(update={"cache": cache})
        members = OneBucket(dataset, buckets, number)
        made[size] = latent_cache(members, of_bucket, codec, folder, say=say, progress=progress)
        made[size].mixture = members.mixture
    return made


def latent_cache(
    dataset: Dataset,
    section: DataSection,
    codec: Codec,
    folder: Path,
    *,
    say: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> LatentCache:
    """The latents of a dataset: those on disk where they still hold, else encoded now.

    The cache is keyed by the codec's config and weights, the data's fingerprint and what a section does to pictures.
    One that was built for anything else is built anew, and replaced when the new one is complete; latents of views that
    it has by the same codec are taken from it. A build that was interrupted goes on. Of several processes one
    encodes while the others wait, and then open what it made.

    Args:
        section: has a `cache`.
        codec: on the device that should encode; its weights and mode of training are left as they are.
        folder: the recipe's; `cache.folder` starts from it.
        say: called with a sentence where something is built.
        progress: called with (samples done, samples in all).

    Raises:
        SpecError: `no-cache`: the section names none.
        InputError: a damaged file (`damaged: stop`); `folder-taken`: the folder holds something else.
        RunError: `cannot-write`.
    """
    if section.cache is None:
        raise SpecError("no-cache", "there is no folder for a cache", where="data.cache", fits="cache: {folder: ...}")
    target = folder / section.cache.folder
    key = cache_key(dataset, section, codec)
    speak = (lambda _: None) if say is None else say
    if SAMPLED in dataset.fingerprint:
        speak(f"the source of the data cannot tell whether all of it is as it was: {SPREAD} samples are compared")
    found = _whole(target, speak)
    if found is None or differing(found.key, key):
        with alone(target, speak, lambda: None if progress is None else progress(0, len(dataset))):
            found = _whole(target, speak)  # another process may have made it in the meantime
            if found is not None and (changed := differing(found.key, key)):
                speak(f"the latents in {target} are out of date ({', '.join(changed)} changed)")
                build_cache(dataset, section, codec, target, key, speak, progress, older=found)
                found = read_meta(target)
            if found is None:
                build_cache(dataset, section, codec, target, key, speak, progress)
                found = read_meta(target)
                assert found is not None
    if len(found.damaged) == found.samples:
        raise InputError("no-samples", "none of the samples could be read", where=str(target))
    return LatentCache(target, found)


def _whole(target: Path, say: Callable[[str], None]) -> Meta | None:
    """The description of a complete cache whose files are as they were written."""
    found = read_meta(target)
    if found is not None and (name := changed_file(target, found)) is not None:
        say(f"{target / name} is not as it was written: the latents are encoded anew")
        return None
    return found
