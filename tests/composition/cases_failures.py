"""Cases of the bad-input table: what goes wrong while a pipeline runs, on real tiny parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tiny_parts
import torch
from cases_calls import INF, NAN, Env, L, case

import ldmkit


def poisoned(part: str, value: float, codec: str = "kl") -> ldmkit.Pipeline:
    """A pipeline whose part has one bad number among its weights."""
    pipe = tiny_parts.class_pipeline(codec)
    weights = dict(pipe.parts.items()[part].named_parameters())
    next(iter(weights.values())).data.view(-1)[:] = value
    return pipe


def poisoned_half(half: str) -> ldmkit.Pipeline:
    """A KL codec with a broken encoder or decoder."""
    pipe = tiny_parts.class_pipeline("kl")
    next(iter(getattr(pipe.codec, half).parameters())).data.view(-1)[0] = NAN
    return pipe


@contextmanager
def tapped(pipe: ldmkit.Pipeline, tap: Callable[[torch.Tensor, Any], torch.Tensor]) -> Iterator[ldmkit.Pipeline]:
    """A pipeline with a tap in the middle of its U-Net."""
    with ldmkit.attached(pipe.denoiser.ports, {"mid": tap}):
        yield pipe


def late_nan(e: Env) -> Any:
    """NaN from the third step on."""
    sigmas = [step.sigma for step in e.pipe.stream(L, steps=5)]
    with tapped(e.pipe, lambda value, frame: value * NAN if frame.sigma <= sigmas[2] else value) as pipe:
        return pipe(L, steps=5)


def failing(error: Callable[[], Any]) -> Callable[[Env], Any]:
    """The network's middle runs out of memory."""

    def tap(value: torch.Tensor, frame: Any) -> torch.Tensor:
        error()
        return value

    def act(e: Env) -> Any:
        with tapped(e.pipe, tap) as pipe:
            return pipe(L, steps=2, seeds=[0, 1])

    return act


def hooked(part: str, error: Callable[[], Any]) -> Callable[[Env], Any]:
    """A part's first layer runs out of memory."""

    def act(e: Env) -> Any:
        pipe = tiny_parts.class_pipeline("kl")
        layers = {"encoder": pipe.codec.encoder, "decoder": pipe.codec.decoder,
                  "label": pipe.conditioners["label"].embedding}  # fmt: skip
        layers[part].register_forward_pre_hook(lambda *_: error())
        start = {"image": np.zeros((16, 16, 3), np.uint8)} if part == "encoder" else None
        return pipe(L, steps=2, start=start)

    return act


def cuda_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def cpu_memory() -> None:
    torch.empty(2**55, dtype=torch.float32)  # what the allocator of this machine really says


def python_memory() -> None:
    raise MemoryError


FAILURES = [
    case("NaN in the denoiser", "run.not-finite", "denoiser at step 1 of 4",
         act=lambda e: poisoned("denoiser", NAN)(L)),
    case("infinity in the denoiser", "run.not-finite", "denoiser at step 1",
         act=lambda e: poisoned("denoiser", INF)(L)),
    case("NaN from the third step", "run.not-finite", "denoiser at step 3 of 5", act=late_nan),
    case("NaN in a conditioner", "run.not-finite", "conditioner 'label'",
         act=lambda e: poisoned("conditioners.label", NAN)(L)),
    case("infinity in a conditioner", "run.not-finite", "conditioner 'label'",
         act=lambda e: poisoned("conditioners.label", INF)(L)),
    case("NaN in the decoder", "run.not-finite", "codec.decode", act=lambda e: poisoned_half("decoder")(L)),
    case("NaN in the encoder", "run.not-finite", "codec.encode", "float32",
         act=lambda e: poisoned_half("encoder").encode(np.zeros((16, 16, 3), np.uint8))),
    case("NaN in the encoder of a start", "run.not-finite", "codec.encode",
         act=lambda e: poisoned_half("encoder")(L, start={"image": np.zeros((16, 16, 3), np.uint8)})),
    case("NaN under a mask", "run.not-finite", "denoiser at step 1",
         act=lambda e: poisoned("denoiser", NAN)(L, start={
             "image": np.zeros((16, 16, 3), np.uint8), "mask": np.zeros((16, 16), np.uint8), "strength": 1.0})),
    case("memory in the denoiser", "run.out-of-memory", "denoiser", "(2, 3, 8, 8)", "fewer pictures",
         act=failing(cuda_memory)),
    case("memory of the CPU", "run.out-of-memory", "denoiser", "smaller size", act=failing(cpu_memory)),
    case("memory of Python", "run.out-of-memory", "denoiser", act=failing(python_memory)),
    case("memory in the decoder", "run.out-of-memory", "codec.decode", "(1, 2, 4, 4)", "tiled codec",
         act=hooked("decoder", cpu_memory)),
    case("memory in the encoder", "run.out-of-memory", "codec.encode", "(1, 3, 16, 16)",
         act=hooked("encoder", cuda_memory)),
    case("memory in a conditioner", "run.out-of-memory", "conditioner 'label'", "1 inputs",
         act=hooked("label", cuda_memory)),
]  # fmt: skip
