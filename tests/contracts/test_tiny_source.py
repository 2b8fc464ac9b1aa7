"""A tiny autoencoder's two published files, found in a folder and loaded as a first stage."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ldmkit_checkpoints.tiny.keys import tiny_sequential_keys
from ldmkit_codecs.tiny import TinyCodec
from safetensors.torch import save_file
from torch import Tensor

import ldmkit
from ldmkit.errors import SourceError, WeightsError
from ldmkit.loading import load

CONFIG = {"width": 8, "encoder_blocks": [1, 2], "decoder_blocks": [2, 1], "latent_channels": 5, "decoder_pool": True}


def halves(codec: TinyCodec) -> dict[str, dict[str, Tensor]]:
    found: dict[str, dict[str, Tensor]] = {"encoder": {}, "decoder": {}}
    state = codec.state_dict()
    for native, entry in tiny_sequential_keys(codec.config).items():
        half, _, key = entry.keys[0].partition(".")
        found[half][key] = state[native].half()
    return found


@pytest.fixture
def codec() -> TinyCodec:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TinyCodec(CONFIG).eval()


def write(folder: Path, codec: TinyCodec, name: str = "", pickled: bool = False) -> dict[str, dict[str, Tensor]]:
    found = halves(codec)
    for half, tensors in found.items():
        if pickled:
            torch.save(tensors, folder / f"{name}{half}.pth")
        else:
            save_file(tensors, str(folder / f"{name}{half}.safetensors"))
    return found


@pytest.mark.parametrize(("name", "pickled"), [("", False), ("tae_", False), ("tae_", True)])
def test_pair_of_files_loads(tmp_path: Path, codec: TinyCodec, name: str, pickled: bool) -> None:
    write(tmp_path, codec, name, pickled)
    loaded = ldmkit.load_codec(tmp_path, dtype="float32")
    assert isinstance(loaded, TinyCodec) and loaded.config == codec.config
    codec.half().float()
    latents = torch.randn(1, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded.decode(latents), codec.decode(latents))
        assert torch.equal(loaded.encode(codec.decode(latents)), codec.encode(codec.decode(latents)))


def test_nothing_is_taken_that_has_no_effect(tmp_path: Path, codec: TinyCodec) -> None:
    write(tmp_path, codec)
    yaml = tmp_path / "taesd.yaml"
    yaml.write_text("model: {}\n")
    for option in ({"config": yaml}, {"ema": True}, {"ema": False}):
        with pytest.raises(ldmkit.InputError, match="not-taken"):
            ldmkit.load_codec(tmp_path, **option)  # type: ignore[arg-type]


def test_pair_is_no_pipeline_and_must_be_one_pair(tmp_path: Path, codec: TinyCodec) -> None:
    write(tmp_path, codec)
    with pytest.raises(SourceError, match="codec-only"):
        load(tmp_path)
    write(tmp_path, codec, "other_")
    with pytest.raises(SourceError, match="'other_'"):
        ldmkit.load_codec(tmp_path)


def test_damaged_pair(tmp_path: Path, codec: TinyCodec) -> None:
    decoder = write(tmp_path, codec)["decoder"]
    missing = {key: tensor for key, tensor in decoder.items() if key != "4.conv.2.bias"}
    save_file(missing, str(tmp_path / "decoder.safetensors"))
    with pytest.raises(WeightsError, match=r"decoder\.4\.conv\.2\.bias"):
        ldmkit.load_codec(tmp_path)
    save_file({**decoder, "attention.weight": torch.zeros(2)}, str(tmp_path / "decoder.safetensors"))
    with pytest.raises(SourceError, match=r"attention\.weight"):
        ldmkit.load_codec(tmp_path)
    save_file({**decoder, "4.conv.2.bias": torch.zeros(9)}, str(tmp_path / "decoder.safetensors"))
    with pytest.raises(WeightsError, match="wrong-shape"):
        ldmkit.load_codec(tmp_path)
