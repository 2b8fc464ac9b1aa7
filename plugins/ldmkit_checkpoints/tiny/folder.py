"""A tiny autoencoder in a folder with two files, `[name_]encoder` and `[name_]decoder`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ldmkit_codecs.tiny import TinyConfig

from ldmkit import LazyTensor, PartSpec, PipelineSpec, Source, SourceError
from ldmkit.models.weights import open_safetensors
from ldmkit_checkpoints.inventory import Inventory
from ldmkit_checkpoints.tiny.keys import tiny_from_sequential, tiny_sequential_keys
from ldmkit_checkpoints.torchfile.state_dict import SUFFIXES, open_state_dict

HALVES = ("encoder", "decoder")


def tiny_pairs(folder: Path) -> dict[str, dict[str, Path]]:
    """Pairs of encoder and decoder files by their common prefix; safetensors are preferred."""
    pairs: dict[str, dict[str, Path]] = {}
    for suffix in (".safetensors", *SUFFIXES):
        for encoder in sorted(folder.glob(f"*{HALVES[0]}{suffix}")):
            name = encoder.name.removesuffix(f"{HALVES[0]}{suffix}")
            decoder = encoder.with_name(f"{name}{HALVES[1]}{suffix}")
            if decoder.is_file():
                pairs.setdefault(name, {"encoder": encoder, "decoder": decoder})
    return pairs


def is_tiny_folder(path: Path) -> bool:
    """Whether a folder holds an encoder and a decoder file."""
    return path.is_dir() and bool(tiny_pairs(path))


class TinyFolder(Source):
    """The source for a tiny autoencoder alone.

    Raises:
        SourceError: several pairs in the folder, or keys of another layout.
    """

    takes = frozenset()

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        pairs = tiny_pairs(folder)
        if len(pairs) != 1:
            what = f"{len(pairs)} pairs of encoder and decoder: {', '.join(repr(name) for name in pairs)}"
            raise SourceError("ambiguous", what, where=self.origin, fits="a folder with one pair")
        (files,) = pairs.values()
        halves = {half: _open(path) for half, path in files.items()}
        encoder, decoder = ({key: tensor.shape for key, tensor in halves[half].items()} for half in HALVES)
        self._config = tiny_from_sequential(encoder, decoder, self.origin)
        tensors = {f"{half}.{key}": tensor for half in HALVES for key, tensor in halves[half].items()}
        self._inventory = Inventory(tensors, self.report, self.origin)

    @property
    def spec(self) -> PipelineSpec:
        raise SourceError("codec-only", "it is a first stage alone", where=self.origin, fits="ldmkit.load_codec")

    @property
    def codec_spec(self) -> PartSpec:
        return PartSpec(type="tiny", config=self._config)

    def tensors(self, part: str) -> Mapping[str, LazyTensor]:
        if part != "codec":
            raise SourceError("no-part", f"there is no part {part!r}", where=self.origin, fits="codec")
        found = self._inventory.take("codec", tiny_sequential_keys(TinyConfig.of(self._config)))
        self._inventory.finish()
        return found


def _open(path: Path) -> dict[str, LazyTensor]:
    return open_safetensors(path) if path.suffix == ".safetensors" else open_state_dict(path)[0]
