"""What files of changes say of their base, their process and the words that call them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import lora_files
import peft
import pytest
import tiny_diffusers as tiny
import torch
from safetensors.torch import load_file, save_file

import ldmkit
from ldmkit.cli import main
from ldmkit.errors import DrawingWarning, SourceError

UNET = {"r": 4, "lora_alpha": 4, "target_modules": ["attn1.to_q", "attn1.to_k"]}  # layers that do not know their text
KOHYA = {"ss_network_module": "networks.lora", "ss_network_args": '{"conv_dim": "8"}', "ss_output_name": "ink"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("said")
    base = tiny.stable_diffusion_xl()
    tiny.saved(base, root / "xl")
    lora_files.by_diffusers(base, root / "plain", UNET)
    return root


@pytest.fixture(scope="module")
def pipe(root: Path) -> ldmkit.Pipeline:
    return ldmkit.load(root / "xl")


def file_of(root: Path, folder: Path, metadata: dict[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(
        load_file(root / "plain" / "pytorch_lora_weights.safetensors"), file := folder / "ink.safetensors", metadata
    )
    return file


@pytest.mark.parametrize(
    "metadata",
    [
        {"ss_base_model_version": "sd_v1"},
        {"ss_base_model_version": "sd_v2_v"},
        {"ss_base_model_version": "flux1"},
        {"modelspec.architecture": "stable-diffusion-v1/lora"},
        {"modelspec.architecture": "stable-diffusion-xl-v1-refiner/lora"},
        {"modelspec.architecture": "stable-diffusion-3-medium/lora"},
        {"ss_base_model_version": "sd_v2", "modelspec.architecture": "stable-diffusion-xl-v1-base/lora"},
    ],
)
def test_another_base_is_refused_with_both_named(
    root: Path, pipe: ldmkit.Pipeline, tmp_path: Path, metadata: dict[str, str]
) -> None:
    """Every layer is there and fits: only the file knows."""
    file, (key, value) = file_of(root, tmp_path, metadata), next(iter(metadata.items()))
    with pytest.raises(SourceError, match=rf"other-base.*made for .*{key} '{value}'.*is Stable Diffusion XL") as caught:
        pipe.with_lora(file)
    assert str(file) in str(caught.value)
    assert not any(port.taps for port in pipe.denoiser.ports.values())


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"ss_base_model_version": "sdxl_base_v1-0", **KOHYA},
        {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora", "modelspec.prediction_type": "epsilon"},
        {"ss_base_model_version": "something of tomorrow", "ss_zero_terminal_snr": "False", "ss_v2": "None"},
        {"modelspec.architecture": "None", "ss_tag_frequency": "{", "modelspec.prediction_type": ""},
    ],
)
def test_its_own_base_is_attached_without_a_word(
    root: Path, pipe: ldmkit.Pipeline, tmp_path: Path, metadata: dict[str, str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe.with_lora(file_of(root, tmp_path, metadata))


def test_widths_tell_1_from_2(tmp_path: Path) -> None:
    """Of Stable Diffusion 1 and 2 the width of the text is what differs."""
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel

    for width, family, other in ((768, "1", "sd_v2"), (1024, "2", "sd_v1")):
        base = tiny.stable_diffusion(cross_attention_dim=width)
        text = CLIPTextConfig(**{**base.text_encoder.config.to_dict(), "hidden_size": width})
        whole = {**base.components, "text_encoder": CLIPTextModel(text)}
        tiny.saved(diffusers.StableDiffusionPipeline(**whole, requires_safety_checker=False), tmp_path / family)
        lora_files.by_diffusers(base, tmp_path / f"lora{family}", UNET)
        file = tmp_path / f"lora{family}" / "pytorch_lora_weights.safetensors"
        pipe, tensors = ldmkit.load(tmp_path / family), load_file(file)
        save_file(tensors, file, {"ss_base_model_version": f"sd_v{family}"})
        pipe.with_lora(file)
        save_file(tensors, file, {"ss_base_model_version": other})
        with pytest.raises(SourceError, match=f"this pipeline is Stable Diffusion {family}"):
            pipe.with_lora(file)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"modelspec.prediction_type": "v"}, "trained to predict v .*network predicts eps"),
        ({"ss_v_parameterization": "True"}, "trained to predict v .ss_v_parameterization"),
        ({"modelspec.prediction_type": "sample"}, "trained to predict x0"),
        ({"ss_zero_terminal_snr": "True"}, "with a zero terminal SNR .*this pipeline has none"),
        ({"ss_sd_model_name": "runwayml/stable-diffusion-v1-5"}, "sounds like Stable Diffusion 1, .*Diffusion XL"),
    ],
)
def test_another_process_is_told(
    root: Path, pipe: ldmkit.Pipeline, tmp_path: Path, metadata: dict[str, str], words: str
) -> None:
    with pytest.warns(DrawingWarning, match=words):
        pipe.with_lora(file_of(root, tmp_path, metadata))


def test_a_process_with_zero_terminal_snr(root: Path, pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    from ldmkit_processes.discrete import Discrete

    zero = pipe.with_(process=Discrete(prediction="v", zero_terminal_snr=True))
    said = {"modelspec.prediction_type": "v", "ss_zero_terminal_snr": "True"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        zero.with_lora(file_of(root, tmp_path, said))
    with pytest.warns(DrawingWarning, match="without a zero terminal SNR"):
        zero.with_lora(file_of(root, tmp_path, {**said, "ss_zero_terminal_snr": "False"}))
    with pytest.warns(DrawingWarning, match="trained to predict eps .*network predicts v"):
        zero.with_lora(file_of(root, tmp_path, {"modelspec.prediction_type": "epsilon"}))


def test_the_bases_that_peft_and_cards_name(root: Path, pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    config = peft.LoraConfig(**UNET, base_model_name_or_path="stabilityai/stable-diffusion-2-1")
    file = file_of(root, tmp_path, {})
    tensors = {k.removeprefix("unet."): v for k, v in load_file(file).items()}
    save_file({f"base_model.model.{k}": v for k, v in tensors.items()}, tmp_path / "adapter_model.safetensors")
    file.unlink()
    config.save_pretrained(tmp_path)
    with pytest.warns(DrawingWarning, match="base_model_name_or_path .* sounds like Stable Diffusion 2"):
        pipe.with_lora(tmp_path)
    (tmp_path / "README.md").write_text("---\nbase_model: stabilityai/stable-diffusion-xl-base-1.0\n---\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe.with_lora(tmp_path)


def test_check_says_what_a_file_is(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tags = {"10_ink": {"ink drawing": 12, "a cat": 3}, "5_more": {"a cat": 12}}
    said = {
        **KOHYA, "modelspec.trigger_phrase": "inkstyle", "ss_tag_frequency": json.dumps(tags),
        "ss_base_model_version": "sd_v2_v", "ss_zero_terminal_snr": "True", "modelspec.tags": "lcm",
        "modelspec.usage_hint": "say inkstyle \x1b[31m first",
    }  # fmt: skip
    file = file_of(root, tmp_path, said)
    (tmp_path / "README.md").write_text("---\ninstance_prompt: a photo of sks dog\n---\n")
    assert main(["check", str(file)]) == 0
    out = capsys.readouterr().out
    for line in (
        "layers: 16 of the U-Net", "ranks: 4", "base: Stable Diffusion 2 (ss_base_model_version 'sd_v2_v')",
        "predicts: v", "zero terminal SNR: yes", 'trained by: networks.lora {"conv_dim": "8"}',
        "made for few steps: LCM, by its tags", "trigger phrases: inkstyle; a photo of sks dog",
        "frequent tags: a cat (15), ink drawing (12)",
    ):  # fmt: skip
        assert line in out, out
    assert "\x1b" not in out
    assert main(["check", str(file), "--json"]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert facts["title"] == "ink" and facts["trigger phrases"].startswith("inkstyle")
    torch.save({"a": torch.ones(1)}, tmp_path / "x.pt")
    for other in (tmp_path / "x.pt", tmp_path / "absent.safetensors"):
        assert main(["check", str(other)]) != 0
        assert "error" in capsys.readouterr().err
