"""A consistency decoder in pipelines of Stable Diffusion: diffusers' folder with one, and one put into a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import tiny_diffusers as tiny
import torch
from ldmkit_codecs.consistency import ConsistencyCodec
from torch import Tensor

import ldmkit
from ldmkit.replaying import replay
from ldmkit.run.noise import Noise, normal

SIZES: dict[str, Any] = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
TEXT = {"text": "the red house"}


def decoder() -> Any:
    torch.manual_seed(1)
    blocks = {"down_block_types": ("ResnetDownsampleBlock2D",) * 2, "up_block_types": ("ResnetUpsampleBlock2D",) * 2}
    encoder = {**SIZES, "down_block_types": ("DownEncoderBlock2D",) * 2}
    return diffusers.ConsistencyDecoderVAE(
        **{f"encoder_{key}": value for key, value in encoder.items()},
        **{f"decoder_{key}": value for key, value in {**SIZES, **blocks}.items()},
    ).eval()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ldmkit.Pipeline]:
    folder = tmp_path_factory.mktemp("sd")
    theirs = tiny.stable_diffusion()
    theirs.vae = decoder()
    return theirs, ldmkit.load(tiny.saved(theirs, folder))


def test_pictures_equal_diffusers(both: tuple[Any, ldmkit.Pipeline]) -> None:
    theirs, ours = both
    start = Noise([3], (4, 16, 16))(0, "start")
    want = theirs("the red house", num_inference_steps=4, guidance_scale=4.0, latents=start, output_type="latent")
    out = ours(TEXT, steps=4, guidance=4.0, seeds=[3])
    draws = iter([normal(3, "decode", i, (3, 32, 32))[None] for i in range(2)])
    pictures = decoded(theirs.vae, want.images / theirs.vae.config.scaling_factor, lambda *_, **__: next(draws))
    assert isinstance(ours.codec, ConsistencyCodec)
    assert (out.images - (pictures / 2 + 0.5).clamp(0, 1)).abs().max() < 1e-4  # float32; 1e-6 is seen


def decoded(vae: Any, latents: Tensor, draw: Any) -> Tensor:
    """Their decode, with the noise of ours."""
    from diffusers.models.autoencoders import consistency_decoder_vae as one
    from diffusers.schedulers import scheduling_consistency_decoder as other

    kept = one.randn_tensor, other.randn_tensor
    one.randn_tensor = other.randn_tensor = draw
    try:
        with torch.no_grad():
            return vae.decode(latents).sample  # type: ignore[no-any-return]
    finally:
        one.randn_tensor, other.randn_tensor = kept


def test_neither_batch_nor_order_matter(both: tuple[Any, ldmkit.Pipeline]) -> None:
    pipe = both[1]
    one = pipe(TEXT, steps=2, seeds=[3, 4, 5]).images
    other = pipe(TEXT, steps=2, seeds=[5, 3]).images
    torch.testing.assert_close(other, one[[2, 0]], rtol=0.0, atol=1e-5)
    assert (one[0] - one[1]).abs().max() > 1e-2


def test_another_pipelines_codec_is_replaced_and_saved(both: tuple[Any, ldmkit.Pipeline], tmp_path: Path) -> None:
    plain = ldmkit.load(tiny.saved(tiny.stable_diffusion(), tmp_path / "sd"))
    changed = plain.with_(codec=both[1].codec)
    changed.save(tmp_path / "saved")
    again = ldmkit.load(tmp_path / "saved")
    out = again(TEXT, steps=2, seeds=[3])
    assert torch.equal(out.images, both[1](TEXT, steps=2, seeds=[3]).images)
    assert torch.equal(replay(again, out.recipes[0]).images, out.images)
