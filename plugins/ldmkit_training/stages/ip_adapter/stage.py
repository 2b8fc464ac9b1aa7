"""The training stage of an IP-Adapter."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar

import torch
from ldmkit_adapters.ip_adapter.adapter import IPAdapter
from ldmkit_checkpoints.ip_adapter.files import FILE, open_ip_adapter
from ldmkit_checkpoints.ip_adapter.keys import cross_attentions
from ldmkit_checkpoints.ip_adapter.writing import write_ip_adapter
from ldmkit_checkpoints.transformers.vision import open_vision
from ldmkit_conditioners.clip_image import ClipImageConfig
from ldmkit_denoisers.unet import UNet

from ldmkit import CompositionError, Example, PartSpec, Pipeline, StageSetup
from ldmkit.models.compose import build
from ldmkit.models.derived import extended
from ldmkit.models.locate import locate
from ldmkit.models.updates import free_name
from ldmkit.run.inputs import input_name
from ldmkit_training.before.located import assets_folder, locate_model
from ldmkit_training.stages.denoiser.section import DenoiserObjective
from ldmkit_training.stages.ip_adapter.dropout import PromptDropout
from ldmkit_training.stages.ip_adapter.example import write_encoder
from ldmkit_training.stages.ip_adapter.section import TOKENS, IPAdapterRecipe, IPAdapterSection
from ldmkit_training.stages.seeded import seeded
from ldmkit_training.stages.started import OneFileStage, write_start

_PICTURE = torch.linspace(-1, 1, 10).expand(3, 12, 10)


class IPAdapterStage(OneFileStage):
    """Trains attentions to a picture beside a U-Net's cross-attentions, whose keys and values they start as (Ye et al.
    2023), and the projection of the picture's embedding; the U-Net and the image encoder stay as they are.

    Args:
        config: the recipe.
        setup: its folder, and the seed.

    Raises:
        CompositionError: `no-cross-attention`: there is nothing to train beside; `not-an-ip-adapter`.
        SourceError, WeightsError: of the pipeline, the encoder, or the IP-Adapter to start from.
    """

    api: ClassVar[int] = 1
    Config = IPAdapterRecipe
    file = FILE
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            {"model": {"start": "start"}, "ip_adapter": {"encoder": "encoder", "tokens": 2}},
            ({"text": [2, 7, 9, 3], "ip-image": _PICTURE}, {"text": [2, 8, 3], "ip-image": -_PICTURE}),
        ),
    )

    @classmethod
    def write_example(cls, folder: Path) -> None:
        write_start(folder)
        write_encoder(folder / "encoder")

    def __init__(self, config: IPAdapterRecipe, setup: StageSetup) -> None:
        base, section = config.model.open(setup.folder), config.ip_adapter
        name = free_name("ip-adapter", {*base.adapters, *base.wiring})
        encoder = _encoder(section.encoder, setup.folder)
        if section.start is None:
            with seeded(setup.seed, name):
                pipeline = _with_new(base, name, section, encoder)
            self.notes = [f"{name}: new, keys and values as those of {base.origin or config.model.start} for its texts"]
        else:
            found = locate_model(section.start, setup.folder, "ip_adapter.start")
            if open_ip_adapter(locate(found, None)[0], base, {}) is None:
                what = f"there is no IP-Adapter in {found}"
                raise CompositionError(
                    "not-an-ip-adapter", what, where="ip_adapter.start", fits="a file of one, or a run"
                )
            pipeline = base.with_adapter_file(found, name=name, encoder=encoder, regions=0)
            self.notes = [f"{name}: from {found}"]
        self.adapter: Any = pipeline.adapters[name]
        self.adapter.float().requires_grad_(True).train()
        self.prompt = input_name(name, pipeline.wiring[name])
        self.notes.append(f"{name}: reads pictures from the input {self.prompt!r}, by the encoder in {encoder}")
        if self.adapter.config.projection == "plain" and self.adapter.config.tokens != TOKENS:
            self.notes.append(
                f"ip_adapter.tokens: diffusers takes plain IP-Adapters of {TOKENS} tokens a picture alone"
            )
        self.set_up(
            pipeline, _with_drops(config.objective, self.prompt, section), {name: self.adapter},
            gradient_checkpointing=config.gradient_checkpointing, required=[self.prompt],
        )  # fmt: skip

    def write(self, path: Path) -> None:
        """The IP-Adapter, without its encoder, as it is published."""
        write_ip_adapter(path, self.adapter, self.pipeline)


def _encoder(text: str, folder: Path) -> str:
    """Where the encoder is: a path from the recipe's folder or as it stands, or a name on the hub."""
    if text.startswith(("hf:", "~")):
        return text
    return str(assets_folder(text, folder, "ip_adapter.encoder"))


def _with_drops(objective: DenoiserObjective, prompt: str, section: IPAdapterSection) -> DenoiserObjective:
    dropout = PromptDropout(**objective.dropout.model_dump(), prompt=prompt, drop=section.drop)
    return objective.model_copy(update={"dropout": dropout})


def _with_new(base: Pipeline, name: str, section: IPAdapterSection, encoder: str) -> Pipeline:
    """The pipeline with a new IP-Adapter and the encoder that reads its pictures."""
    path, origin = locate(encoder, None)
    vision = ClipImageConfig.of(open_vision(path, "projected")[0].config, origin)
    adapter = new_ip_adapter(base, vision.dim, TOKENS if section.tokens is None else section.tokens)
    with tempfile.TemporaryDirectory(prefix="ldmkit-ip-adapter-") as folder:
        file = Path(folder) / FILE
        write_ip_adapter(file, adapter, base)
        read = base.with_adapter_file(file, name=name, encoder=encoder, regions=0)
    parts = {"image": read.conditioners[name]}, {"image": input_name(name, read.wiring[name])}
    # without the record of a file that is gone
    return Pipeline(**extended(base, name, read.adapters[name], *parts), origin=base.origin)


def new_ip_adapter(base: Pipeline, source: int, tokens: int) -> IPAdapter:
    """A plain IP-Adapter whose keys and values of pictures are the network's of texts.

    Args:
        source: width of the encoder's projected embedding.
        tokens: that the network attends to for a picture.

    Raises:
        CompositionError: `no-cross-attention`.
    """
    unet: Any = base.denoiser
    there = cross_attentions(unet.config) if isinstance(unet, UNet) else []
    if not there:
        what = f"the {type(unet).__name__} has no cross-attentions that an IP-Adapter could stand beside"
        raise CompositionError("no-cross-attention", what, where="model.start", fits="a U-Net with cross-attentions")
    config = {
        "layers": [{"port": port, "width": width} for port, width in there],
        "source": source, "tokens": tokens, "dim": unet.config.context_dim, "regions": 0,
    }  # fmt: skip
    adapter: IPAdapter = build("adapter", PartSpec(type="ip-adapter", config=config), "ip-adapter")
    with torch.no_grad():
        for (port, _), to_k, to_v in zip(there, adapter.to_k, adapter.to_v, strict=True):
            own = unet.get_submodule(port.removeprefix("cross.")).cross_attn
            to_k.load_state_dict(own.to_k.state_dict())
            to_v.load_state_dict(own.to_v.state_dict())
    return adapter
