"""The training stage of a codec."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from ldmkit import (
    Batch,
    Codec,
    Example,
    LazyTensor,
    PartSpec,
    Perceptual,
    SpecError,
    Stage,
    StageSetup,
    Turn,
    load_codec,
    part_spec,
)
from ldmkit.models.compose import build
from ldmkit.models.saving import check_folder, save_part
from ldmkit.models.source import part_file
from ldmkit.models.weights import check
from ldmkit_training.before.located import locate_model
from ldmkit_training.stages.codec.discriminator import PatchDiscriminator
from ldmkit_training.stages.codec.metrics import psnr, ssim
from ldmkit_training.stages.codec.section import CodecConfig, CodecObjective, CodecSection, PerceptualSection
from ldmkit_training.stages.codec.statistics import measured
from ldmkit_training.stages.codec.turns import CodecTurn, DiscriminatorTurn, Read, group_of, pictures
from ldmkit_training.stages.designed import learn
from ldmkit_training.stages.taken_over import check_meaning, spec_differences

_KL = {"widths": [4, 4, 4], "norm_groups": 2, "blocks": 1, "z_channels": 2, "mid_attention": "none"}

MEASURED = ("config.scale", "config.shift")
"""Config keys that training replaces by measured values."""


class CodecStage(Stage):
    """Trains a codec (the first stage), and a discriminator against it where the objective has one.

    Args:
        model: the codec.
        objective: what is minimised.
        folder: the recipe's, from which relative paths start.
    """

    api: ClassVar[int] = 1
    Config = CodecConfig
    codec: Codec
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            {
                "steps": 4,
                "model": {"type": "kl", "config": _KL},
                "objective": {
                    "perceptual": {"type": "structure"},
                    "discriminator": {"start": 0, "width": 8, "layers": 1},
                },
            }
        ),
    )

    @classmethod
    def build(cls, config: CodecConfig, setup: StageSetup) -> Self:
        """See `ldmkit.Stage`."""
        return cls(config.model, config.objective, setup.folder)

    def __init__(self, model: CodecSection, objective: CodecObjective, folder: Path):
        self.objective = objective
        if model.train == "decoder" and objective.statistics != "none":
            what = "latents that stay what they are keep their statistics"
            raise SpecError("fixed-latents", what, where="objective.statistics", fits="none")
        self.codec = _codec(model, folder, measures=objective.statistics != "none")
        self.perceptual = _perceptual(objective.perceptual, folder)
        section = objective.discriminator
        adversary = None if section is None else PatchDiscriminator(section.layers, section.width, section.norm)
        used = self.perceptual if objective.perceptual.weight and objective.perceptual.type != "none" else None
        turns: dict[str, Turn] = {"codec": CodecTurn(self.codec, objective, Read(used, adversary))}
        if section is not None and adversary is not None:
            turns["discriminator"] = DiscriminatorTurn(adversary, section, self.codec)
        self.turns: Mapping[str, Turn] = turns

    @property
    def averaged(self) -> nn.Module:
        return self.codec

    @property
    def frozen(self) -> Mapping[str, nn.Module]:
        return {"perceptual": self.perceptual}

    @classmethod
    def check_saved(cls, folder: Path) -> None:
        check_folder(folder, part_file("codec"))

    def save(self, folder: Path) -> None:
        """A codec alone, for `ldmkit.load_codec`."""
        save_part("codec", self.codec, folder)

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch]) -> Mapping[str, float]:
        """Means over the pictures, of reconstructions of the posterior's mode: `psnr` in dB, `ssim`, `perceptual`;
        and `kl` (nats a latent value), or the codebook's `usage` and `perplexity` over all of them together."""
        training = self.codec.training
        self.codec.eval()
        rows: dict[str, list[Tensor]] = {}
        counts: Tensor | None = None
        for batch in batches:
            images = pictures(batch)
            made = self.codec.reconstruct(images)
            found = {"psnr": psnr(made.images, images), "ssim": ssim(made.images, images)}
            found["perceptual"] = self.perceptual(made.images, images)
            if "kl" in made.losses:
                values = self.codec.channels * images.shape[-2] * images.shape[-1] / self.codec.factor**2
                found["kl"] = (made.losses["kl"] / values).expand(images.shape[0])
            for name, value in found.items():
                rows.setdefault(name, []).append(value.double().cpu())
            counts = _codebook_counts(counts, self.codec, images)
        self.codec.train(training)
        figures = {name: float(torch.cat(values).mean()) for name, values in rows.items()}
        if counts is not None:
            share = counts.double() / counts.sum()
            figures["usage"] = float((counts > 0).double().mean())
            figures["perplexity"] = float(torch.special.entr(share).sum().exp())
        return figures

    def finish(self, batches: Iterable[Batch]) -> None:
        """Measure the latents' statistics and store them in the codec."""
        if self.objective.statistics != "none":
            self.codec.config = measured(self.codec, batches, self.objective.statistics).config


def _codebook_counts(counts: Tensor | None, codec: Codec, images: Tensor) -> Tensor | None:
    """Usage counts of the codebook entries, with those of further pictures added; None without a codebook."""
    from ldmkit_codecs.vq import VQCodec

    if not isinstance(codec, VQCodec):
        return None
    codes = codec.codes(codec.encode_raw(images)).flatten().cpu()
    fresh = torch.bincount(codes, minlength=codec.config.codebook_size)
    return fresh if counts is None else counts + fresh


def _codec(model: CodecSection, folder: Path, measures: bool) -> Codec:
    if model.start is None:
        codec: Codec = build("codec", PartSpec(type=model.type or "kl", config=model.config), "model")
    else:
        codec = _from_start(model, model.start, folder, measures)
    codec.last_layer  # noqa: B018  raises for a codec that cannot be trained
    learn(codec)
    if model.train == "decoder":
        for name, parameter in codec.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and group_of(name) == "decoder")
    return codec


def _from_start(model: CodecSection, start: str, folder: Path, measures: bool) -> Codec:
    """The codec with the weights of another one, and its type and config too where the recipe gives none.

    Args:
        measures: its latents' scale and shift are measured after training, whatever they are now.
    """
    path = locate_model(start, folder, "model.start")
    theirs = load_codec(path, dtype="float32")
    spec = part_spec("codec", theirs) if model.type is None else PartSpec(type=model.type, config=model.config)
    codec: Codec = build("codec", spec, "model")
    tensors = theirs.state_dict()
    check(codec, {name: LazyTensor.of(tensor) for name, tensor in tensors.items()}, f"model.start {path}")
    codec.load_state_dict(tensors)
    found = spec_differences("codec", part_spec("codec", theirs), spec, "model")
    if measures:
        found = [difference for difference in found if difference.key not in MEASURED]
    check_meaning(found, "model", path, learns=model.train == "all")
    return codec


def _perceptual(section: PerceptualSection, folder: Path) -> Perceptual:
    part: Perceptual = build("perceptual", PartSpec(type=section.type, config=section.config), "objective.perceptual")
    part.load_files([folder / name for name in section.files])
    return part.eval().requires_grad_(False)
