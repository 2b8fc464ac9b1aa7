"""DeepFloyd IF and Stable Diffusion's x4 upscaler: stages of a cascade, each a folder of diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ldmkit_denoisers.config import UNetConfig

from ldmkit import CascadeSource, CascadeSpec, ConditionerSpec, LazyTensor, PipelineSpec, SourceError, StageSpec
from ldmkit_checkpoints.component_files import member, read_member_json
from ldmkit_checkpoints.diffusers.folder import INDEX, DiffusersFolder
from ldmkit_checkpoints.diffusers.parts import Component
from ldmkit_checkpoints.diffusers.scheduler import read_scheduler
from ldmkit_checkpoints.diffusers.unet_fields import refuse

LENGTH = 77
"""Tokens of a text, which diffusers' pipelines of IF have in their code."""

SCALE = 0.08333
"""Scale of the upscaler's latents, likewise."""


class Published(NamedTuple):
    """What a pipeline's code says: the place of its stage in a cascade, and the defaults of calls."""

    stage: int
    steps: int
    guidance: float
    level: int = 0


STAGES = ("base", "up", "large")
"""Names of the stages."""

INPUTS = ("", "low", "picture")
"""Their inputs for the picture that they enlarge: two names, so that one's own picture is given to one of them."""

CLASSES = {
    "IFPipeline": Published(0, 100, 7.0),
    "IFImg2ImgPipeline": Published(0, 80, 10.0),
    "IFInpaintingPipeline": Published(0, 50, 7.0),
    "IFSuperResolutionPipeline": Published(1, 50, 4.0, 250),
    "IFImg2ImgSuperResolutionPipeline": Published(1, 50, 4.0, 250),
    "IFInpaintingSuperResolutionPipeline": Published(1, 100, 4.0, 0),
    "StableDiffusionUpscalePipeline": Published(2, 75, 9.0, 20),
}
"""diffusers' pipelines by class."""

_ENCODER = ("text_encoder", "tokenizer")
_ENLARGED = 4
"""How many times IF-II enlarges, where no folder of the first stage says its size."""


class StageFolder(DiffusersFolder):
    """A folder of one stage.

    Args:
        text: folder whose text encoder is used where this one has none.
        low: size of the small picture, for a stage that enlarges it; None: a fourth.
    """

    guides_variance = False

    def __init__(
        self,
        folder: Path,
        ema: bool | None = None,
        variant: str | None = None,
        text: Path | None = None,
        low: int | None = None,
    ) -> None:
        self._text, self._low, self._borrows = text, low, False
        super().__init__(folder, ema, variant)

    @property
    def published(self) -> Published:
        """What its pipeline's code says."""
        return CLASSES[str(self.index["_class_name"])]

    def read_index(self, folder: Path) -> dict[str, Any]:
        """model_index.json, with the entries of a text encoder elsewhere."""
        index = super().read_index(folder)
        if self._text is None or has_text(index):
            return index
        other = read_member_json(self._text, INDEX)
        self._borrows = has_text(other)
        return {**index, **{key: other[key] for key in _ENCODER}} if self._borrows else index

    def root(self, component: str) -> Path:
        """A text encoder elsewhere has another root."""
        return self._text if self._borrows and self._text is not None and component in _ENCODER else self.folder

    def pixels(self, unet: Mapping[str, Any]) -> Any:
        """Half of the channels are the small picture's, if there is one."""
        channels = unet.get("in_channels", 3)
        return channels // 2 if self.published.stage == 1 and isinstance(channels, int) else channels

    def _as_class(self, name: str) -> dict[str, Any]:
        config = super()._as_class(name)
        if name == "vae" and config.get("scaling_factor") != SCALE:
            self.report.notes.append(f"vae: scaling_factor is {config.get('scaling_factor')}; {SCALE}, as in diffusers")
            config["scaling_factor"] = SCALE
        return config

    def _texts(self) -> dict[str, ConditionerSpec]:
        found = super()._texts()
        for name, spec in found.items():
            if spec.type == "t5-text":
                own = {**spec.config, "masked": "inside", "max_length": LENGTH, "lower": True}
                found[name] = spec.model_copy(update={"config": own})
        return found

    def _conditioners(self, codec: Component, unet: UNetConfig) -> dict[str, ConditionerSpec]:
        found = super()._conditioners(codec, unet)
        if self.published.stage == 0:
            return found
        if unet.plane_channels != 3 or unet.vector not in ("timestep", "table"):
            what = f"a picture of {unet.plane_channels} channels and its noise level as {unet.vector!r}"
            fits = "3 channels, and class_embed_type timestep or num_class_embeds"
            raise SourceError("unsupported", what, where=f"{self.folder}/unet/config.json", fits=fits)
        noise = self._noise(unet)
        found.pop("vector"), found.pop("plane")
        wiring: dict[str, Any] = {"input": INPUTS[self.published.stage], "null": "keep"}
        picture = {**noise, "enlarge": self._enlarged(), **self._method()}
        found["low"] = ConditionerSpec(type="noised-picture", config=picture, slot="plane", **wiring)
        found["level"] = ConditionerSpec(type="noise-level", config=noise, slot="vector", **wiring)
        return found

    def _noise(self, unet: UNetConfig) -> dict[str, Any]:
        """The process, default and highest level of the small picture's noise."""
        name = "image_noising_scheduler" if self.published.stage == 1 else "low_res_scheduler"
        config = {**self._config(name, "scheduler_config.json"), "_class_name": self._classes[name]}
        process = read_scheduler(config, f"{self.folder}/{name}").process
        total = int(process.config.get("steps", 1000))
        most = total - 1 if self.published.stage == 1 else self.index.get("max_noise_level", 350)
        if type(most) is not int or not 0 <= most < total:
            raise refuse("max_noise_level", most, f"a timestep of the {total}")
        if unet.vector == "table":
            most = min(most, (unet.vector_dim or 1) - 1)
        level = min(self.published.level, most)
        if level != self.published.level:
            self.report.notes.append(f"noise level {level}: the default of {self.published.level} is not in the table")
        return {"process": process.model_dump(include={"type", "config"}), "level": level / total, "most": most / total}

    def _enlarged(self) -> int:
        """How many times the small picture is enlarged before it joins the latents."""
        if self.published.stage == 2:
            return 1
        size = self._config("unet").get("sample_size")
        if self._low is None or type(size) is not int:
            return _ENLARGED
        if size % self._low:
            what = f"it draws {size} pixels from a picture of {self._low}, which is no whole number of times"
            raise SourceError("unsupported", what, where=f"{self.folder}/unet/config.json: sample_size")
        return size // self._low

    def _method(self) -> dict[str, Any]:
        return {"method": "bilinear", "align_corners": True} if self.published.stage == 1 else {}

    def _compose(self) -> PipelineSpec:
        spec, said = super()._compose(), self.published
        texts = any(one.type in ("t5-text", "clip-text") for one in spec.conditioners.values())
        own = {"steps": min(said.steps, spec.process.config.get("steps", 1000))}
        guidance = spec.defaults.guidance
        if texts:
            guidance = guidance.model_copy(update={"type": "cfg", "config": {"scale": said.guidance}})
        return spec.model_copy(update={"defaults": spec.defaults.model_copy(update={**own, "guidance": guidance})})


class IFFolder(CascadeSource):
    """A folder with a folder for each stage: IF-I, IF-II, and the x4 upscaler; consecutive ones suffice.

    Stages read one text encoder if it is the same in both, or if the later one has none.
    """

    has_variants = True
    takes = frozenset({"ema"})

    def __init__(self, folder: Path, stages: Mapping[int, Path], ema: bool | None, variant: str | None) -> None:
        super().__init__(str(folder))
        self._sources: dict[str, StageFolder] = {}
        base, before = stages.get(0), ""
        wiring: dict[str, StageSpec] = {}
        for place in sorted(stages):
            text = base if place == 1 else None
            source = StageFolder(stages[place], ema, variant, text, self._size(place))
            name = STAGES[place]
            shares = self._shared(source) if place == 1 and base is not None else {}
            handed = {f"{INPUTS[place]}.image": before} if before else {}
            wiring[name] = StageSpec(inputs=handed, shares=shares)
            self._sources[name], before = source, name
            self.report.notes += [f"{name}: {note}" for note in source.report.notes]
        self._cascade = CascadeSpec(stages=wiring)

    @property
    def cascade(self) -> CascadeSpec:
        return self._cascade

    def stage(self, name: str) -> StageFolder:
        return self._sources[name]

    def _size(self, place: int) -> int | None:
        base = self._sources.get(STAGES[0])
        size = base.spec.defaults.size if place == 1 and base is not None else None
        return None if size is None else size[0]

    def _shared(self, source: StageFolder) -> dict[str, str]:
        path = "conditioners.text"
        mine, other = (one.spec.conditioners.get("text") for one in (source, self._sources[STAGES[0]]))
        if mine is None or other is None or (mine.type, mine.config) != (other.type, other.config):
            return {}
        if not _same(source.tensors(path), self._sources[STAGES[0]].tensors(path)):
            self.report.notes.append("up: its text encoder differs from the first stage's, and is read separately")
            return {}
        return {path: f"{STAGES[0]}.{path}"}


def _same(one: Mapping[str, LazyTensor], other: Mapping[str, LazyTensor]) -> bool:
    """Whether two encoders have the same shapes and norms, without reading billions of weights."""
    if {key: value.shape for key, value in one.items()} != {key: value.shape for key, value in other.items()}:
        return False
    small = [key for key, value in one.items() if len(value.shape) == 1]
    return all(one[key].read(True).equal(other[key].read(True)) for key in small)


def has_text(index: Mapping[str, Any]) -> bool:
    """Whether a pipeline's index names a text encoder."""
    entry = index.get("text_encoder")
    return isinstance(entry, list) and any(entry)


def open_cascade(folder: Path, ema: bool | None, variant: str | None) -> IFFolder | None:
    """The source for a folder of stages' folders; None for other folders.

    Raises:
        SourceError: `unsupported`: two folders of one stage, or a stage missing between two others.
    """
    found: dict[int, Path] = {}
    for child in sorted(path for path in folder.iterdir() if path.is_dir() and (path / INDEX).is_file()):
        name = _class_of(member(folder, child.name))
        if name not in CLASSES:
            continue
        place = CLASSES[name].stage
        if place in found:
            what = f"{found[place].name!r} and {child.name!r} are both stage {place + 1} of DeepFloyd IF"
            raise SourceError("unsupported", what, where=str(folder), fits="one folder for each stage")
        found[place] = child
    if not found or set(found) == {2}:
        return None
    if 0 in found and 2 in found and 1 not in found:
        what = f"{found[0].name!r} is its first stage and {found[2].name!r} its third, and the second is missing"
        raise SourceError("unsupported", what, where=str(folder), fits="a folder of IFSuperResolutionPipeline")
    return IFFolder(folder, found, ema, variant)


def _class_of(folder: Path) -> Any:
    return read_member_json(folder, INDEX).get("_class_name")
