"""The training stage of a consistency decoder."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from ldmkit_codecs.consistency import ConsistencyCodec, ConsistencyConfig
from ldmkit_codecs.kl import KLCodec, KLConfig
from ldmkit_codecs.noise_table import noise_table
from torch import Tensor, nn

from ldmkit import Batch, CompositionError, Draws, Example, LazyTensor, Loss, Stage, StageSetup, Turn, load_codec
from ldmkit.models.saving import check_folder, save_part
from ldmkit.models.source import part_file
from ldmkit.models.weights import check
from ldmkit_training.before.located import locate_model
from ldmkit_training.stages.codec.metrics import psnr, ssim
from ldmkit_training.stages.codec.turns import pictures
from ldmkit_training.stages.consistency.section import ConsistencyObjective, ConsistencySection, ConsistencyTraining
from ldmkit_training.stages.denoiser.model import load_frozen_codec
from ldmkit_training.stages.designed import learn
from ldmkit_training.stages.latents import latents_of

_KL = {"widths": [4, 4], "norm_groups": 2, "blocks": 1, "z_channels": 2, "mid_attention": "none"}
_UNET = {"channels": 3, "in_channels": 5, "widths": [8], "blocks": 1, "norm_groups": 4, "heads": 1, "mid": "single"}


class ConsistencyTurn(Turn):
    """The decoder's estimates at neighbouring noise levels, drawn together.

    Args:
        codec: the codec whose decoder is trained; its encoder is not a submodule.
        objective: what is minimised.
        steps: of the whole run.
    """

    def __init__(self, codec: ConsistencyCodec, objective: ConsistencyObjective, steps: int):
        super().__init__()
        self.decoder, self.objective, self.steps = codec.decoder, objective, steps
        self._read = (codec,)

    def forward(self, batch: Batch, step: int) -> Loss:
        codec, images = self._read[0], pictures(batch)
        config, levels = codec.config, self.levels(step)
        device = images.device
        latents = latents_of(batch, codec, device, sample=self.objective.posterior)
        condition = codec.condition(latents)
        noise = batch.draws.normal("noise", images.shape[1:]).to(images)
        index = 1 + (batch.draws.uniform("level") * levels).long()
        grid = torch.arange(levels + 1) * config.timesteps[0] // levels
        table = noise_table(config.steps, config.sigma_data)

        def noisy(t: Tensor) -> Tensor:
            return table.rows("signal", t, images) * images + table.rows("noise", t, images) * noise

        t, below = grid[index], grid[index - 1]
        made = codec.estimate(noisy(t), t, condition)
        with torch.no_grad():
            wanted = codec.estimate(noisy(below), below, condition)
            wanted = torch.where((below == 0).to(device).view(-1, 1, 1, 1), images, wanted)
        loss = pseudo_huber(made, wanted, self.objective.huber).mean()
        terms = {"consistency": loss.detach(), "levels": loss.new_tensor(float(levels))}
        return Loss(loss, terms, {"consistency": loss})

    def levels(self, step: int) -> int:
        """Noise levels at a step of the run: doubled at equal intervals."""
        first, last = self.objective.levels
        doublings = math.ceil(math.log2(last / first))
        done = min(step * (doublings + 1) // self.steps, doublings)
        return min(first * 2**done, last)

    def groups(self) -> Mapping[str, Sequence[nn.Parameter]]:
        return {"decoder": list(self.decoder.parameters())}

    def reaches(self) -> Mapping[str, frozenset[str]]:
        return {"consistency": frozenset({"decoder"})}


class ConsistencyStage(Stage):
    """Trains a consistency decoder for the latents of a `kl` codec.

    Args:
        model: the decoder, and the codec.
        objective: what is minimised.
        folder: the recipe's, from which relative paths start.
        steps: of the whole run.

    Raises:
        CompositionError: `not-kl`: the codec is of another type.
    """

    api: ClassVar[int] = 1
    Config = ConsistencyTraining
    codec: ConsistencyCodec
    examples: ClassVar[tuple[Example, ...]] = (
        Example({"steps": 4, "model": {"codec": {"from": "codec"}, "config": {"unet": _UNET}}}),
    )

    @classmethod
    def build(cls, config: ConsistencyTraining, setup: StageSetup) -> Self:
        """See `ldmkit.Stage`."""
        return cls(config.model, config.objective, setup.folder, config.steps)

    @classmethod
    def write_example(cls, folder: Path) -> None:
        save_part("codec", KLCodec(KLConfig.of(_KL)), folder / "codec")

    def __init__(self, model: ConsistencySection, objective: ConsistencyObjective, folder: Path, steps: int):
        self.codec = _codec(model, folder)
        self.turn = ConsistencyTurn(self.codec, objective, steps)
        self.turns: Mapping[str, Turn] = {"decoder": self.turn}

    @property
    def averaged(self) -> nn.Module:
        return self.codec

    @property
    def frozen(self) -> Mapping[str, nn.Module]:
        both = {"encoder": self.codec.encoder, "quant_conv": self.codec.quant_conv}
        return {name: module for name, module in both.items() if module is not None}

    @classmethod
    def check_saved(cls, folder: Path) -> None:
        check_folder(folder, part_file("codec"))

    def save(self, folder: Path) -> None:
        """A codec with the encoder of the one in the recipe, for `ldmkit.load_codec`."""
        save_part("codec", self.codec, folder)

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch]) -> Mapping[str, float]:
        """Means over pictures decoded from the posterior's mode, each with noise of its own: `psnr` in dB, `ssim`."""
        training = self.codec.decoder.training
        self.codec.decoder.eval()
        rows: dict[str, list[Tensor]] = {"psnr": [], "ssim": []}
        for index, batch in enumerate(batches):
            images, draws = pictures(batch), Draws(batch.draws.seed, index, batch.draws.rows)
            latents = latents_of(batch, self.codec, images.device, sample=False)
            made = self.codec.decode_with(latents, _noise(draws, images))
            rows["psnr"].append(psnr(made, images).double().cpu())
            rows["ssim"].append(ssim(made, images).double().cpu())
        self.codec.decoder.train(training)
        return {name: float(torch.cat(values).mean()) for name, values in rows.items() if values}


def pseudo_huber(a: Tensor, b: Tensor, huber: float) -> Tensor:
    """sqrt(|a - b|^2 + c^2) - c of each row, with c = huber * sqrt(values a row): (B,)."""
    c = huber * math.sqrt(a[0].numel())
    return ((a - b).flatten(1).float().square().sum(1) + c * c).sqrt() - c


def _noise(draws: Draws, images: Tensor) -> Any:
    return lambda index: draws.normal(f"decode {index}", images.shape[1:]).to(images)


def _codec(model: ConsistencySection, folder: Path) -> ConsistencyCodec:
    theirs = load_frozen_codec(model.codec, folder)
    if not isinstance(theirs, KLCodec):
        what = f"the codec is a {type(theirs).__name__}"
        raise CompositionError("not-kl", what, where="model.codec", fits="a `kl` codec")
    own = theirs.config.model_dump(mode="json", exclude={"tanh_out", "post_quant_conv"})
    config = {**own, "latent_mean": 0.0, "latent_deviation": 1.0, **model.config}
    codec = ConsistencyCodec(ConsistencyConfig.of(config, "model.config"))
    codec.encoder.load_state_dict(theirs.encoder.state_dict())
    if codec.quant_conv is not None and theirs.quant_conv is not None:
        codec.quant_conv.load_state_dict(theirs.quant_conv.state_dict())
    if model.start is not None:
        _start(codec, model.start, folder)
    learn(codec)
    for module in (codec.encoder, codec.quant_conv):
        if module is not None:
            module.eval().requires_grad_(False)
    return codec


def _start(codec: ConsistencyCodec, start: str, folder: Path) -> None:
    """Take the decoder's weights of a saved consistency codec."""
    path = locate_model(start, folder, "model.start")
    theirs = load_codec(path, dtype="float32")
    if not isinstance(theirs, ConsistencyCodec):
        what = f"{path} holds a {type(theirs).__name__}"
        raise CompositionError("not-consistency", what, where="model.start", fits="a `consistency` codec")
    tensors = theirs.decoder.state_dict()
    check(codec.decoder, {name: LazyTensor.of(tensor) for name, tensor in tensors.items()}, f"model.start {path}")
    codec.decoder.load_state_dict(tensors)
