"""Files of changes that are wrong in ways that would draw something all the same: each is refused by name."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from ldmkit_adapters.lora.adapter import LoRA
from safetensors.torch import load_file, save_file
from test_lora_files import CALL, DOWN, FLAT, TO_Q, UP, L, pair, saved
from torch import Tensor

import ldmkit
from ldmkit.errors import CompositionError, LdmkitError, SourceError, WeightsError

DOTTED = f"unet.{TO_Q}"
SGM = "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q"
CONV = "lora_unet_mid_block_resnets_0_conv1"  # 128 to 128, 3 x 3


@pytest.fixture(scope="module")
def pipe() -> ldmkit.Pipeline:
    return ldmkit.load("miniworld")


def peft_keys(layer: str = DOTTED) -> dict[str, Tensor]:
    return {f"{layer}.lora_A.weight": torch.ones(2, 128), f"{layer}.lora_B.weight": torch.ones(128, 2)}


def with_alpha(value: Any) -> dict[str, Tensor]:
    return {**pair(), f"{FLAT}.alpha": torch.as_tensor(value)}


BAD: dict[str, tuple[dict[str, Tensor], type[Exception], str]] = {
    "alpha of 0": (with_alpha(0.0), WeightsError, r"alpha-range.*to_q\.alpha' is 0.*above 0"),
    "a negative alpha": (with_alpha(-4), WeightsError, r"alpha-range.*to_q\.alpha' is -4"),
    "an infinite alpha": (with_alpha(float("inf")), WeightsError, r"not-finite.*to_q\.alpha"),
    "no alpha in alpha": (with_alpha([]), WeightsError, r"wrong-shape.*to_q\.alpha.*one number"),
    "two dialects": (
        {**pair(), **peft_keys(DOTTED.replace("to_q", "to_k"))}, SourceError,
        r"two-dialects.*lora_unet_.*to_q\.lora_down.*unet\.mid.*to_k\.lora_A",
    ),
    "one layer by two names": (
        {**pair(), **{key.replace(FLAT, SGM): value for key, value in pair(seed=1).items()}}, SourceError,
        "duplicate-key.*two of its names.*mid_block.*middle_block",
    ),
    "one layer with two prefixes": (
        {**peft_keys(), **peft_keys(DOTTED.replace("unet.", "diffusion_model."))}, SourceError, "duplicate-key",
    ),
    "one layer without a prefix": ({**peft_keys(), **peft_keys(TO_Q)}, SourceError, "duplicate-key"),
    "two adapters": (
        {f"{DOTTED}.lora_{end}.{name}.weight": torch.ones(shape)
         for end, shape in (("A", (2, 128)), ("B", (128, 2))) for name in ("one", "other")},
        SourceError, r"duplicate-key.*lora_A\.one.*lora_A\.other",
    ),
    "rank 0": ({DOWN: torch.ones(0, 128), UP: torch.ones(128, 0)}, WeightsError, r"wrong-shape.*\[0, 128\]"),
    "integers": ({k: v.to(torch.int32) for k, v in pair().items()}, WeightsError, "wrong-shape.*int32"),
    "factors that are swapped": (
        {DOWN: pair()[UP], UP: pair()[DOWN]}, SourceError, r"other-base.*shape \[2, 2\].*\[128, 128\]",
    ),
    "infinity": ({**pair(), UP: torch.full((128, 2), float("inf"))}, WeightsError, "not-finite"),
    "a change of a norm": (
        {"lora_unet_mid_block_resnets_0_norm1.diff": torch.ones(128)}, SourceError, r"unsupported.*norm1\.diff.*norm",
    ),
    "the bias of a norm": (
        {**pair(), "lora_unet_mid_block_attentions_0_norm.diff_b": torch.ones(128)}, SourceError,
        r"unsupported.*attentions_0_norm\.diff_b",
    ),
    "another kernel": (
        {f"{CONV}.lora_down.weight": torch.ones(2, 128, 5, 5), f"{CONV}.lora_up.weight": torch.ones(128, 2, 1, 1)},
        SourceError, r"other-base.*\[128, 128, 5, 5\].*\[128, 128, 3, 3\]",
    ),
    "channels last": (
        {f"{CONV}.lora_down.weight": torch.ones(2, 3, 3, 128), f"{CONV}.lora_up.weight": torch.ones(128, 2, 1, 1)},
        SourceError, r"other-base.*\[128, 3, 3, 128\].*\[128, 128, 3, 3\]",
    ),
    "a key that means nothing": ({**pair(), "extra.weight": torch.ones(1)}, SourceError, r"unknown-key.*extra\.weight"),
    "a trained bias of peft": ({**peft_keys(), f"{DOTTED}.bias": torch.ones(128)}, SourceError, r"unknown-key.*\.bias"),
    "a bias of the second factor": (
        {**peft_keys(), f"{DOTTED}.lora_B.bias": torch.ones(128)}, SourceError, r"unsupported.*lora_B\.bias",
    ),
    "alpha alone": ({f"{FLAT}.alpha": torch.tensor(4.0)}, SourceError, "half-a-pair.*alpha"),
    "lengths of another layer": (
        {**pair(), f"{FLAT}.dora_scale": torch.ones(1, 64)}, SourceError, r"other-base.*dora_scale.*\[1, 64\]",
    ),
    "two forms at once": (
        {**pair(), f"{FLAT}.diff": torch.ones(128, 128)}, SourceError, "half-a-pair.*diff, down, up",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_files(pipe: ldmkit.Pipeline, tmp_path: Path, name: str) -> None:
    """The file and the key are named, and nothing is attached."""
    tensors, error, words = BAD[name]
    file = saved(tmp_path / "bad.safetensors", tensors)
    with pytest.raises(error, match=words) as caught:
        pipe.with_lora(file)
    assert str(file) in str(caught.value)
    assert not any(port.taps for port in pipe.denoiser.ports.values())


SAID: dict[str, tuple[dict[str, Any], str]] = {
    "alpha 0": ({"r": 2, "lora_alpha": 0}, "alpha-range.*lora_alpha.*is 0"),
    "alpha below 0": ({"r": 2, "alpha_pattern": {"to_q": -1}, "lora_alpha": 2}, "alpha-range.*'to_q'"),
    "alpha true": ({"r": 2, "lora_alpha": True}, "metadata.*lora_alpha.*True"),
    "a pattern that is none": ({"r": 2, "lora_alpha": 2, "alpha_pattern": {"(": 1}}, "metadata.*pattern '\\('"),
    "a pattern that takes forever": (
        {"r": 2, "lora_alpha": 2, "alpha_pattern": {"(.*a*)*x(.*b*)*": 1}}, "metadata.*none that peft writes",
    ),
    "many stars": ({"r": 2, "lora_alpha": 2, "alpha_pattern": {".*.*.*.*.*.*.*.*x": 1}}, "none that peft writes"),
    "patterns that are none": ({"r": 2, "lora_alpha": 2, "alpha_pattern": [1]}, "metadata.*alpha_pattern"),
    "rslora in words": ({"r": 2, "lora_alpha": 2, "use_rslora": "false"}, "metadata.*use_rslora.*true or false"),
    "a DoRA without lengths": ({"r": 2, "lora_alpha": 2, "use_dora": True}, "half-a-pair.*use_dora"),
    "PiSSA": ({"r": 2, "lora_alpha": 2, "init_lora_weights": "pissa_niter_4"}, "unsupported.*pissa.*base's own"),
    "OLoRA": ({"r": 2, "lora_alpha": 2, "init_lora_weights": "olora"}, "unsupported.*olora"),
    "trained biases": ({"r": 2, "lora_alpha": 2, "bias": "lora_only"}, "unsupported.*lora_only"),
    "other modules": ({"r": 2, "lora_alpha": 2, "modules_to_save": ["conv_in"]}, "unsupported.*modules_to_save"),
}  # fmt: skip


@pytest.mark.parametrize("name", SAID)
def test_metadata(pipe: ldmkit.Pipeline, tmp_path: Path, name: str) -> None:
    config, words = SAID[name]
    text = json.dumps({f"unet.{key}": value for key, value in config.items()})
    file, began = saved(tmp_path / "a.safetensors", peft_keys(), {"lora_adapter_metadata": text}), time.monotonic()
    with pytest.raises(SourceError, match=words) as caught:
        pipe.with_lora(file)
    assert str(file) in str(caught.value) and time.monotonic() - began < 5
    folder = tmp_path / "folder"
    folder.mkdir()
    saved(folder / "adapter_model.safetensors", peft_keys(TO_Q))
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **config}))
    with pytest.raises(SourceError, match=words):
        pipe.with_lora(folder)


def test_starts_of_peft(tmp_path: Path) -> None:
    """peft's own files: a PiSSA is refused, and loads where peft has converted it."""
    import tiny_diffusers as tiny

    theirs = tiny.stable_diffusion()
    pipe = ldmkit.load(tiny.saved(theirs, tmp_path / "base"))
    config = peft.LoraConfig(r=2, target_modules=["to_q"], init_lora_weights="pissa")
    model: Any = peft.get_peft_model(copy.deepcopy(theirs.unet), config)
    model.save_pretrained(tmp_path / "pissa")
    with pytest.raises(SourceError, match="the base's own weights were changed before training"):
        pipe.with_lora(tmp_path / "pissa")
    plain: Any = peft.get_peft_model(
        copy.deepcopy(theirs.unet), peft.LoraConfig(r=2, target_modules=["to_q"], init_lora_weights="gaussian")
    )
    plain.save_pretrained(tmp_path / "gaussian")
    pipe.with_lora(tmp_path / "gaussian")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_dtypes_are_read_at_the_network_s(pipe: ldmkit.Pipeline, tmp_path: Path, dtype: torch.dtype) -> None:
    """What a narrow file holds is what is added: the same as the rounded numbers in float32."""
    narrow = {key: value.to(dtype) for key, value in pair().items()} | {f"{FLAT}.alpha": torch.tensor(1.0, dtype=dtype)}
    wide = {key: value.float() for key, value in narrow.items()}
    got = pipe.with_lora(saved(tmp_path / "a.safetensors", narrow))(L, **CALL).latents
    want = pipe.with_lora(saved(tmp_path / "b.safetensors", wide))(L, **CALL).latents
    assert torch.equal(got, want)


def test_ranks_of_their_own_for_each_layer(pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    """kohya's block dims: ranks, alphas and convolutions that differ; each pair is scaled by its own."""
    other = FLAT.replace("to_q", "to_v")
    tensors = {
        **with_alpha(1.0), f"{other}.lora_down.weight": torch.ones(7, 128), f"{other}.alpha": torch.tensor(3.5),
        f"{other}.lora_up.weight": torch.ones(128, 7), f"{CONV}.lora_down.weight": torch.ones(3, 128, 3, 3),
        f"{CONV}.lora_up.weight": torch.ones(128, 3, 1, 1), f"{CONV}.alpha": torch.tensor(1.5),
    }  # fmt: skip
    adapter: Any = pipe.with_lora(saved(tmp_path / "a.safetensors", tensors)).adapters["a"]
    assert {layer.port: layer.factor for layer in adapter.config.layers} == {
        "linear.mid.attn.blocks.0.self_attn.to_q": 0.5,
        "linear.mid.attn.blocks.0.self_attn.to_v": 0.5,
        "conv.mid.res.0.conv_1": 0.5,
    }


def test_plans(tmp_path: Path) -> None:
    """Those that cannot take it refuse by name."""
    import tiny_diffusers as tiny

    pipe = ldmkit.load(tiny.saved(tiny.stable_diffusion(), tmp_path / "base"))
    file = saved(tmp_path / "a.safetensors", pair(2, 64, 64))
    call: dict[str, Any] = {"inputs": {"text": "the"}, "steps": 2, "seeds": [1]}
    want = pipe.planned("eager").with_lora(file)(**call).latents
    packed = pipe.planned("prepacked").with_lora(file)(**call).latents
    assert float((packed - want).abs().max()) < 1e-4 * float(want.abs().max())  # float32, other kernels
    changed = pipe.planned("exported").with_lora(file)
    with pytest.raises(CompositionError, match=r"plan-tapped.*'linear\.mid.*eager"):
        changed(**call)
    del changed
    assert not any(port.taps for port in pipe.denoiser.ports.values())


@pytest.mark.parametrize(
    ("port", "words"),
    [
        ("linear.mid.attn.blocks.0.self_attn.to_z", "no such port"),
        ("linear.nothing", "taps port 'linear.nothing'"),
        ("conditioners.text.linear.nothing", "taps"),
        ("conditioners.nobody.linear.a", "conditioner 'nobody'"),
    ],
)
def test_ports_that_are_not_there(pipe: ldmkit.Pipeline, port: str, words: str) -> None:
    layer = {"port": port, "tensors": {"down": (2, 128), "up": (128, 2)}}
    with pytest.raises(CompositionError, match=words):
        pipe.with_adapter("x", LoRA({"layers": [layer]}), {})
    assert not any(port.taps for port in pipe.denoiser.ports.values())


def test_damaged_containers(pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    whole = saved(tmp_path / "a.safetensors", pair()).read_bytes()
    for name, data in {
        "cut": whole[:-10], "headless": whole[8:], "empty": b"", "text": b"{}", "long": b"\xff" * 64,
    }.items():  # fmt: skip
        (tmp_path / f"{name}.safetensors").write_bytes(data)
        with pytest.raises(LdmkitError, match=name):
            pipe.with_lora(tmp_path / f"{name}.safetensors")
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(SourceError, match="unrecognised"):
        pipe.with_lora(tmp_path / "other.safetensors")
    assert load_file(tmp_path / "a.safetensors")


def test_metadata_that_is_nested_without_end(
    pipe: ldmkit.Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ldmkit.cli import main

    deep = "[" * 100_000
    for key, words in {"lora_adapter_metadata": "metadata", "ldmkit.defaults": "metadata"}.items():
        with pytest.raises(SourceError, match=words):
            pipe.with_lora(saved(tmp_path / "a.safetensors", pair(), {key: deep}))
    file = saved(tmp_path / "a.safetensors", pair(), {"ss_tag_frequency": deep})
    assert main(["check", str(file)]) == 0
    (tmp_path / "README.md").write_text(f"---\ntags: {deep}\n---\n")
    with pytest.warns(UserWarning, match=r"README\.md cannot be read"):
        pipe.with_lora(file)
    assert "layers: 1 of the U-Net" in capsys.readouterr().out
