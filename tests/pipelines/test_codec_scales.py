"""A codec's latents have the scale that the denoiser was trained on, or the two are not put together."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_diffusers
import torch
from ldmkit_checkpoints.compvis.plan import SD_KL, plan_first_stage
from ldmkit_checkpoints.compvis.vae_keys import kl_compvis_keys
from ldmkit_checkpoints.singlefile.models import _kl_f8
from ldmkit_codecs import tiled
from ldmkit_codecs.kl import KLCodec, KLConfig
from safetensors.torch import save_file

import ldmkit
from ldmkit.errors import CompositionError, SourceError
from ldmkit.models.compose import fit, part_spec

GEOMETRY = {"widths": (32, 64), "blocks": 1}


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> ldmkit.Pipeline:
    theirs = tiny_diffusers.stable_diffusion()
    return ldmkit.load(tiny_diffusers.saved(theirs, tmp_path_factory.mktemp("scales") / "sd"))


def own_file(codec: KLCodec, path: Path) -> Path:
    """The codec in the layout that first stages are published in: no word about a scale."""
    native, found = codec.state_dict(), {}
    for name, entry in kl_compvis_keys(codec.config).items():
        for key, tensor in zip(entry.keys, entry.write(native[name]), strict=True):
            found[key] = tensor.contiguous().clone()
    save_file(found, path)
    return path


def with_codec(pipe: ldmkit.Pipeline, codec: ldmkit.Codec) -> ldmkit.Pipeline:
    return ldmkit.Pipeline.of(
        codec=codec, denoiser=pipe.denoiser, process=pipe.process,
        conditioners=pipe.conditioners, wiring=pipe.wiring, defaults=pipe.defaults,
    )  # fmt: skip


@pytest.fixture
def wide(pipe: ldmkit.Pipeline, tmp_path: Path) -> tuple[ldmkit.Pipeline, Path]:
    """A loaded pipeline whose codec (scale 0.18215) also has a file of its own."""
    torch.manual_seed(0)
    codec = KLCodec(KLConfig(**GEOMETRY, scale=0.18215)).eval().requires_grad_(False)
    pipe.denoiser.latents = None
    folder = with_codec(pipe, codec).save(tmp_path / "whole")
    return ldmkit.load(folder), own_file(codec, tmp_path / "vae.safetensors")


def test_a_scale_that_no_one_says_is_refused(wide: tuple[ldmkit.Pipeline, Path]) -> None:
    whole, file = wide
    codec = ldmkit.load_codec(file)
    assert codec.config.scale is None and not codec.standardises
    with pytest.raises(CompositionError, match=r"scale=0\.18215") as caught:
        with_codec(whole, codec)
    assert caught.value.code == "compose.unknown-scale"
    with pytest.raises(CompositionError, match="unknown-scale"):
        fit({}, ldmkit.load_codec(file), type(whole.denoiser)(whole.denoiser.config), whole.process, {}, {})


def test_a_scale_that_is_given_makes_the_same_pictures(wide: tuple[ldmkit.Pipeline, Path]) -> None:
    whole, file = wide
    again = with_codec(whole, ldmkit.load_codec(file, scale=0.18215))
    asked = {"inputs": {"text": "a"}, "steps": 2, "seeds": [1]}
    assert torch.equal(again(**asked).images, whole(**asked).images)


@pytest.mark.parametrize("changes", [{"scale": 0.13025}, {"scale": 1.0}, {"scale": 0.18215, "shift": 0.1}])
def test_another_scale_of_the_same_shapes_is_refused(
    wide: tuple[ldmkit.Pipeline, Path], changes: dict[str, float]
) -> None:
    whole, file = wide
    codec = ldmkit.load_codec(file, **changes)
    for one in (codec, tiled.TiledCodec.wrap(codec)):
        with pytest.raises(CompositionError, match=r"scale-mismatch.*0\.18215"):
            with_codec(whole, one)
    whole.denoiser.latents = None
    assert with_codec(whole, codec).codec is codec


def test_a_tiny_codec_in_the_place_of_a_large_one_is_fine(wide: tuple[ldmkit.Pipeline, Path]) -> None:
    tiny = ldmkit.get("codec", "tiny")({"width": 8, "encoder_blocks": (0, 1), "decoder_blocks": (1, 0)})
    assert with_codec(wide[0], tiny.eval()).codec is tiny


def test_per_channel_statistics_may_be_given(wide: tuple[ldmkit.Pipeline, Path]) -> None:
    codec = ldmkit.load_codec(wide[1], scale=[0.5, 1, 2, 4], shift=(0.0, 0.1, 0.2, 0.3))
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    plain = ldmkit.load_codec(wide[1])
    expected = (plain.encode(images) - torch.tensor([0, 0.1, 0.2, 0.3]).view(1, 4, 1, 1)) * torch.tensor(
        [0.5, 1, 2, 4]
    ).view(1, 4, 1, 1)
    torch.testing.assert_close(codec.encode(images), expected)


def test_shapes_of_stable_diffusion_take_its_scale_and_say_so() -> None:
    plan = plan_first_stage(_kl_f8("ldm"), "model")
    assert KLConfig.of(plan.parts["codec"].spec.config) == SD_KL.model_copy(
        update={"scale": 0.18215, "force_upcast": True}
    )
    assert plan.assumption is not None and "0.13025" in plan.assumption


def test_a_codec_without_a_scale_is_saved_and_loaded_as_such(
    wide: tuple[ldmkit.Pipeline, Path], tmp_path: Path
) -> None:
    from ldmkit.models.saving import save_part

    folder = save_part("codec", ldmkit.load_codec(wide[1]), tmp_path / "codec")
    assert not ldmkit.load_codec(folder).standardises
    assert ldmkit.load_codec(folder, scale=0.5).config.scale == 0.5


def test_diffusers_without_a_number_is_refused(tmp_path: Path) -> None:
    from ldmkit_checkpoints.diffusers.vae_config import kl_from_diffusers

    with pytest.raises(SourceError, match="scaling_factor"):
        kl_from_diffusers({"scaling_factor": None, "norm_num_groups": 8})


# float16: a codec that says `force_upcast` is held in float32, as diffusers makes it for each decode


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    theirs = tiny_diffusers.stable_diffusion()
    with torch.no_grad():  # beyond what float16 holds
        theirs.vae.decoder.conv_in.weight.mul_(5e4)
        theirs.vae.decoder.conv_in.bias.mul_(5e4)
    assert theirs.vae.config.force_upcast
    return tiny_diffusers.saved(theirs, tmp_path_factory.mktemp("upcast") / "sd")


def test_pictures_are_finite_and_those_of_a_float32_codec(folder: Path) -> None:
    pipe = ldmkit.load(folder, dtype="float16")
    assert pipe.codec.dtype == torch.float32 and pipe.denoiser.dtype == torch.float16
    out = pipe({"text": "a"}, steps=2)
    assert torch.equal(out.images, ldmkit.load_codec(folder).decode(out.latents).add(1).div(2).clamp(0, 1))


def test_every_way_to_float16_is_one(folder: Path, tmp_path: Path) -> None:
    moved = ldmkit.load(folder).to(torch.float16)
    assert moved.codec.half().dtype == torch.float32
    loaded = ldmkit.load(moved.save(tmp_path / "moved"))
    small = ldmkit.load(loaded.save(tmp_path / "small", store=torch.float16))
    for pipe in (moved, loaded, small):
        assert (pipe.codec.dtype, pipe.denoiser.dtype) == (torch.float32, torch.float16)
    assert tiled.TiledCodec.wrap(moved.codec).half().dtype == torch.float32


def test_bfloat16_and_codecs_without_the_mark_are_as_asked(folder: Path) -> None:
    assert ldmkit.load(folder, dtype="bfloat16").codec.dtype == torch.bfloat16  # as in diffusers
    assert ldmkit.load("miniworld", dtype="float16").codec.dtype == torch.float16


def test_the_mark_travels(folder: Path, tmp_path: Path) -> None:
    import diffusers
    from ldmkit_checkpoints.diffusers.export_parts import save_diffusers_codec

    for wanted in (True, False):
        codec = KLCodec(KLConfig(**GEOMETRY, force_upcast=wanted)).eval()
        assert KLConfig.of(part_spec("codec", codec).config).force_upcast is wanted
        save_diffusers_codec(codec, tmp_path / str(wanted))
        assert diffusers.AutoencoderKL.from_pretrained(tmp_path / str(wanted)).config.force_upcast is wanted
        assert ldmkit.load_codec(tmp_path / str(wanted)).config.force_upcast is wanted
