"""The training stage of a ControlNet."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from ldmkit_adapters.controlnet import ControlNet
from ldmkit_checkpoints.diffusers.export_parts import CONTROLNET_FILES, save_diffusers_controlnet

from ldmkit import CompositionError, Conditioner, Example, PartSpec, Pipeline, StageSetup
from ldmkit.models.compose import build
from ldmkit.models.derived import extended
from ldmkit.models.saving import check_folder
from ldmkit.models.updates import free_name
from ldmkit_training.before.located import locate_model
from ldmkit_training.stages.controlnet.section import WIDTHS, ControlNetRecipe, ControlNetSection
from ldmkit_training.stages.seeded import seeded
from ldmkit_training.stages.started import StartedStage

_HINT = torch.linspace(-1, 1, 16).expand(3, 16, 16)


class ControlNetStage(StartedStage):
    """Trains a copy of a U-Net's first half that reads hints (Zhang et al. 2023); it changes nothing at first.

    Args:
        config: the recipe.
        setup: its folder, and the seed.

    Raises:
        CompositionError: `not-a-unet`; `hint-factor`: the hint's encoder does not come to the latents' size.
        SourceError, WeightsError: of the pipeline or ControlNet to start from.
    """

    api: ClassVar[int] = 1
    Config = ControlNetRecipe
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            {"model": {"start": "start"}, "controlnet": {"widths": [4]}},
            ({"text": [2, 7, 9, 3], "hint": _HINT}, {"text": [2, 8, 3], "hint": _HINT}),
        ),
    )

    def __init__(self, config: ControlNetRecipe, setup: StageSetup) -> None:
        base, section = config.model.open(setup.folder), config.controlnet
        name = free_name("control", {*base.adapters, *base.wiring})
        if section.start is None:
            with seeded(setup.seed, name):
                pipeline = _with_new(base, name, section)
            self.notes = [f"{name}: a copy of the denoiser of {base.origin or config.model.start}"]
        else:
            found = locate_model(section.start, setup.folder, "controlnet.start")
            pipeline = base.with_adapter_file(found, name=name)
            self.notes = [f"{name}: from {found}"]
        self.control: Any = pipeline.adapters[name]
        if not isinstance(self.control, ControlNet):
            what = f"{section.start} holds a {type(self.control).__name__}"
            raise CompositionError("not-a-controlnet", what, where="controlnet.start", fits="a ControlNet")
        self.control.float().requires_grad_(True).train()
        self.set_up(
            pipeline, config.objective, {name: self.control},
            gradient_checkpointing=config.gradient_checkpointing, required=[section.input],
        )  # fmt: skip

    @classmethod
    def check_saved(cls, folder: Path) -> None:
        check_folder(folder, *CONTROLNET_FILES)

    def save(self, folder: Path) -> None:
        """The ControlNet alone, as diffusers writes it."""
        self.check_saved(folder)
        save_diffusers_controlnet(self.control, self.pipeline, folder)


def _with_new(base: Pipeline, name: str, section: ControlNetSection) -> Pipeline:
    """The pipeline with a new ControlNet and what reads its hints."""
    factor, most = base.codec.factor, 2 ** (len(WIDTHS) - 1)
    widths = section.widths
    if widths is None and factor <= most:
        widths = WIDTHS[: factor.bit_length()]
    if widths is None or 2 ** (len(widths) - 1) != factor:
        halved = "null" if widths is None else f"{len(widths)} widths, which halve the size {len(widths) - 1} times"
        what = f"{halved}, for a codec that makes pictures {factor} times smaller"
        fits = f"as many as 2 ** (number - 1) = {factor}"
        raise CompositionError("hint-factor", what, where="controlnet.widths", fits=fits)
    control = ControlNet.from_denoiser(base.denoiser, hint_channels=section.channels, hint_widths=widths)
    spec = PartSpec(type="hint", config={} if section.channels == 3 else {"channels": section.channels})
    reads: Conditioner = build("conditioner", spec, "controlnet")
    return Pipeline(**extended(base, name, control, {"hint": reads}, {"hint": section.input}), origin=base.origin)
