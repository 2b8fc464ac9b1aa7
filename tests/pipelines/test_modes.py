"""Drawing is in evaluation mode whatever mode the parts are in, and leaves them in it: dropout, batch statistics."""

from __future__ import annotations

import threading

import pytest
import tiny_parts
import torch
from torch import nn

import ldmkit

L = {"label": 1}


@pytest.fixture
def pipe() -> ldmkit.Pipeline:
    """With dropout and batch norm in the denoiser, in evaluation mode."""
    made = tiny_parts.class_pipeline("kl")
    made.denoiser.conv_out = nn.Sequential(nn.BatchNorm2d(8), nn.Dropout(0.5), made.denoiser.conv_out)
    for part in made.parts.items().values():
        part.eval()
    return made


def modes(pipe: ldmkit.Pipeline) -> list[bool]:
    return [module.training for part in pipe.parts.items().values() for module in part.modules()]


def trained(pipe: ldmkit.Pipeline) -> ldmkit.Pipeline:
    for part in pipe.parts.items().values():
        part.train()
    pipe.codec.eval()
    return pipe


def test_a_run_of_parts_in_training_mode(pipe: ldmkit.Pipeline) -> None:
    wanted = pipe(L, seeds=[0, 1], steps=3)
    state = {key: value.clone() for key, value in pipe.denoiser.state_dict().items()}
    before = modes(trained(pipe))
    assert any(before) and not all(before)
    found = pipe(L, seeds=[0, 1], steps=3)
    assert torch.equal(found.images, wanted.images)
    assert torch.equal(pipe(L, seeds=[1], steps=3).images, pipe(L, seeds=[1], steps=3).images)
    *_, last = pipe.stream(L, seeds=[0, 1], steps=3)
    prepared = pipe.prepare(L, seeds=[0, 1], steps=3)
    assert torch.equal(pipe.finish(prepared, last).images, wanted.images)
    *_, last = prepared.steps()
    assert torch.equal(pipe.finish(prepared, last).images, wanted.images)
    assert modes(pipe) == before
    for key, value in pipe.denoiser.state_dict().items():
        assert torch.equal(value, state[key]), f"running statistics changed: {key}"


def test_encoding_and_decoding_too() -> None:
    pipe = tiny_parts.class_pipeline("kl")
    for side in (pipe.codec.decoder, pipe.codec.encoder):
        side.conv_out = nn.Sequential(nn.Dropout(0.5), side.conv_out)
    for part in pipe.parts.items().values():
        part.eval()
    pictures, latents = torch.rand(1, 3, 16, 16) * 2 - 1, torch.randn(1, pipe.codec.channels, 8, 8)
    wanted = pipe.encode(pictures), pipe.decode(latents)
    pipe.codec.train()
    assert torch.equal(pipe.encode(pictures), wanted[0]) and torch.equal(pipe.decode(latents), wanted[1])
    assert pipe.codec.training


def test_between_the_steps_of_a_stream_the_mode_is_its_owners(pipe: ldmkit.Pipeline) -> None:
    """A model that is trained beside an open stream is trained with its dropout."""
    wanted = [step.x for step in pipe.stream(L, steps=3)]
    before = modes(trained(pipe))
    for step, right in zip(pipe.stream(L, steps=3), wanted, strict=True):
        assert modes(pipe) == before
        assert torch.equal(step.x, right)
    stream = pipe.stream(L, steps=3)
    next(stream)
    stream.close()
    assert modes(pipe) == before


def test_conditions_that_are_trained_keep_their_mode(pipe: ldmkit.Pipeline) -> None:
    seen: list[bool] = []
    (name,) = pipe.conditioners
    part = trained(pipe).conditioners[name]
    part.register_forward_hook(lambda module, *_: seen.append(module.training))
    pipe.conditioning([L], size=(16, 16), grad=True)
    pipe.conditioning([L], size=(16, 16))
    assert seen == [True, False] or seen == []  # where a conditioner is not called as a module
    assert part.training


def test_an_error_restores_the_mode(pipe: ldmkit.Pipeline) -> None:
    before = modes(trained(pipe))

    def stop(step: ldmkit.Step) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipe(L, steps=3, on_step=stop)
    assert modes(pipe) == before


def test_runs_of_several_threads(pipe: ldmkit.Pipeline) -> None:
    """The first that ends leaves the others in evaluation mode."""
    wanted = [pipe(L, seeds=[seed], steps=2 + seed).images for seed in range(6)]
    before, found = modes(trained(pipe)), dict[int, torch.Tensor]()

    def draw(seed: int) -> None:
        for _ in range(3):
            found[seed] = pipe(L, seeds=[seed], steps=2 + seed).images

    threads = [threading.Thread(target=draw, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[seed], wanted[seed]) for seed in range(6))
    assert modes(pipe) == before
