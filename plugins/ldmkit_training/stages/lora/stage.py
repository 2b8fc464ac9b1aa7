"""The training stage of a LoRA."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from ldmkit_adapters.lora.adapter import PREFIX, LoRA
from ldmkit_adapters.lora.update import Update
from ldmkit_checkpoints.lora.layers import Layer
from ldmkit_checkpoints.lora.writing import write_lora

from ldmkit import Example, PartSpec, Pipeline, StageSetup, Value
from ldmkit.contracts.nn import layer_of
from ldmkit.models.compose import build
from ldmkit.models.updates import free_name
from ldmkit_training.stages.denoiser.objective import DenoiserTurn
from ldmkit_training.stages.lora.section import LoraConfig, LoraSection
from ldmkit_training.stages.lora.targets import Target, chosen
from ldmkit_training.stages.seeded import seeded
from ldmkit_training.stages.started import OneFileStage

FILE = "pytorch_lora_weights.safetensors"
"""The name under which diffusers and `Pipeline.with_lora` look for it in a folder."""


class LoraStage(OneFileStage):
    """Trains changes of low rank of a pipeline's layers (Hu et al. 2021), which are nothing at first.

    Args:
        config: the recipe.
        setup: its folder, and the seed.

    Raises:
        CompositionError: `no-ports`, `unknown-target`, `unknown-conditioner`: layers that are not there.
        SourceError, WeightsError: of the pipeline to start from.
    """

    api: ClassVar[int] = 1
    Config: ClassVar[type[Value]] = LoraConfig
    file = FILE
    turn_class: ClassVar[type[DenoiserTurn]] = DenoiserTurn
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            {"model": {"start": "start"}, "lora": {"rank": 2, "conditioners": {"text": ["qkv"]}}},
            ({"text": [2, 7, 9, 3]}, {"text": [2, 8, 3]}),
        ),
        Example(
            {"model": {"start": "start"}, "lora": {"rank": 2, "alpha": 1, "targets": ["*"], "dora": True}},
            ({"text": [2, 7, 9, 3]}, {"text": [2, 8, 3]}),
        ),
    )

    def __init__(self, config: LoraConfig, setup: StageSetup) -> None:
        self.base = base = config.model.open(setup.folder)
        self.layout = config.lora.layout
        found = chosen(config.lora, base)
        with seeded(setup.seed, "lora"):
            self.lora = new_lora(config.lora, base, found)
        name = free_name("lora", base.adapters)
        self.notes = [f"{name}: new, changes {len(found)} layers of {base.origin or config.model.start}"]
        if config.lora.dora and self.layout == "kohya":
            self.notes.append("lora.layout: diffusers leaves DoRA's lengths out of files with kohya's keys")
        self.set_up(
            base.with_adapter(name, self.lora, {}), config.objective, {name: self.lora},
            gradient_checkpointing=config.gradient_checkpointing, turn=self.turn_class,
        )  # fmt: skip

    def write(self, path: Path) -> None:
        """The changes, for `Pipeline.with_lora` and for diffusers."""
        write_lora(path, self.lora, self.pipeline, self.layout)


def new_lora(section: LoraSection, base: Pipeline, found: Sequence[tuple[Target, int]]) -> LoRA:
    """An adapter that changes nothing yet, in training mode."""
    layers = [_entry(section, target.layer, rank) for target, rank in found]
    lora: LoRA = build("adapter", PartSpec(type="lora", config={"layers": layers}), "lora")
    for update, (target, _) in zip(lora.updates, found, strict=True):
        assert isinstance(update, Update)
        update.dropout = section.dropout
        if section.dora:
            update.take_lengths(_weight(base, target.layer.port))
    return lora.requires_grad_(True).train()


def _entry(section: LoraSection, layer: Layer, rank: int) -> dict[str, Any]:
    """An entry of the adapter's `layers`."""
    outputs, inputs, kernel = layer.weight[0], layer.weight[1], layer.weight[2:]
    ones = (1,) * len(kernel)
    tensors: dict[str, Any] = {"down": (rank, inputs, *kernel), "up": (outputs, rank, *ones)}
    if section.dora:
        tensors["magnitude"] = (outputs, 1, *ones)
    alpha = rank if section.alpha is None else section.alpha
    return {"port": layer.port, "tensors": tensors, "factor": alpha / rank, "rows": layer.rows}


def _weight(base: Pipeline, port: str) -> Any:
    """The weight of the layer at a port of the denoiser or of a conditioner."""
    owner: Any = base.denoiser
    if port.startswith(PREFIX):
        name, _, port = port.removeprefix(PREFIX).partition(".")
        owner = base.conditioners[name]
    layer = layer_of(owner, owner.ports, port)
    assert layer is not None, "found among the layers"
    return layer.weight
