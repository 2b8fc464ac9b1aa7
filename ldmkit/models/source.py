"""Sources of pipelines, which provide a spec and, part by part, tensors under native keys."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from ldmkit.errors import SourceError
from ldmkit.files.json import inside, read_json
from ldmkit.models.digests import Checked, check_spec
from ldmkit.models.spec import SPEC_FILE, ConditionerSpec, PartSpec, PipelineSpec, SavedPart, Verify, owners_of
from ldmkit.models.weights import LazyTensor, open_safetensors

ALONE = ("codec", "classifier")
"""Kinds of part that can be saved individually."""


class SlotPart(NamedTuple):
    """What fills a slot of an adapter.

    Args:
        spec: of the conditioner; `input` is the name of its input where it is free, and `shares` the conditioner of the
            pipeline whose weights it reads.
        part: path of the conditioner in the source, for its tensors and assets; None: it has none.
    """

    spec: ConditionerSpec
    part: str | None = None


@dataclass
class LoadReport:
    """The keys of a source that were used (key -> part) or ignored (key -> reason), and notes for the user.

    `remarks` are notes that attaching the file warns of."""

    used: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def summary(self) -> list[str]:
        """A few lines: counts by part, counts by reason, notes."""
        parts = Counter(self.used.values())
        reasons = Counter(self.ignored.values())
        lines = [f"{count} tensors -> {part}" for part, count in parts.items()]
        lines += [f"{count} keys ignored: {reason}" for reason, count in reasons.items()]
        return lines + self.notes


class Source(ABC):
    """A model in some format. Parts are `codec`, `denoiser`, `conditioners.<name>`, `adapters.<name>`.

    `has_variants`: whether the format has several named sets of weights and the reader supports `variant`.
    """

    has_variants: ClassVar[bool] = False
    takes: ClassVar[frozenset[str]] = frozenset({"config", "ema"})
    """Which of the arguments `config` and `ema` the reader uses; the others are refused if given."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.report = LoadReport()
        self.files: dict[str, Path] = {}
        """Option of `Pipeline.with_adapter_file` -> the further file or folder that it names and the reader reads."""
        self.defaults: dict[str, Any] = {}
        """Fields of `Defaults` that a file of changes asks for where it is attached (`Pipeline.with_lora`)."""

    @property
    @abstractmethod
    def spec(self) -> PipelineSpec:
        """The spec of the pipeline.

        Raises:
            SourceError: `codec-only`, `denoiser-only`, `adapter-only` if the source contains only that part.
        """

    @property
    def codec_spec(self) -> PartSpec:
        """The spec of the first stage alone."""
        return self.spec.codec

    @property
    def classifier_spec(self) -> PartSpec:
        """The spec of a classifier of noisy latents.

        Raises:
            SourceError: `no-classifier`.
        """
        raise SourceError("no-classifier", "there is no classifier in it", where=self.origin)

    @property
    def assumption(self) -> str | None:
        """An assumption made about the codec, for a warning; None if there is none."""
        return None

    @property
    def dtype(self) -> str | None:
        """The default dtype of floating-point weights; None keeps the dtypes of the file."""
        return None

    @property
    def adapters(self) -> Mapping[str, PartSpec]:
        """The adapters by name; a source may contain only adapters."""
        return self.spec.adapters

    def conditioners_of(self, adapter: str) -> Mapping[str, SlotPart]:
        """Slot of an adapter -> the conditioner that fills it when the file is attached to a pipeline.

        The caller has to give those that are not in it. The default is those of the pipeline that the source holds.
        """
        try:
            spec = self.spec
        except SourceError as error:
            if error.code == "source.adapter-only":
                return {}
            raise
        found, owners = {}, owners_of(spec.conditioners)
        for name, own in spec.conditioners.items():
            if own.slot is not None and own.slot.startswith(f"{adapter}."):
                part = f"conditioners.{name}"
                named = own.model_copy(update={"input": own.input or name, "shares": None})
                found[own.slot.removeprefix(f"{adapter}.")] = SlotPart(named, owners.get(part, part))
        return found

    @abstractmethod
    def tensors(self, part: str) -> Mapping[str, LazyTensor]:
        """The part's tensors under native keys, not yet read."""

    def assets(self, part: str) -> Path | None:
        """Folder with the part's other files (vocabularies); None if there are none."""
        return None


class Learnt(NamedTuple):
    """Vectors of one token for one text encoder, as a file has them.

    Args:
        token: as the file names it; None where it does not.
        tower: `clip_l`, `clip_g` ..., or "" in a file for a single text encoder.
        key: of the tensor in the file, for errors.
        vectors: (n, width) or (width,), not yet read.
    """

    token: str | None
    tower: str
    key: str
    vectors: LazyTensor


class _Folder(Source):
    """A folder with a tensor file and optionally an assets folder for each part."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.folder = folder
        self._checked = Checked(folder, None, "off")

    def tensors(self, part: str) -> Mapping[str, LazyTensor]:
        path = inside(self.folder, weights_file(part))
        tensors = open_safetensors(path) if path.exists() else {}
        self.report.used.update((f"{path.name}:{key}", part) for key in tensors)
        verify = cache(partial(self._checked.check, weights_file(part)))
        return {key: _verified(tensor, verify) for key, tensor in tensors.items()}

    def assets(self, part: str) -> Path | None:
        folder = inside(self.folder, assets_folder(part))
        for path in folder.iterdir() if folder.is_dir() else ():
            inside(self.folder, str(path.relative_to(self.folder)))
        self._checked.check_below(assets_folder(part))
        return folder if folder.is_dir() else None


def _verified(tensor: LazyTensor, verify: Callable[[], None]) -> LazyTensor:
    """The tensor with its file verified before it is read, so that errors in names and shapes are reported first."""

    def read(copy: bool) -> Tensor:
        verify()
        return tensor.read(copy)

    return replace(tensor, read=read)


class NativeFolder(_Folder):
    """A folder written by `Pipeline.save`: pipeline.json, codec.safetensors, denoiser.safetensors, ...

    Its spec is verified against its digest at once, the other files before they are used.
    """

    def __init__(self, folder: Path, verify: Verify = "fast") -> None:
        super().__init__(folder)
        path = inside(folder, SPEC_FILE)
        data = read_json(path)
        self._spec = PipelineSpec.read(data, str(path))
        check_spec(data, str(path), verify)
        self._checked = Checked(folder, self._spec.files, verify)

    @property
    def spec(self) -> PipelineSpec:
        return self._spec

    @property
    def dtype(self) -> str | None:
        return self._spec.defaults.dtype


class PartFolder(_Folder):
    """A folder written by `save_part`, with a single part: codec.json and codec.safetensors, or another kind."""

    def __init__(self, folder: Path, verify: Verify = "fast") -> None:
        super().__init__(folder)
        self.kind = next(kind for kind in ALONE if (folder / part_file(kind)).is_file())
        path = inside(folder, part_file(self.kind))
        data = read_json(path)
        saved = SavedPart.of(data, str(path))
        check_spec(data, str(path), verify)
        self._checked = Checked(folder, saved.files, verify)
        self.part = PartSpec(**saved.model_dump(include=set(PartSpec.model_fields)))

    @property
    def spec(self) -> PipelineSpec:
        raise self._alone("a pipeline")

    @property
    def codec_spec(self) -> PartSpec:
        return self.part_spec("codec")

    @property
    def classifier_spec(self) -> PartSpec:
        return self.part_spec("classifier")

    def part_spec(self, kind: str) -> PartSpec:
        """The spec of the part.

        Raises:
            SourceError: `codec-only`, `classifier-only` if the part is of another kind.
        """
        if kind != self.kind:
            raise self._alone(f"a {kind}")
        return self.part

    def _alone(self, wanted: str) -> SourceError:
        what = f"it contains only a {self.kind}, not {wanted}"
        return SourceError(f"{self.kind}-only", what, where=self.origin, fits=f"ldmkit.load_{self.kind}")


def weights_file(part: str) -> str:
    """File of a part's tensors inside a saved pipeline."""
    return part.replace(".", "/") + ".safetensors"


def assets_folder(part: str) -> str:
    """Folder of a part's other files inside a saved pipeline."""
    return part.replace(".", "/")


def is_native(path: Path) -> bool:
    """Whether a folder contains a saved pipeline."""
    return (path / SPEC_FILE).is_file()


def part_file(kind: str) -> str:
    """Spec file of an individually saved part."""
    return f"{kind}.json"


def is_part(path: Path) -> bool:
    """Whether a folder contains an individually saved part."""
    return not is_native(path) and any((path / part_file(kind)).is_file() for kind in ALONE)


class AdapterSource(Source):
    """A source that holds an adapter, and no pipeline."""

    takes = frozenset()

    @property
    def spec(self) -> PipelineSpec:
        raise adapter_only(self.origin)


def adapter_only(origin: str) -> SourceError:
    """The error for loading a pipeline from an adapter's file."""
    fits = "Pipeline.with_adapter_file (--adapter), or ldmkit.load_adapter and Pipeline.with_adapter"
    return SourceError("adapter-only", "it contains only an adapter", where=origin, fits=fits)


def unrecognised(path: Path) -> SourceError:
    """The error for a path in an unknown format; it suggests a model in a direct subfolder, if any."""
    fits = f"a folder with {SPEC_FILE} or model_index.json, or a .ckpt or .safetensors file"
    if path.is_dir() and (inner := sorted(child.parent for child in path.glob(f"*/{SPEC_FILE}"))):
        fits = f"{inner[0]}, which contains a model"
    return SourceError("unrecognised", "no reader recognises this format", where=str(path), fits=fits)
