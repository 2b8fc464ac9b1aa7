"""The consistency decoder against diffusers' ConsistencyDecoderVAE: every field of its config, decoding with the same
noise, its size, and the way back."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from ldmkit_checkpoints.diffusers.consistency import consistency_from_diffusers, consistency_to_diffusers
from ldmkit_checkpoints.diffusers.export_parts import save_diffusers_codec
from ldmkit_codecs.consistency import LATENT_DEVIATION, LATENT_MEAN, ConsistencyCodec, ConsistencyConfig
from network_fields import TOLERANCE, Options, filled, normal, saved
from torch import Tensor

import ldmkit

BASE: Options = {
    "encoder_block_out_channels": [8, 16],
    "encoder_down_block_types": ["DownEncoderBlock2D"] * 2,
    "encoder_norm_num_groups": 4,
    "encoder_layers_per_block": 1,
    "decoder_block_out_channels": [8, 16],
    "decoder_down_block_types": ["ResnetDownsampleBlock2D"] * 2,
    "decoder_up_block_types": ["ResnetUpsampleBlock2D"] * 2,
    "decoder_norm_num_groups": 4,
    "decoder_layers_per_block": 1,
}
VALUES: dict[str, list[Any]] = {
    "scaling_factor": [0.13025, 1.0, -2, 0, None, "x"],
    "latent_channels": [8, 3, "x", True],
    "sample_size": [16, 512],
    "encoder_act_fn": ["swish", "mish"],
    "encoder_block_out_channels": [[16, 8], [8], [8, 8, 8], "x"],
    "encoder_double_z": [False, None],
    "encoder_down_block_types": [["AttnDownEncoderBlock2D", "DownEncoderBlock2D"], ["DownBlock2D"] * 2, "x"],
    "encoder_in_channels": [1, 4],
    "encoder_layers_per_block": [2, 0],
    "encoder_norm_num_groups": [2, 3, None],
    "encoder_out_channels": [8, 2],
    "decoder_add_attention": [True, None],
    "decoder_block_out_channels": [[16, 8], [8], [8, 16, 16]],
    "decoder_down_block_types": [
        ["DownBlock2D", "ResnetDownsampleBlock2D"],
        ["DownBlock2D"] * 2,
        ["ResnetDownsampleBlock2D", "AttnDownBlock2D"],
    ],
    "decoder_downsample_padding": [0, 2],
    "decoder_in_channels": [6, 11],
    "decoder_layers_per_block": [2, 0, [1, 2]],
    "decoder_norm_eps": [1e-2, "x"],
    "decoder_norm_num_groups": [2, 3],
    "decoder_num_train_timesteps": [1009, 1008, 2000, None],
    "decoder_out_channels": [3, 4, 8, 2],
    "decoder_resnet_time_scale_shift": ["default", "spatial"],
    "decoder_time_embedding_type": ["positional", "fourier"],
    "decoder_up_block_types": [["UpBlock2D", "ResnetUpsampleBlock2D"], ["UpBlock2D"] * 2],
}
CLASS = diffusers.ConsistencyDecoderVAE
FIELDS = [key for key in inspect.signature(CLASS.__init__).parameters if key != "self"]
PLAIN: Options = {"decoder_down_block_types": ["DownBlock2D"] * 2, "decoder_up_block_types": ["UpBlock2D"] * 2}
"""Down- and upsampling in other blocks than the published ones, as in DDPM."""
ATTENDED: Options = {
    "decoder_down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D"],
    "decoder_up_block_types": ["AttnUpBlock2D", "ResnetUpsampleBlock2D"],
    "decoder_add_attention": True,
}


def drawn_noise(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """The noise of the two steps as their decoder draws it from `generator()`."""
    source = generator()
    return [torch.randn(shape, generator=source, dtype=dtype) for _ in range(2)]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def far(got: Tensor, want: Tensor) -> float:
    assert got.shape == want.shape
    return float((got - want).abs().max() / want.abs().max())


def check(folder: Path, changes: Options, drop: str | None = None) -> None:
    model = saved(CLASS, BASE, folder, changes, drop, filled)
    latents = normal(2, 4, 8, 12, seed=4)
    try:
        codec = ldmkit.load_codec(folder)
    except ldmkit.LdmkitError as error:
        named = any(key in str(error) for key in [*changes, drop or "weights"])
        weighs = error.code.startswith("weights.") and (model is None or drop is not None)  # of their default size
        assert named or weighs, str(error)
        return
    assert model is not None, f"{changes or drop}: loaded here, but not there"
    scale, images = model.config.scaling_factor, normal(1, model.config.encoder_in_channels, 16, 24, seed=5)
    with torch.no_grad():
        want = model.decode(latents / scale, generator=generator()).sample
        encoded = model.encode(images).latent_dist.mean * scale
    assert far(codec.decode_with(latents, drawn_noise((2, 3, 16, 24)).__getitem__), want) < TOLERANCE
    assert far(codec.encode(images), encoded) < TOLERANCE


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("field", FIELDS)
def test_a_field(field: str, tmp_path: Path) -> None:
    assert VALUES[field], "a field of the installed class without a value to try"
    for i, value in enumerate(VALUES[field]):
        check(tmp_path / str(i), {field: value})
    check(tmp_path / "missing", {}, field)


@pytest.mark.parametrize("changes", [PLAIN, ATTENDED])
def test_fields_that_go_together(changes: Options, tmp_path: Path) -> None:
    check(tmp_path, changes)


def test_both_steps_in_float64(tmp_path: Path) -> None:
    model = filled(CLASS(**BASE))
    model.save_pretrained(tmp_path)
    codec, latents = ldmkit.load_codec(tmp_path, dtype="float64"), normal(2, 4, 8, 12, seed=4).double()
    model = model.double()
    # their float32 statistics, at the precision of this comparison
    model.means, model.stds = (
        torch.tensor(v, dtype=torch.float64).view(1, 4, 1, 1) for v in (LATENT_MEAN, LATENT_DEVIATION)
    )
    with torch.no_grad():
        want = model.decode(latents / 0.18215, generator=generator()).sample
    got = codec.decode_with(latents, drawn_noise((2, 3, 16, 24), torch.float64).__getitem__)
    assert far(got, want) < 1e-10  # 1e-15 is seen


def test_the_published_size() -> None:
    with torch.device("meta"):
        theirs = CLASS()
        ours = ConsistencyCodec(ConsistencyConfig.of(consistency_from_diffusers(dict(theirs.config))))
        own = ConsistencyCodec(ConsistencyConfig(widths=(128, 256, 512, 512)))
    counts = [sum(p.numel() for p in part.parameters()) for part in (theirs, ours, own)]
    assert counts == [655_441_366] * 3


def test_a_folder_for_diffusers_is_their_folder(tmp_path: Path) -> None:
    model = filled(CLASS(**BASE))
    model.save_pretrained(tmp_path / "theirs")
    codec = ldmkit.load_codec(tmp_path / "theirs")
    save_diffusers_codec(codec, tmp_path / "ours")
    again = CLASS.from_pretrained(tmp_path / "ours", low_cpu_mem_usage=False).eval()
    latents = normal(1, 4, 8, 8, seed=4)
    with torch.no_grad():
        one, other = (m.decode(latents, generator=generator()).sample for m in (model, again))
    assert torch.equal(one, other)


OWN: Options = {"channels": 3, "in_channels": 7, "widths": [8, 16], "blocks": 1, "norm_groups": 4, "mid": "none"}


def test_a_network_of_our_own_is_written() -> None:
    base = consistency_from_diffusers(dict(BASE))
    written = consistency_to_diffusers({**base, "unet": {**OWN, "heads": 2}})
    assert written["decoder_time_embedding_type"] == "positional" and not written["decoder_add_attention"]
    again = ConsistencyConfig.of(consistency_from_diffusers(written)).unet
    assert (again.widths, again.mid_kind, again.time_table) == ((8, 16), "none", None)


@pytest.mark.parametrize(
    "changes",
    [
        {"clamp": True},
        {"timesteps": (1008,)},
        {"latent_mean": 0.0},
        {"scale": (0.1, 0.2, 0.3, 0.4)},
        {"shift": 0.1},
        {"sigma_data": 0.6},
        {"quant_conv": False},
        {"unet": {**OWN, "heads": 1, "mid_scale": 0.5}},
        {"unet": {**OWN, "heads": 2, "mid": "self"}},
    ],
)
def test_what_their_class_cannot_say_is_not_written(changes: Options) -> None:
    base = consistency_from_diffusers(dict(BASE))
    assert consistency_to_diffusers(base)["decoder_block_out_channels"] == [8, 16]
    with pytest.raises(ldmkit.SourceError) as error:
        consistency_to_diffusers({**base, **changes})
    named = {"unet": "decoder|U-Net"}.get(name := next(iter(changes)), name)
    assert error.value.code in ("source.inexpressible", "source.not-expressible")
    assert re.search(named, str(error.value)), str(error.value)
