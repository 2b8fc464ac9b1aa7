"""The two turns of a first stage's step: the codec's, then its discriminator's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ldmkit import Batch, Codec, CompositionError, Loss, Perceptual, Reconstruction, Turn
from ldmkit_training.stages.codec.discriminator import (
    PatchDiscriminator,
    adaptive_weight,
    discriminator_loss,
    generator_loss,
)
from ldmkit_training.stages.codec.section import CodecObjective, DiscriminatorSection

GROUPS = {"quant_conv": "encoder", "post_quant_conv": "decoder"}
"""Parameter group of a codec's child, if it differs from the child's name."""


class Read(NamedTuple):
    """Networks that a turn uses without training them. They are not submodules, so not moved or saved with it."""

    perceptual: Perceptual | None = None
    discriminator: PatchDiscriminator | None = None
    codec: Codec | None = None


class CodecTurn(Turn):
    """The codec's turn: reconstruction, perceptual distance, regulariser, and, from some step on, adversarial term."""

    def __init__(self, codec: Codec, objective: CodecObjective, read: Read):
        super().__init__()
        self.codec, self.objective, self.read = codec, objective, read
        start = torch.tensor(float(objective.logvar))
        self.logvar = nn.Parameter(start) if objective.learn_logvar else None

    def forward(self, batch: Batch, step: int) -> Loss:
        images = pictures(batch)
        made = reconstructed(self.codec, batch)
        pixel, perceptual, spread = self._reconstruction(made.images.float(), images)
        parts = {"pixel": pixel}
        if perceptual is not None:
            parts["perceptual"] = perceptual
        terms = dict(parts)
        weights = {"kl": self.objective.kl_weight, "codebook": self.objective.codebook_weight}
        for name, value in made.losses.items():
            terms[name] = value
            if weights.get(name, 1.0) and value.requires_grad:
                parts[name] = weights.get(name, 1.0) * value
        adversary, section = self.read.discriminator, self.objective.discriminator
        if adversary is not None and section is not None and step >= section.start:
            likely = pixel if perceptual is None else pixel + perceptual
            parts["adversarial"], more = self._adversarial(adversary, section, likely, made)
            terms |= more
        total = torch.stack(list(parts.values())).sum()
        terms |= {**made.metrics, "logvar": spread} if self.logvar is not None else made.metrics
        return Loss(total, {name: value.detach() for name, value in terms.items()}, parts)

    def _reconstruction(self, made: Tensor, images: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """Both terms of -log p(images | made) up to a constant, and the log-variance in it."""
        objective, count = self.objective, images[0].numel()
        wrong = made - images
        pixel = (wrong.abs() if objective.pixel == "l1" else wrong.square()).flatten(1).mean(1).mean()
        logvar = self.logvar if self.logvar is not None else pixel.new_tensor(objective.logvar)
        factor = (count if objective.reduction == "sum" else 1) * torch.exp(-logvar)
        constant = logvar * (count if objective.reduction == "sum" else 1)
        if self.read.perceptual is None:
            return pixel * factor + constant, None, logvar
        distance = self.read.perceptual(made, images).mean() * objective.perceptual.weight
        return pixel * factor + constant, distance * factor, logvar

    def _adversarial(
        self, adversary: PatchDiscriminator, section: DiscriminatorSection, likely: Tensor, made: Reconstruction
    ) -> tuple[Tensor, dict[str, Tensor]]:
        fixed = {name: parameter.detach() for name, parameter in adversary.named_parameters()}
        fooled = generator_loss(functional_call(adversary, fixed, (made.images,)).float())
        weight = fooled.new_tensor(section.weight)
        if section.adaptive:
            weight = weight * adaptive_weight(likely, fooled, self.codec.last_layer)
        return weight * fooled, {"adversarial": fooled, "adversarial_weight": weight}

    def groups(self) -> Mapping[str, Sequence[nn.Parameter]]:
        """Encoder, decoder, codebook (each with the 1x1 convolution at its end), and the log-variance."""
        found: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.codec.named_parameters():
            if parameter.requires_grad:
                found.setdefault(group_of(name), []).append(parameter)
        if self.logvar is not None:
            found["logvar"] = [self.logvar]
        return found

    def reaches(self) -> Mapping[str, frozenset[str]]:
        """What each term trains; the codebook is trained by its own loss only."""
        objective, trained = self.objective, frozenset(self.groups())
        through = frozenset({"encoder", "decoder"}) & trained
        rows = {"pixel": through | ({"logvar"} if self.logvar is not None else frozenset())}
        if self.read.perceptual is not None:
            rows["perceptual"] = rows["pixel"]
        if "codebook" in trained:
            rows["codebook"] = frozenset({"encoder", "codebook"})
        elif objective.kl_weight and "encoder" in trained:
            rows["kl"] = frozenset({"encoder"})
        if self.read.discriminator is not None:
            rows["adversarial"] = through
        return rows


class DiscriminatorTurn(Turn):
    """The discriminator's turn, from its start on: real pictures against their current reconstructions."""

    def __init__(self, discriminator: PatchDiscriminator, section: DiscriminatorSection, codec: Codec):
        super().__init__()
        self.discriminator, self.section, self.read = discriminator, section, Read(codec=codec)

    def active(self, step: int) -> bool:
        return step >= self.section.start

    def forward(self, batch: Batch, step: int) -> Loss:
        assert self.read.codec is not None
        images = pictures(batch)
        with torch.no_grad():
            made = reconstructed(self.read.codec, batch).images
        real = self.discriminator(images).float()
        fake = self.discriminator(made.detach()).float()
        loss = discriminator_loss(real, fake, self.section.loss)
        terms = {"discriminator": loss, "logits_real": real.mean(), "logits_fake": fake.mean()}
        return Loss(loss, {name: value.detach() for name, value in terms.items()}, {"discriminator": loss})

    def groups(self) -> Mapping[str, Sequence[nn.Parameter]]:
        """The discriminator's own."""
        return {"discriminator": list(self.discriminator.parameters())}

    def reaches(self) -> Mapping[str, frozenset[str]]:
        """Its loss trains it alone."""
        return {"discriminator": frozenset({"discriminator"})}


def group_of(name: str) -> str:
    """Group of a codec's parameter: the child that it belongs to; the 1x1 convolutions go with what they end."""
    child = name.partition(".")[0]
    return GROUPS.get(child, child)


def pictures(batch: Batch) -> Tensor:
    """The batch's pictures (B,3,H,W).

    Raises:
        CompositionError: `no-pictures`: it holds latents only.
    """
    if batch.images is None:
        raise CompositionError("no-pictures", "a first stage is trained on pictures, the batch has latents only")
    return batch.images


def reconstructed(codec: Codec, batch: Batch) -> Reconstruction:
    """Pictures through a sample of the posterior; the same sample in both turns of a step."""
    images = pictures(batch)
    shape = (codec.channels, images.shape[-2] // codec.factor, images.shape[-1] // codec.factor)
    return codec.reconstruct(images, batch.draws.normal("posterior", shape).to(images))
