"""Export of a pipeline as a folder for diffusers' from_pretrained."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ldmkit_codecs.consistency import ConsistencyConfig
from ldmkit_codecs.kl import KLConfig
from ldmkit_codecs.tiny import TinyConfig
from ldmkit_codecs.vq import VQConfig
from ldmkit_conditioners.clip_tower import ClipConfig
from ldmkit_denoisers.config import UNetConfig
from ldmkit_processes.guidance.cfg import CFG
from torch import Tensor

from ldmkit import (
    Codec,
    ConditionerSpec,
    Defaults,
    InputError,
    Part,
    PartSpec,
    Pipeline,
    PipelineSpec,
    SourceError,
    read_json,
    write_json,
)
from ldmkit.models.saving import check_folder, replacing_folder
from ldmkit.models.source import is_native
from ldmkit.models.weights import write_safetensors
from ldmkit_checkpoints.conditioners import MASKED_IMAGE
from ldmkit_checkpoints.diffusers.consistency import consistency_diffusers_keys, consistency_to_diffusers
from ldmkit_checkpoints.diffusers.folding import standard
from ldmkit_checkpoints.diffusers.ldm_bert import bert_diffusers_keys, ldm_bert_to_diffusers
from ldmkit_checkpoints.diffusers.scheduler import FROM_SIGMA
from ldmkit_checkpoints.diffusers.scheduler_export import Exported, exported_scheduler
from ldmkit_checkpoints.diffusers.scheduler_fields import CLASSES
from ldmkit_checkpoints.diffusers.tiny import tiny_diffusers_keys, tiny_to_diffusers
from ldmkit_checkpoints.diffusers.unet_config import unet_to_diffusers
from ldmkit_checkpoints.diffusers.unet_keys import unet_diffusers
from ldmkit_checkpoints.diffusers.vae_config import kl_to_diffusers, vq_to_diffusers
from ldmkit_checkpoints.diffusers.vae_keys import kl_diffusers_keys, vq_diffusers_keys
from ldmkit_checkpoints.keys import KeyMap
from ldmkit_checkpoints.transformers.text_config import clip_to_hf
from ldmkit_checkpoints.transformers.text_keys import clip_hf_keys

VERSION = "0.42.1"
"""The diffusers version whose format is written."""

_CODECS: dict[str, Any] = {
    "kl": (KLConfig, kl_to_diffusers, kl_diffusers_keys),
    "vq": (VQConfig, vq_to_diffusers, vq_diffusers_keys),
    "consistency": (ConsistencyConfig, consistency_to_diffusers, consistency_diffusers_keys),
    "tiny": (TinyConfig, tiny_to_diffusers, tiny_diffusers_keys),
}
_ABSENT = [None, None]
_RUN_AS = {"DDIMPipeline": ("DDIMScheduler",), "DDPMPipeline": ("DDPMScheduler",)}
_RUN_AS["LDMTextToImagePipeline"] = tuple(name for name, kind in CLASSES.items() if kind.sampler not in FROM_SIGMA)
"""Schedulers that a pipeline runs as they are: the first makes DDIM of any, the others do not scale what the network
reads."""
_STEPS = {"DDPMPipeline": 1000}
"""Steps of a pipeline that is told none; 50 in all others."""
_SCALES = {"LDMTextToImagePipeline": 1.0, "LDMPipeline": None, "DDIMPipeline": None, "DDPMPipeline": None}
_SCALES |= {"StableDiffusionXLPipeline": 5.0, "StableDiffusionXLImg2ImgPipeline": 5.0}
"""Guidance scale of a pipeline that is told none; 7.5 in all others, None where there is no guidance."""


class ExportWarning(UserWarning):
    """What a folder of diffusers does not hold of a model."""


def save_diffusers(pipeline: Pipeline, folder: str | Path) -> Path:
    """Write model_index.json and one folder per component.

    Supported are Stable Diffusion 1 and 2 (inpainting included), SDXL base and refiner, latent diffusion without and
    with the paper's text transformer, and pixel diffusion.

    An `ExportWarning` says where the scheduler is not the default sampler and grid, which is found by running both,
    and what diffusers has to be told in every call, as no file holds it (steps, guidance scale, eta); and that Stable
    Diffusion has no safety checker there, whatever folder it came from.

    Raises:
        SourceError: `not-expressible` if diffusers has no pipeline or option for a part.
        InputError: `folder-taken`, `no-folder`.
        RunError: `cannot-write`.
    """
    target = Path(folder)
    check_folder(target)
    if is_native(target):
        raise InputError("folder-taken", "it holds a saved pipeline", where=str(target), fits="a new or empty folder")
    export = _Export(pipeline)
    index = export.plan()
    with replacing_folder(target) as building:
        export.write(building)
        write_json(building / "model_index.json", index)
    for what in export.left:
        warnings.warn(what, ExportWarning, stacklevel=2)
    return target


def published(state: Mapping[str, Tensor], keymap: KeyMap) -> dict[str, Tensor]:
    """Convert native tensors to a published layout."""
    found: dict[str, Tensor] = {}
    for native, entry in keymap.items():
        found.update(zip(entry.keys, entry.write(state[native]), strict=True))
    return found


def codec_component(kind: str, codec: Codec) -> tuple[dict[str, Any], KeyMap]:
    """config.json and the keys of a codec.

    Raises:
        SourceError: `not-expressible`, `inexpressible`: diffusers has no such codec or option.
    """
    if kind not in _CODECS:
        raise inexpressible(f"codec {kind!r}", "codec")
    cls, to_config, to_keys = _CODECS[kind]
    config = cls.of(codec.config)
    return to_config(config), to_keys(config)


def unet_component(pipeline: Pipeline, size_dim: int = 256) -> tuple[dict[str, Any], KeyMap]:
    """config.json and the keys of a pipeline's U-Net; the errors of `unet_to_diffusers`."""
    spec = pipeline.spec
    if spec.denoiser.type != "unet":
        raise inexpressible(f"denoiser {spec.denoiser.type!r}", "denoiser")
    config = UNetConfig.of(spec.denoiser.config)
    written = unet_to_diffusers(config, size_dim=size_dim)
    if spec.defaults.size is not None:
        sides = [side // pipeline.codec.factor for side in spec.defaults.size]
        written["sample_size"] = sides[0] if sides[0] == sides[1] else sides
    return written, unet_diffusers(config)


def size_width(conditioners: Mapping[str, PartSpec]) -> int:
    """Width of the code of one number in SDXL's vector; 256, as in the published models, without any."""
    widths = [spec.config.get("width", 256) for spec in conditioners.values() if spec.type == "size-codes"]
    return int(widths[0]) if widths else 256


def scheduler_component(spec: PipelineSpec, pipeline: str = "") -> Exported:
    """scheduler_config.json, for a pipeline of that class; the errors of `exported_scheduler`."""
    if spec.process.type != "discrete":
        raise inexpressible(f"process {spec.process.type!r}", "process")
    return exported_scheduler(spec, _RUN_AS.get(pipeline), pipeline)


class _Export:
    """What to write: configs, modules with their key maps, and tokenizers, by component."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.spec = pipeline.spec
        self.configs: dict[str, dict[str, Any]] = {}
        self.weights: dict[str, tuple[Part, KeyMap]] = {}
        self.tokenizers: dict[str, tuple[Part, dict[str, Any]]] = {}
        self.left: list[str] = []
        """What is said of the model that the folder does not hold."""

    def plan(self) -> dict[str, Any]:
        """Return model_index.json; all checks happen here, before anything is written."""
        spec = self.spec
        if spec.adapters:
            raise inexpressible("adapters (detach and save them separately)")
        kinds = {name: part.type for name, part in spec.conditioners.items()}
        if spec.denoiser.type != "unet":
            raise inexpressible(f"denoiser {spec.denoiser.type!r}")
        texts = [name for name, kind in kinds.items() if kind == "clip-text"]
        if "ldm-text" in kinds.values():
            return self._ldm_text(kinds)
        if "clip-pooled" in kinds.values():
            return self._xl(texts, kinds)
        if texts:
            return self._sd(texts, kinds)
        if kinds:
            raise inexpressible(f"conditions {sorted(kinds)}")
        return self._plain()

    def write(self, folder: Path) -> None:
        """Write all components; the caller writes model_index.json."""
        for name, config in self.configs.items():
            (folder / name).mkdir(exist_ok=True)
            write_json(folder / name / ("scheduler_config.json" if name == "scheduler" else "config.json"), config)
        for name, (part, keymap) in self.weights.items():
            hugging = name.startswith("text_encoder") or name == "bert"
            stem = "model" if hugging else "diffusion_pytorch_model"
            tensors = published(part.state_dict(), keymap)
            if name == "bert":
                tensors |= _unused_head(tensors["model.embed_tokens.weight"])
            write_safetensors(folder / name / f"{stem}.safetensors", tensors)
        for name, (part, config) in self.tokenizers.items():
            (folder / name).mkdir()
            part.save_assets(folder / name)
            own = folder / name / "tokenizer_config.json"
            stated = read_json(own) if own.is_file() else {}
            write_json(own, {**config, **stated})

    def _index(self, name: str, components: dict[str, Any], **options: Any) -> dict[str, Any]:
        found = scheduler_component(self.spec, name)
        self.configs["scheduler"] = found.config
        said = {**_call_arguments(self.spec.defaults, name), **found.arguments}
        self.left += [what for what in (found.lost, _guidance_lost(self.spec.defaults.guidance, name)) if what]
        if said:
            words = ", ".join(f"{key}={value!r}" for key, value in said.items())
            self.left.append(f"a folder of diffusers has no place for {words}: say so in every call of its {name}")
        scheduler = ["diffusers", found.config["_class_name"]]
        return {"_class_name": name, "_diffusers_version": VERSION, **components, "scheduler": scheduler, **options}

    def _plain(self) -> dict[str, Any]:
        unet = self._unet()
        if self.spec.codec.type == "identity":
            name = "DDPMPipeline" if self.spec.defaults.sampler.type == "ddpm" else "DDIMPipeline"
            return self._index(name, {"unet": unet})
        return self._index("LDMPipeline", {"vqvae": self._codec("vqvae"), "unet": unet})

    def _sd(self, texts: list[str], kinds: Mapping[str, str]) -> dict[str, Any]:
        extra = {name: kind for name, kind in kinds.items() if name not in texts}
        if len(texts) > 1 or set(extra.values()) - {"masked-image"}:
            raise inexpressible(f"conditions {sorted(kinds)}")
        for name in extra:
            self._check_masked(self.spec.conditioners[name])
        components = {"vae": self._codec("vae"), "unet": self._unet(), **self._text(texts[0], "text_encoder", "last")}
        absent = {"safety_checker": _ABSENT, "feature_extractor": _ABSENT, "image_encoder": _ABSENT}
        self.left.append("no safety checker is written, as pipelines of ldmkit have none: diffusers filters nothing")
        name = "StableDiffusionInpaintPipeline" if extra else "StableDiffusionPipeline"
        return self._index(name, components | absent, requires_safety_checker=False)

    def _xl(self, texts: list[str], kinds: Mapping[str, str]) -> dict[str, Any]:
        sizes = [spec for spec in self.spec.conditioners.values() if spec.type == "size-codes"]
        pooled = [spec for spec in self.spec.conditioners.values() if spec.type == "clip-pooled"]
        if len(sizes) != 1 or len(pooled) != 1 or len(kinds) != len(texts) + 2 or len(texts) not in (1, 2):
            raise inexpressible(f"conditions {sorted(kinds)}")
        if pooled[0].shares != texts[-1]:
            raise inexpressible("a pooled vector from another tower than the last text encoder's")
        components: dict[str, Any] = {"vae": self._codec("vae", by_channel=True)}
        components["unet"] = self._unet(size_width(self.spec.conditioners))
        names = ["text_encoder", "text_encoder_2"][2 - len(texts) :]
        components |= {"text_encoder": _ABSENT, "tokenizer": _ABSENT}
        for text, name in zip(texts, names, strict=True):
            components |= self._text(text, name, "penultimate")
        scored = "aesthetic" in sizes[0].config.get("reads", ())
        name = "StableDiffusionXLImg2ImgPipeline" if len(texts) == 1 else "StableDiffusionXLPipeline"
        options: dict[str, Any] = {"force_zeros_for_empty_prompt": pooled[0].null == "zero"}
        if name == "StableDiffusionXLImg2ImgPipeline":
            options["requires_aesthetics_score"] = scored
        absent = {"feature_extractor": _ABSENT, "image_encoder": _ABSENT}
        return self._index(name, components | absent, **options)

    def _ldm_text(self, kinds: Mapping[str, str]) -> dict[str, Any]:
        if len(kinds) > 1:
            raise inexpressible(f"conditions {sorted(kinds)}")
        part: Any = self.pipeline.conditioners[next(iter(kinds))]
        self.configs["bert"] = ldm_bert_to_diffusers(part.config)
        self.weights["bert"] = (part, bert_diffusers_keys(part.config))
        config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": part.config.max_length}
        self.tokenizers["tokenizer"] = (part, config)
        components = {"vqvae": self._codec("vqvae"), "bert": ["latent_diffusion", "LDMBertModel"]}
        components |= {"tokenizer": ["transformers", "BertTokenizer"], "unet": self._unet()}
        return self._index("LDMTextToImagePipeline", components)

    def _codec(self, name: str, by_channel: bool = False) -> list[str]:
        # only SDXL's pipelines read a mean and deviation per channel
        codec = self.pipeline.codec if by_channel else standard(self.pipeline.codec)
        self.configs[name], keymap = codec_component(self.spec.codec.type, codec)
        self.weights[name] = (codec, keymap)
        return ["diffusers", str(self.configs[name]["_class_name"])]

    def _unet(self, size_dim: int = 256) -> list[str]:
        self.configs["unet"], keymap = unet_component(self.pipeline, size_dim)
        self.weights["unet"] = (self.pipeline.denoiser, keymap)
        return ["diffusers", str(self.configs["unet"]["_class_name"])]

    def _text(self, name: str, component: str, layer: str) -> dict[str, Any]:
        """A text encoder and its tokenizer.

        diffusers reads SD's last hidden state and SDXL's penultimate one, so a tower that SD reads earlier is written
        without the blocks after it.
        """
        part: Any = self.pipeline.conditioners[name]
        tower = ClipConfig(**{key: getattr(part.config, key) for key in ClipConfig.model_fields})
        if part.config.final_norm != (layer == "last"):
            raise inexpressible(f"conditioner {name!r} with final_norm {part.config.final_norm}")
        if layer == "last":
            tower = tower.model_copy(update={"layers": part.config.blocks, "projection": None})
        elif part.config.blocks != tower.layers - 1:
            raise inexpressible(f"conditioner {name!r} that reads layer {part.config.layer!r}")
        self.configs[component] = clip_to_hf(tower)
        self.weights[component] = (part, clip_hf_keys(tower))
        tokenizer = component.replace("text_encoder", "tokenizer")
        found: dict[str, Any] = {component: ["transformers", self.configs[component]["architectures"][0]]}
        self.tokenizers[tokenizer] = (part, _clip_tokenizer(part))
        return found | {tokenizer: ["transformers", "CLIPTokenizer"]}

    def _check_masked(self, spec: ConditionerSpec) -> None:
        for key, value in MASKED_IMAGE.items():
            if spec.config.get(key) != value:
                raise inexpressible(f"masked-image with {key} {spec.config.get(key)!r}")


def _call_arguments(defaults: Defaults, pipeline: str) -> dict[str, Any]:
    """What a pipeline of diffusers has to be told to draw as often and as strongly as the model does by itself."""
    found: dict[str, Any] = {}
    if defaults.steps != _STEPS.get(pipeline, 50):
        found["num_inference_steps"] = defaults.steps
    usual, guidance = _SCALES.get(pipeline, 7.5), defaults.guidance
    if usual is None:
        return found
    scale = 1.0 if guidance.type == "none" else guidance.config.get("scale", CFG().scale)
    if guidance.type == "cfg" and guidance.config.get("rescale"):
        found["guidance_rescale"] = guidance.config["rescale"]
    return found | ({"guidance_scale": scale} if scale != usual else {})


def _guidance_lost(guidance: PartSpec, pipeline: str) -> str:
    """What a pipeline of diffusers cannot be told of the default guidance."""
    if _SCALES.get(pipeline, 7.5) is None or guidance.type == "none":
        return ""
    more = {key for key, value in guidance.config.items() if value is not None} - {"scale", "rescale"}
    if guidance.type == "cfg" and not more:
        return ""
    what = f"the default guidance {guidance.type!r} {guidance.config}"
    return f"{pipeline} of diffusers has no counterpart of {what}: it guides by one scale, all the way"


def _unused_head(table: Tensor) -> dict[str, Tensor]:
    """Zeros for the language model head, which is unused but whose absence diffusers reports."""
    return {"to_logits.weight": torch.zeros_like(table), "to_logits.bias": table.new_zeros(table.shape[0])}


def _clip_tokenizer(part: Any) -> dict[str, Any]:
    words: dict[str, Any] = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    words["pad_token"] = "<|endoftext|>" if part.config.pad == part.config.eos else "!"
    return {"tokenizer_class": "CLIPTokenizer", "model_max_length": part.length, **words}


def inexpressible(what: str, where: str = "save_diffusers") -> SourceError:
    """The error for parts or combinations that diffusers does not have."""
    return SourceError("not-expressible", f"diffusers has no pipeline with {what}", where=where)
