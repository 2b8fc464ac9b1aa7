"""Calls as users of other libraries write them: each works, or is refused with our word for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import typer.main

import ldmkit
from ldmkit.bounds import MAX_SCALE
from ldmkit.cli.app import app
from ldmkit.errors import InputError, SpecError
from ldmkit.run.assigning import INSTEAD
from ldmkit.run.prepare import ARGUMENTS
from ldmkit.run.spellings import ATTRIBUTES, CALLS

L = {"label": 1}
OURS = {
    "prompt": "inputs=", "negative_prompt": "negative=", "num_inference_steps": "steps", "guidance_scale": "guidance",
    "height": "size=(height, width)", "width": "size=(height, width)", "generator": "seeds=", "seed": "seeds=",
    "num_images_per_prompt": "seeds=", "output_type": "out.pil()", "eta": "sampler=", "strength": "start=",
    "image": "start=", "mask_image": "start=", "latents": "latents", "callback_on_step_end": "on_step",
    "callback": "on_step", "clip_skip": "config", "guidance_rescale": "rescale", "timesteps": "grid=",
    "sigmas": "grid=", "scheduler": "sampler", "prompt_embeds": "inputs", "return_dict": "out.images",
    "cross_attention_kwargs": "tuned", "controlnet_conditioning_scale": "tuned", "cfg_scale": "guidance",
    "ddim_steps": "steps", "n_samples": "seeds=", "batch_size": "seeds=", "init_image": "start=",
    "step": "steps", "sampeler": "sampler", "guidence": "guidance", "seedz": "seeds", "sizes": "size",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted({*OURS, *CALLS}))
@pytest.mark.parametrize("how", ["call", "prepare", "stream"])
def test_an_argument_of_another_library(class_pipe: ldmkit.Pipeline, name: str, how: str) -> None:
    method: Any = class_pipe if how == "call" else getattr(class_pipe, how)
    for inputs in ((L,), ()):  # with a prompt by name there is no mapping either
        with pytest.raises(InputError) as caught:
            method(*inputs, **{name: 3})
        assert caught.value.code == "input.unknown-argument"
        assert name in str(caught.value) and OURS.get(name, CALLS.get(name, "")) in str(caught.value.fits)


def test_an_input_beside_the_mapping(class_pipe: ldmkit.Pipeline) -> None:
    with pytest.raises(InputError, match=r'inputs=\{"label": ...\}'):
        class_pipe(label=3)  # type: ignore[call-arg]


def test_on_step_is_for_a_call(class_pipe: ldmkit.Pipeline) -> None:
    with pytest.raises(InputError, match="on_step"):
        class_pipe.stream(L, on_step=print)


@pytest.mark.parametrize("inputs", ["a red house", None, 3, ["a red house"], [], {"prompt": "a red house"}])
def test_inputs_that_are_no_mapping(class_pipe: ldmkit.Pipeline, inputs: Any) -> None:
    with pytest.raises(InputError, match=r"mapping|empty|unknown input"):
        class_pipe(inputs)


@pytest.mark.parametrize(
    "options",
    [
        {"seeds": 3}, {"seeds": [3, 4]}, {"seeds": range(2)}, {"seeds": torch.tensor([1, 2])}, {"steps": 2.0 and 2},
        {"size": 8}, {"size": [8, 8]}, {"guidance": 2}, {"guidance": 2.5}, {"guidance": {"label": 3}},
        {"sampler": "euler"}, {"sampler": {"type": "ddim", "eta": 0.5}}, {"grid": [9.0, 3.0, 0.0]},
        {"negative": {"label": 2}}, {"negative": [{"label": 2}]}, {"negative": {}}, {"negative": None},
        {"start": torch.zeros(3, 8, 8)}, {"start": torch.zeros(2, 3, 8, 8)}, {"on_step": print}, {"propose": False},
        {"allow_large": True},
    ],
)  # fmt: skip
def test_ours_in_their_forms(class_pipe: ldmkit.Pipeline, options: dict[str, Any]) -> None:
    assert class_pipe(L, **options).images.shape[-2:] == (8, 8)


@pytest.mark.parametrize("name", sorted({*ATTRIBUTES, "enable_xformers_memory_efficient_attention", "nonsense"}))
def test_an_attribute_of_another_library(class_pipe: ldmkit.Pipeline, name: str) -> None:
    """Set silently, it would change nothing of what is drawn."""
    ours = ATTRIBUTES.get(name, "")
    for act, said in (
        (lambda: getattr(class_pipe, name), ours),
        (lambda: setattr(class_pipe, name, 3), INSTEAD.get(ours.removeprefix("pipe."), ours)),
    ):
        with pytest.raises(AttributeError) as caught:
            act()
        assert name in str(caught.value) and said in str(caught.value)
    assert not hasattr(class_pipe, name)


@pytest.mark.parametrize("scale", [1e308, float("inf"), float("nan"), -1.0, 2 * MAX_SCALE, "3", True, None, [3.0]])
def test_scales_in_specs_are_those_of_calls(class_pipe: ldmkit.Pipeline, scale: Any) -> None:
    for type_, config in (("per-condition", {"scales": {"label": scale}}), ("cfg", {"scale": scale})):
        with pytest.raises((SpecError, InputError), match="scale"):
            class_pipe(L, guidance={"type": type_, "config": config})
        with pytest.raises((SpecError, InputError), match="scale"):
            ldmkit.get("guidance", type_).of(config)


def test_two_scales_of_one_condition() -> None:
    with pytest.raises(SpecError, match="two scales"):
        ldmkit.get("guidance", "per-condition")(scales=(("label", 2.0), ("label", 3.0)))


OPTIONS = {
    "inputs": "the model's own options, --text and so on", "negative": "--negative", "size": "--size",
    "seeds": "--seed", "steps": "--steps", "start": "--start", "sampler": "--sampler", "grid": "--grid",
    "guidance": "--guidance", "cache": "--cache", "rewrite": "--rewrite", "propose": "--propose",
    "allow_large": "--yes", "on_step": None,  # a function; the command line shows a bar
}  # fmt: skip
"""Argument of a call -> its option of `ldmkit sample`; None: there is none, for the reason beside it."""
WITHOUT_ARGUMENT = {
    "model", "config", "ema", "variant", "device", "dtype", "verify",  # of `ldmkit.load`
    "out", "overwrite", "json", "inputs",  # what is written
    "number", "seed",  # `seeds`: so many from that one on
    "scales",  # `guidance`, one a condition
    "strength", "mask",  # of `start`
    "plan", "place", "lora", "adapter", "embedding",  # `Pipeline.planned`, `placed`, `with_lora` and its like
    "extract", "syntax", "clip_skip", "long",  # of inputs: `Extracted`, and texts as mappings
    "stage", "stages", "first", "last",  # `Cascade.__call__`
    "prompts", "batch",  # `Pipeline.many`
}  # fmt: skip


def test_every_argument_has_its_option_and_every_option_its_argument() -> None:
    import inspect

    call = [name for name in inspect.signature(ldmkit.Pipeline.__call__).parameters if name not in ("self", "unknown")]
    assert sorted(call) == sorted(ARGUMENTS) == sorted(OPTIONS)
    command = typer.main.get_command(app).commands["sample"]  # type: ignore[attr-defined]
    options = {word: parameter.name for parameter in command.params for word in parameter.opts}
    for argument, option in OPTIONS.items():
        if option is not None and option.startswith("--"):
            assert option in options, argument
    own = {"yes": "allow_large", **{name: name for name in ARGUMENTS}}
    named = {parameter.name for parameter in command.params if parameter.name not in ("ctx", "help")}
    assert {name for name in named if name not in own} <= WITHOUT_ARGUMENT
