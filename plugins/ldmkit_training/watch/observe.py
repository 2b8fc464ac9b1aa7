"""The interface between the training loop and its callbacks (previews, the probe), and running them without side
effects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from torch import nn

from ldmkit import Part, Stage


class EngineView(Protocol):
    """The engine, as a callback sees it."""

    @property
    def stage(self) -> Stage:
        """The stage in training."""

    @property
    def out(self) -> Path:
        """The run folder."""

    @property
    def main(self) -> bool:
        """Whether this process writes files; with sharded weights the callbacks run on every process."""

    @property
    def has_average(self) -> bool:
        """Whether a running average of the weights is kept."""

    def averaged(self) -> AbstractContextManager[None]:
        """Inside the block the networks have the averaged weights; afterwards their own are restored bit for bit."""

    def track(self, figures: Mapping[str, float], step: int) -> None:
        """Write figures to the trackers and to log.jsonl."""

    def picture(self, name: str, image: Image.Image, step: int) -> None:
        """Send a picture to those trackers that accept pictures."""

    def say(self, text: str) -> None:
        """Print a line."""


class Callback(Protocol):
    """Called by the engine after optimiser step `step` (counted from 1) if `step % every == 0`."""

    every: int

    def __call__(self, view: EngineView, step: int) -> None:
        """Measure and write; weights, modes and random generators must be left unchanged."""


@contextmanager
def undisturbed(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Inside the block modules are in evaluation mode and gradients are off; modes and all global generators are
    restored afterwards, so that training is unaffected."""
    modes = {module: module.training for root in modules for module in root.modules()}
    compiled = any(getattr(module, "_compiled_call_impl", None) is not None for module in modes)
    # previews and probes have other shapes than training steps: not worth a compilation
    stance = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    devices = {p.device.index for module in modes for p in module.parameters(recurse=False) if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=[index or 0 for index in devices]), torch.no_grad(), stance:
        try:
            for module in modes:
                module.training = False
            yield
        finally:
            for module, training in modes.items():
                module.training = training


@contextmanager
def restored_buffers(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Restores buffers and configs at the end of the block."""
    inner = [module for root in modules for module in root.modules()]
    buffers = [(buffer, buffer.clone()) for module in inner for buffer in module.buffers(recurse=False)]
    configs = [(module, module.config) for module in inner if isinstance(module, Part)]
    try:
        yield
    finally:
        for part, config in configs:
            part.config = config
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def networks(stage: Stage) -> list[nn.Module]:
    """All modules that a stage may call."""
    return [*stage.turns.values(), stage.averaged, *stage.frozen.values()]
