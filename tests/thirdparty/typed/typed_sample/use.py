"""What a program does with ldmkit: load, sample, look at steps, train. The types of results are stated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, assert_type

import torch
from torch import Tensor

import ldmkit
from typed_sample.brightness import Brightness, BrightnessConfig
from typed_sample.churned import Churned


def draw(source: str | Path, folder: Path) -> list[Path]:
    """Load a model, draw with our sampler, save."""
    pipe = ldmkit.load(source, device="cpu", dtype=torch.float32)
    assert_type(pipe, ldmkit.Pipeline)
    out = pipe({"brightness": 0.5}, steps=2, seeds=[0, 1], sampler=Churned(churn=0.2), guidance=2.0)
    assert_type(out, ldmkit.Output)
    assert_type(out.images, Tensor)
    assert_type(out.latents, Tensor)
    for step in pipe.stream({"brightness": 0.5}, steps=2):
        assert_type(step, ldmkit.Step)
        assert_type(step.x0, Tensor)
    return out.save(folder / "out.png")


def describe(pipe: ldmkit.Pipeline) -> str:
    """A few words about a model."""
    assert_type(pipe.codec, ldmkit.Codec)
    assert_type(pipe.denoiser, ldmkit.Denoiser)
    assert_type(pipe.process, ldmkit.Process)
    assert_type(pipe.spec, ldmkit.PipelineSpec)
    assert_type(pipe.codec.factor, int)
    assert_type(dict(pipe.denoiser.slots), dict[str, ldmkit.Slot])
    assert_type(ldmkit.get("sampler", "ddim")(eta=0.5), ldmkit.Sampler)
    assert_type(ldmkit.get("grid", "karras").of({"rho": 5}), ldmkit.Grid)
    assert_type(ldmkit.get("codec", "identity")(), ldmkit.Codec)
    names: tuple[str, ...] = ldmkit.components("sampler")
    return f"{pipe.spec.hash}: {', '.join(pipe.denoiser.slots)}; {len(names)} samplers"


def compose(denoiser: ldmkit.Denoiser, codec: ldmkit.Codec, process: ldmkit.Process) -> ldmkit.Pipeline:
    """Parts as a pipeline."""
    brightness = Brightness(BrightnessConfig(dim=8))
    assert_type(brightness.config.levels, int)
    return ldmkit.Pipeline.of(
        codec=codec,
        denoiser=denoiser,
        process=process,
        conditioners={"brightness": brightness},
        defaults={"size": (8, 8), "steps": 2},
    )


def losses(pipe: ldmkit.Pipeline, batches: Iterator[tuple[Tensor, list[Mapping[str, Any]]]]) -> Iterator[float]:
    """A bare training loop."""
    optimiser = torch.optim.AdamW(pipe.denoiser.parameters())
    for index, (images, inputs) in enumerate(batches):
        latents = pipe.encode(images)
        assert_type(latents, Tensor)
        height, width = images.shape[-2:]
        conditioning = pipe.conditioning(inputs, size=(height, width), grad=True)
        seeds = range(index * len(inputs), (index + 1) * len(inputs))
        noise = ldmkit.Noise(seeds, latents.shape[1:])(0, "train")
        sigma = [pipe.process.sigma((row + 0.5) / len(inputs)) for row in range(len(inputs))]
        rows = ldmkit.diffusion_loss(
            pipe.denoiser, pipe.process, latents, conditioning.view(), noise=noise, sigma=sigma
        )
        assert_type(rows, Tensor)
        loss = rows.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield float(loss.detach())


def refused(pipe: ldmkit.Pipeline) -> str:
    """The code of an error."""
    try:
        pipe({"brightness": 2.0})
    except ldmkit.InputError as error:
        assert_type(error.code, str)
        return error.code
    return ""


@ldmkit.hookimpl
def ldmkit_step(pipeline: ldmkit.Pipeline, step: ldmkit.Step) -> None:
    """A hook."""
    print(f"{pipeline.origin}: {step.index + 1} of {step.count}")
