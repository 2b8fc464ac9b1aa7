"""LoRA files of diffusers, peft and kohya's scripts: whole pipelines against diffusers with the same file loaded.

Tolerance: 1e-4 of the largest latent, in float32, as for pipelines without (see test_diffusers_pipelines): what is seen
is 1e-6, and the smallest change of any case here is 0.1.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lora_files as made
import pytest
import tiny_diffusers as tiny
import torch
from torch import Tensor

import ldmkit
from ldmkit.run.noise import Noise

CALL: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": 4.0}
OURS: dict[str, Any] = {"steps": 3, "guidance": 4.0, "seeds": [3]}
NOISE = Noise([3], (4, 16, 16))(0, "start")
ATTENTION = {"r": 4, "lora_alpha": 8, "target_modules": made.ATTENTION}
CONFIGS: dict[str, dict[str, Any]] = {
    "attention": ATTENTION,
    "every layer": {"r": 4, "lora_alpha": 6, "target_modules": made.ALL},
    "rank-stabilised": {**ATTENTION, "use_rslora": True},
    "dora": {**ATTENTION, "use_dora": True},
    "dora of every layer": {"r": 4, "lora_alpha": 8, "target_modules": made.ALL, "use_dora": True},
    "patterns": {
        **ATTENTION,
        "rank_pattern": {"to_q": 2, "down_blocks.1.*to_k": 3},
        "alpha_pattern": {"to_q": 5, "mid_block.*to_v": 1},
    },
}
WORDS = {"r": 3, "lora_alpha": 5, "target_modules": made.TEXT}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, ldmkit.Pipeline]:
    """diffusers' pipeline, its folder, and ours of that folder."""
    theirs = tiny.stable_diffusion()
    folder = tiny.saved(theirs, tmp_path_factory.mktemp("base"))
    return theirs, folder, ldmkit.load(folder)


def theirs_with(folder: Path, *sources: tuple[Path, float]) -> Tensor:
    return made.drawn_by_diffusers(
        folder, list(sources), NOISE, prompt="the red house", negative_prompt="a blur", **CALL
    )


def drawn(pipe: ldmkit.Pipeline) -> Tensor:
    return pipe({"text": "the red house"}, negative={"text": "a blur"}, **OURS).latents


def far(got: Tensor, want: Tensor) -> float:
    assert got.shape == want.shape
    return float((got - want).abs().max() / want.abs().max())


@pytest.mark.parametrize("name", CONFIGS)
def test_files_of_diffusers(base: tuple[Any, Path, ldmkit.Pipeline], tmp_path: Path, name: str) -> None:
    """Attached, in the weights, and with packed weights; afterwards the pipeline draws what it drew before."""
    theirs, folder, ours = base
    file = made.by_diffusers(theirs, tmp_path, CONFIGS[name], WORDS)
    plain, keys = drawn(ours), list(ours.denoiser.state_dict())
    for scale in (1.0, 0.6):
        want = theirs_with(folder, (file, scale))
        assert far(plain, want) > 0.05, "a change that would be noticed"
        mine = ours.with_lora(file, scale)
        assert far(drawn(mine), want) < 1e-4
        assert far(drawn(mine.fused()), want) < 1e-4
        assert far(drawn(mine.planned("prepacked")), want) < 1e-4
        assert far(drawn(mine.tuned(mine.updates[0]["name"], scale=0.0)), plain) == 0
    assert torch.equal(drawn(ours), plain) and list(ours.denoiser.state_dict()) == keys


def test_two_at_once(base: tuple[Any, Path, ldmkit.Pipeline], tmp_path: Path) -> None:
    theirs, folder, ours = base
    one = made.by_diffusers(theirs, tmp_path / "one", ATTENTION, WORDS)
    two = made.by_diffusers(theirs, tmp_path / "two", CONFIGS["every layer"])
    want = theirs_with(folder, (one, 0.8), (two, 0.5))
    mine = ours.with_lora(one, 0.8, name="one").with_lora(two, 0.5, name="two")
    assert list(mine.adapters) == ["one", "two"]
    assert far(drawn(mine), want) < 1e-4 and far(drawn(mine.fused()), want) < 1e-4


@pytest.mark.parametrize("alpha", [3.0, None])
@pytest.mark.parametrize("half", [False, True])
def test_files_of_kohya(
    base: tuple[Any, Path, ldmkit.Pipeline], tmp_path: Path, alpha: float | None, half: bool
) -> None:
    theirs, folder, ours = base
    config = {**ATTENTION, "target_modules": [*made.ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]}
    file = made.by_diffusers(theirs, tmp_path / "new", config, {**WORDS, "target_modules": made.TEXT})
    kohya = made.by_kohya(file, tmp_path / "kohya.safetensors", alpha=alpha, half=half)
    want = theirs_with(folder, (kohya, 0.7))
    assert far(drawn(ours.with_lora(kohya, 0.7)), want) < 1e-4


def test_an_adapter_folder_of_peft(base: tuple[Any, Path, ldmkit.Pipeline], tmp_path: Path) -> None:
    """What `PeftModel.save_pretrained` writes: the network alone, its config beside it."""
    import peft

    theirs, _, ours = base
    model = peft.get_peft_model(copy.deepcopy(theirs.unet), peft.LoraConfig(**CONFIGS["patterns"], use_rslora=True))
    made.randomise(model)
    model.save_pretrained(tmp_path / "adapter")
    mine = ours.with_lora(tmp_path / "adapter")
    words = ours.conditioners["text"](["the red house"])
    assert far(network(mine, words.value), forward(model, words.value)) < 1e-5


@pytest.mark.parametrize("kind", ["LoHaConfig", "LoKrConfig"])
@pytest.mark.parametrize("targets", [made.ATTENTION, made.ALL], ids=["attention", "every layer"])
@pytest.mark.parametrize("conv", [False, True])
def test_other_kinds_of_peft(
    base: tuple[Any, Path, ldmkit.Pipeline], tmp_path: Path, kind: str, targets: list[str], conv: bool
) -> None:
    import peft

    theirs, _, ours = base
    config = getattr(peft, kind)(r=4, alpha=6, target_modules=targets, use_effective_conv2d=conv)
    model = peft.get_peft_model(copy.deepcopy(theirs.unet), config)
    made.randomise(model)
    model.save_pretrained(tmp_path / "adapter")
    words = ours.conditioners["text"](["the red house"]).value
    mine, want = ours.with_lora(tmp_path / "adapter"), forward(model, words)
    assert far(network(ours, words), want) > 0.01
    assert far(network(mine, words), want) < 1e-5
    assert far(network(mine.fused(), words), want) < 1e-5


X = Noise([9], (4, 16, 16))(0, "start")


def forward(unet: Any, words: Tensor) -> Tensor:
    with torch.no_grad():
        result: Tensor = unet(X, torch.tensor([500.0]), encoder_hidden_states=words).sample
    return result


def network(pipe: ldmkit.Pipeline, words: Tensor) -> Tensor:
    """One call of the network, with the adapters attached."""
    context = pipe.denoiser.prepare({"context": ldmkit.Tokens(words)})
    for name, adapter in pipe.adapters.items():
        context.adapters[name] = adapter.prepare(context, name)
    with torch.no_grad():
        return pipe.denoiser(X, torch.tensor([500.0]), pipe.denoiser.adapted(context))
