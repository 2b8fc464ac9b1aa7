"""First stages against numbers of the original code: full key lists, reduced checkpoints, every block.

Tolerance: 1e-5 of an array's largest value, or four times the rounding noise that was measured for it. Codecs are run
in float64 for it, so that no CPU's order of summation counts; float32 is held to what that gives within `ROUNDING`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ldmkit_checkpoints.compvis.vae_config import first_stage_from_compvis
from ldmkit_checkpoints.compvis.vae_keys import kl_compvis_keys, vq_compvis_keys
from ldmkit_checkpoints.keys import KeyMap, prefixed
from ldmkit_checkpoints.unread import ignorable_vae_key
from ldmkit_codecs.autoencoder import Attention, Downsample, LinearAttention, ResnetBlock, Upsample
from ldmkit_codecs.kl import KLCodec
from ldmkit_codecs.vq import VQCodec
from torch import Tensor, nn

GOLDENS = Path(__file__).parents[1] / "goldens"
sys.path.append(str(GOLDENS))

import golden_weights as gw  # noqa: E402

ROUNDING = 3e-5
"""Of an array's largest value: float32 against float64 of one codec. Measured at most 9.1e-6 with AVX-512, 1.4e-5 with
AVX2 and 1.6e-5 with SSE4.1; twice that, for orders of summation that no CPU here has."""

STAGES = sorted(p.parent.name for p in GOLDENS.glob("first_stage_*/manifest.json"))
MODELS = sorted(
    path.parent.name
    for path in GOLDENS.glob("*/manifest.json")
    if '"fs.image"' in path.read_text() and path.parent.name not in STAGES
)


def section(name: str, full: bool) -> dict[str, Any]:
    """The yaml's first stage: the whole file of a first stage, a section of a diffusion model's."""
    path = GOLDENS / name / ("config_full.yaml" if full else "config.yaml")
    if not path.is_file():
        return with_width(section(name, False), 128)
    model = yaml.safe_load(path.read_text())["model"]
    stage = model if name in STAGES else model["params"]["first_stage_config"]
    # the reduced SDXL yaml states the full width, its checkpoint has the reduced one
    return with_width(stage, 64) if name == "sdxl_base" and not full else stage


def with_width(stage: dict[str, Any], width: int) -> dict[str, Any]:
    params = stage["params"]
    return {**stage, "params": {**params, "ddconfig": {**params["ddconfig"], "ch": width}}}


def build(name: str, full: bool, scale: float = 1.0) -> tuple[KLCodec | VQCodec, KeyMap]:
    kind, config = first_stage_from_compvis(section(name, full))
    prefix = "" if name in STAGES else "first_stage_model."
    with torch.device("meta" if full else "cpu"):
        if kind == "kl":
            codec: KLCodec | VQCodec = KLCodec({**config, "scale": scale})
            return codec, prefixed(kl_compvis_keys(codec.config), foreign=prefix)
        codec = VQCodec({**config, "scale": scale})
        return codec, prefixed(vq_compvis_keys(codec.config), foreign=prefix)


def first_stage_keys(manifest: dict[str, Any], name: str, which: str) -> dict[str, tuple[int, ...]]:
    prefix = "" if name in STAGES else "first_stage_model."
    return {key: tuple(shape) for key, shape in manifest[which] if key.startswith(prefix)}


@pytest.mark.parametrize("name", STAGES + MODELS)
def test_full_size_keys_and_shapes(name: str) -> None:
    manifest, _ = gw.load_model_dir(str(GOLDENS / name))
    wanted = first_stage_keys(manifest, name, "full_keys")
    codec, keymap = build(name, full=True)
    state = codec.state_dict()
    assert set(state) == set(keymap)
    read = {key for entry in keymap.values() for key in entry.keys}
    for native, entry in keymap.items():
        got = entry.read(*(torch.empty(wanted[key], device="meta") for key in entry.keys))
        assert got.shape == state[native].shape, native
        back = entry.write(got)
        assert [tuple(t.shape) for t in back] == [wanted[key] for key in entry.keys]
    left = {key for key in set(wanted) - read if ignorable_vae_key(key) is None}
    assert not left


@pytest.mark.parametrize("name", STAGES + MODELS)
def test_reduced_checkpoint(name: str) -> None:
    manifest, arrays = gw.load_model_dir(str(GOLDENS / name))
    codec, keymap = build(name, full=False, scale=manifest.get("scale_factor") or (0.13025 if "sdxl" in name else 1.0))
    checked = load_and_run(manifest, arrays, name, codec, keymap)
    wanted = {key for key in arrays if key.startswith("fs.")}
    not_outputs = {"fs.image", "fs.sample_noise", "fs.latent2", "fs.decode_first_stage_in", "fs.trace"}
    elsewhere = {"fs.nll", "fs.code_margin", "fs.latent2_margin", "fs.scale_by_std"}
    assert wanted - not_outputs - elsewhere <= checked | {"fs.moments"} and len(checked) >= 3


def load_and_run(
    manifest: dict[str, Any], arrays: dict[str, Any], name: str, codec: KLCodec | VQCodec, keymap: KeyMap
) -> set[str]:
    keys = first_stage_keys(manifest, name, "reduced_keys")
    own = {**manifest, "reduced_keys": list(keys.items()), "reduced_buffers": {}}
    file = gw.build_state_dict(own, arrays)
    read = {key for entry in keymap.values() for key in entry.keys}
    assert read <= set(file) and all(ignorable_vae_key(k) for k in set(file) - read)
    native = {key: entry.read(*(file[k] for k in entry.keys)) for key, entry in keymap.items()}
    codec.load_state_dict(native, strict=True)
    given = {key: torch.from_numpy(value) for key, value in arrays.items() if key.startswith("fs.")}
    single = outputs_of(codec, given)
    outputs = outputs_of(codec.double(), {key: value.double() for key, value in given.items()})
    for key in outputs.keys() & arrays.keys():
        ok, error = gw.compare(manifest, arrays, key, outputs[key], rtol=1e-5)
        assert ok, f"{key}: {error}"
        assert relative(single[key], outputs[key]) <= ROUNDING, key
    return outputs.keys() & arrays.keys()


def outputs_of(codec: KLCodec | VQCodec, given: dict[str, Tensor]) -> dict[str, Tensor]:
    with torch.no_grad():
        return kl_outputs(codec, given) if isinstance(codec, KLCodec) else vq_outputs(codec, given)


def relative(got: Tensor, want: Tensor) -> float:
    """Largest difference, of the largest value; of integers (codes), the share of those that differ."""
    if not want.is_floating_point():
        return float((got != want).float().mean())
    return float((got.double() - want.double()).abs().max() / want.abs().max())


def kl_outputs(codec: KLCodec, given: dict[str, Tensor]) -> dict[str, Tensor]:
    images = given["fs.image"]
    posterior = codec.posterior(images)
    scale = codec.config.scale
    assert isinstance(scale, float)
    found = {
        "fs.moments": codec.moments(images),
        "fs.mode": posterior.mean,
        "fs.logvar": posterior.logvar,
        "fs.kl": posterior.kl(),
        "fs.decode": codec.decode(posterior.mean * scale),
        "fs.z": codec.encode(images, given["fs.sample_noise"]),
        "fs.sample": posterior.sample(given["fs.sample_noise"]),
    }
    assert relative(codec.encode(images), posterior.mean * scale) <= ROUNDING
    reconstruction = codec.reconstruct(images)
    assert relative(reconstruction.losses["kl"], posterior.kl().mean()) <= ROUNDING
    assert relative(reconstruction.images, found["fs.decode"]) <= ROUNDING
    if "fs.decode_first_stage_in" in given:
        found["fs.decode_first_stage_out"] = codec.decode(given["fs.decode_first_stage_in"])
    return found


def vq_outputs(codec: VQCodec, given: dict[str, Tensor]) -> dict[str, Tensor]:
    images = given["fs.image"]
    raw = codec.encode_raw(images)
    quant, codes, loss = codec.quantise(raw)
    fixed = VQCodec({**codec.config.model_dump(), "legacy": False})
    fixed.to(images.dtype).load_state_dict(codec.state_dict())
    decoded = codec.decode(raw)
    assert relative(codec.reconstruct(images).images, decoded) <= ROUNDING
    found = {
        "fs.prequant": raw,
        "fs.z": codec.encode(images),
        "fs.codes": codes,
        "fs.quant": quant,
        "fs.vq_loss": loss,
        "fs.vq_loss_fixed": fixed.quantise(raw).loss,
        "fs.decode": decoded,
        "fs.decode_interface": decoded,
        "fs.decode_noquant": codec.decode_raw(raw),
        "fs.latent2_codes": codec.codes(given["fs.latent2"]),
        "fs.latent2_decode": codec.decode(given["fs.latent2"]),
        "fs.codebook_entry": codec.codebook_entry(given["fs.codes"].long()),
    }
    if "fs.decode_first_stage_in" in given:
        found["fs.decode_first_stage_out"] = codec.decode(given["fs.decode_first_stage_in"])
    return found


def squeezed(weights: dict[str, Tensor], rename: dict[str, str]) -> dict[str, Tensor]:
    """The original block's weights under our names; 1x1 convolutions that became linear lose two axes."""
    found = {}
    for key, value in weights.items():
        name, _, last = key.rpartition(".")
        ours = rename.get(name, name)
        linear = ours in ("q", "k", "v", "out", "qkv") and value.ndim == 4
        found[f"{ours}.{last}"] = value.flatten(1) if linear else value
    return found


BLOCKS: dict[str, tuple[nn.Module, dict[str, str]]] = {
    "ae_resnet_same": (ResnetBlock(64, 64), {}),
    "ae_resnet_wider": (ResnetBlock(64, 96), {"nin_shortcut": "skip"}),
    "ae_attn": (Attention(64), {"proj_out": "out"}),
    "ae_linattn": (LinearAttention(64), {"to_qkv": "qkv", "to_out": "out"}),
    "ae_downsample": (Downsample(32), {}),
    "ae_upsample": (Upsample(32), {}),
}


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("size", ["", "_small"])
def test_block(name: str, size: str) -> None:
    """Inputs of 2e-3 make a wrong epsilon of a norm a gross error."""
    manifest, arrays = gw.load_model_dir(str(GOLDENS / "modules"))
    block, rename = BLOCKS[name]
    weights = {key: gw.golden_tensor(f"{name}.{key}", shape) for key, shape in manifest["key_lists"][name]}
    block.load_state_dict(squeezed(weights, rename), strict=True)
    given = torch.from_numpy(arrays[f"{name}.in0{size}"])
    before = given.clone()
    with torch.no_grad():
        ok, error = gw.compare(manifest, arrays, f"{name}.out{size}", block(given), rtol=1e-5)
    assert ok, error
    assert torch.equal(given, before)
