"""Files and folders that no reader takes are told what they are and what would load them, by name, bytes and members.

Made by the programs that write them where these are installed (torch, safetensors, diffusers), else as they publish.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import tiny_diffusers as tiny
import torch
from safetensors.torch import save_file
from torch import nn

import ldmkit


def refused(path: Path, says: str) -> None:
    with pytest.raises(ldmkit.SourceError, match=says) as caught:
        ldmkit.load(path)
    assert "yaml" not in str(caught.value) or "yaml" in says


BYTES = {
    "git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
    "web page": b"\n\n<!DOCTYPE html><html>",
    "a text: 'Entry not found'": b"Entry not found",
    "a text: 'Access to model": "Access to model café/x is restricted".encode() * 9,
    'a text: \'{"error"': b'{"error":"Repository not found"}',
    "XML file .as OpenVINO": b'<?xml version="1.0"?><net name="x">',
    "GGUF": b"GGUF\3\0\0\0",
    "picture .PNG": b"\x89PNG\r\n\x1a\n" + bytes(30),
    "picture .JPEG": b"\xff\xd8\xff\xe0" + bytes(30),
    "gzip": b"\x1f\x8b\x08" + bytes(30),
    "7-zip": b"7z\xbc\xaf'\x1c" + bytes(30),
    "RAR": b"Rar!\x1a\x07\0",
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(30),
    "PDF": b"%PDF-1.7",
    "truncated.*empty": b"",
    "truncated.*zeros": bytes(4096),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt", ".pt", ".bin"])
@pytest.mark.parametrize("says", BYTES)
def test_what_was_saved_under_the_name_of_a_checkpoint(tmp_path: Path, says: str, suffix: str) -> None:
    (tmp_path / f"model{suffix}").write_bytes(BYTES[says])
    refused(tmp_path / f"model{suffix}", says)


NAMES = {
    "model.safetensors.crdownload": "unfinished download",
    "model.ckpt.part": "unfinished download",
    "abc.incomplete": "unfinished download",
    "model.onnx": "ONNX",
    "unet.engine": "TensorRT",
    "model.tflite": "TensorFlow Lite",
    "flax_model.msgpack": "Flax",
    "tf_model.h5": "TensorFlow or Keras",
    "model.gguf": "GGUF",
    "model.xml": "XML",
    "diffusion_pytorch_model.safetensors.index.json": "index of sharded weights.*the folder",
    "pytorch_model.bin.index.json": "index of sharded weights.*the folder",
    "model_index.json": "config of a model.*the folder",
    "pipeline.json": "config of a model.*the folder",
    "v1-inference.yaml": "config of a checkpoint.*yaml|config=",
    "model-00001-of-00002.safetensors": "shard 1 of 2.*folder",
    "pytorch_model-00002-of-00003.bin": "shard 2 of 3.*folder",
    "model.zip": "archive.*unpack",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_that_tell(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"<?xml" if name.endswith("xml") else b"\x08\x07something")
    with pytest.raises(ldmkit.SourceError, match=NAMES[name]):
        ldmkit.load(tmp_path / name)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


@pytest.mark.parametrize("name", ["net.pt", "net.ckpt", "net.bin"])
def test_torchscript(tmp_path: Path, name: str) -> None:
    torch.jit.script(Net()).save(str(tmp_path / name))
    refused(tmp_path / name, r"TorchScript.*torch\.jit\.load")
    torch.jit.trace(Net(), torch.zeros(1, 2)).save(str(tmp_path / name))
    refused(tmp_path / name, "TorchScript")


EMBEDDING = {"string_to_token": {"*": torch.tensor(265)}, "name": "cat", "step": 500}
LINEAR = {"linear.0.weight": torch.zeros(2, 2)}
TREES: dict[str, tuple[Any, str]] = {
    "A1111 embedding": ({**EMBEDDING, "string_to_param": {"*": torch.zeros(2, 768)}}, "textual inversion"),
    "A1111 embedding of a module": (
        {**EMBEDDING, "string_to_param": nn.ParameterDict({"*": nn.Parameter(torch.zeros(2, 768))})},
        "textual inversion",
    ),
    "diffusers' embedding": ({"<cat>": torch.zeros(768)}, "textual inversion"),
    "hypernetwork": ({"step": 10, "layer_structure": [1, 2, 1], 768: [LINEAR, LINEAR]}, "hypernetwork"),
    "hypernetwork of old": ({768: (LINEAR, LINEAR), 320: (LINEAR, LINEAR)}, "hypernetwork"),
    "IP-Adapter": ({"image_proj": {"proj.weight": torch.zeros(2)}, "ip_adapter": {"1.to_k_ip.weight": torch.zeros(2)}},
                   "IP-Adapter"),
    "ESRGAN": ({"params_ema": {"conv_first.weight": torch.zeros(2), "body.0.rdb1.conv1.weight": torch.zeros(2)}},
               "upscaler"),
    "Lightning without weights": (
        {"epoch": 1, "global_step": 5, "pytorch-lightning_version": "1.4.2", "optimizer_states": [], "callbacks": {}},
        "trainer's state without model weights",
    ),
    "an optimiser's state": ({"state": {}, "param_groups": [{"lr": 1.0}]}, "trainer's state"),
    "another level": ({"model": {"a.x": torch.zeros(2)}, "step": 5}, r"under 'model'.*checkpoint\['model'\]"),
    "two levels": ({"net": {"a": torch.zeros(2)}, "net_ema": {"a": torch.zeros(2)}}, "under 'net', 'net_ema'"),
    "a list": ([torch.zeros(2)], "holds a list"),
    "a whole module": (Net(), "pickle"),
}  # fmt: skip


@pytest.mark.parametrize("name", TREES)
def test_torch_files_of_other_programs(tmp_path: Path, name: str) -> None:
    tree, says = TREES[name]
    torch.save(tree, tmp_path / "file.pt")
    refused(tmp_path / "file.pt", says)


def test_a_checkpoint_under_the_wrong_name(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    refused(tmp_path / "a.safetensors", r"torch\.save.*\.ckpt")
    save_file({"a": torch.zeros(2)}, tmp_path / "a.ckpt")
    refused(tmp_path / "a.ckpt", r"a safetensors file.*\.safetensors")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.999])
def test_half_a_file(tmp_path: Path, kept: float) -> None:
    state = tiny.unet().state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    for name in ("a.safetensors", "a.ckpt"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: int(len(whole) * kept)])
        refused(tmp_path / name, "source.truncated")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.saved(tiny.stable_diffusion(), tmp_path_factory.mktemp("sd") / "folder")


@pytest.mark.parametrize(
    ("member", "says"),
    [
        ("text_encoder", "text encoder alone .CLIPTextModel.*complete pipeline"),
        ("tokenizer", "tokenizer alone.*complete pipeline"),
        ("scheduler", "scheduler alone.*complete pipeline"),
        ("vae", "first stage alone.*load_codec"),
        ("unet", "denoiser alone.*complete pipeline"),
        ("vae/diffusion_pytorch_model.safetensors", "first stage with diffusers' keys.*load_codec with its folder"),
        ("unet/diffusion_pytorch_model.safetensors", "U-Net alone"),
        ("text_encoder/model.safetensors", "text encoder alone"),
    ],
)
def test_components_alone(pipeline: Path, member: str, says: str) -> None:
    refused(pipeline / member, says)


def test_classes_of_diffusers_alone(tmp_path: Path) -> None:
    motion = diffusers.MotionAdapter(
        block_out_channels=(32, 32), motion_num_attention_heads=2, motion_norm_num_groups=8, use_motion_mid_block=False
    )
    motion.save_pretrained(tmp_path / "motion")
    refused(tmp_path / "motion", "diffusers component alone, 'MotionAdapter'")
    refused(tmp_path / "motion" / "diffusion_pytorch_model.safetensors", "AnimateDiff")


def test_a_lora_that_diffusers_saved(tmp_path: Path) -> None:
    layers = {f"mid_block.attentions.0.proj_in.lora.{end}.weight": torch.zeros(2, 2) for end in ("down", "up")}
    diffusers.StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=layers)
    refused(tmp_path, "diffusers LoRA")
    refused(tmp_path / "pytorch_lora_weights.safetensors", "LoRA")


FOLDERS: dict[str, tuple[dict[str, Any], str]] = {
    "ONNX": ({"unet/model.onnx": b"\x08", "vae_decoder/model.onnx": b"\x08"}, "ONNX networks"),
    "ONNX alone": ({"model.onnx": b"\x08", "notes.txt": b"x"}, "ONNX network"),
    "ONNX pipeline": (
        {"model_index.json": {"_class_name": "OnnxStableDiffusionPipeline"}},
        "diffusers pipeline",
    ),
    "ONNX parts": (
        {"model_index.json": {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "OnnxRuntimeModel"]}},
        "pipeline of ONNX: its unet is OnnxRuntimeModel",
    ),
    "OpenVINO parts": (
        {"model_index.json": {"_class_name": "StableDiffusionPipeline", "unet": ["optimum", "OVModelUnet"]}},
        "pipeline of OpenVINO",
    ),
    "OpenVINO": ({"openvino_model.xml": b"<?xml", "openvino_model.bin": b"\0"}, "OpenVINO network"),
    "peft": ({"adapter_config.json": {"peft_type": "LORA"}, "adapter_model.safetensors": b""}, "peft adapter"),
    "embedding": ({"learned_embeds.safetensors": b"x"}, "textual inversion"),
    "T5": ({"config.json": {"architectures": ["T5EncoderModel"], "model_type": "t5"}}, "text encoder alone .T5"),
    "a language model": ({"config.json": {"architectures": ["LlamaForCausalLM"]}}, "transformers model .'Llama"),
    "FLUX's transformer": ({"config.json": {"_class_name": "FluxTransformer2DModel"}}, "'FluxTransformer2DModel'"),
    "modular": ({"modular_model_index.json": {}}, "modular diffusers pipeline"),
    "shards alone": ({"model-00001-of-00002.safetensors": b"x"}, "sharded weights without"),
    "an index alone": ({"model.safetensors.index.json": {"weight_map": {}}}, "shard index without"),
    "a checkpoint in a folder": ({"sd.safetensors": b"x"}, r"holds 'sd\.safetensors'.*no yaml.*the file itself: .*/sd"),
    "two of them": ({"a.ckpt": b"x", "b.ckpt": b"x"}, r"holds 'a\.ckpt', 'b\.ckpt'.*yaml"),
    "nothing known": ({"README.md": b"x"}, "no reader recognises this format"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_of_other_programs(tmp_path: Path, name: str) -> None:
    files, says = FOLDERS[name]
    for member, content in files.items():
        (tmp_path / member).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / member).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(ldmkit.SourceError, match=says):
        ldmkit.load(tmp_path)
