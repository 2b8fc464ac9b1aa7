"""What the codecs do beyond what every codec promises, and what they say of bad input and bad configs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ldmkit_codecs.identity import IdentityCodec
from ldmkit_codecs.kl import KLCodec, Posterior
from ldmkit_codecs.tiled import TiledCodec
from ldmkit_codecs.tiles import axis, best_axes
from ldmkit_codecs.tiny import Block, TinyCodec
from ldmkit_codecs.vq import VQCodec
from torch import Tensor

from ldmkit import Codec
from ldmkit.errors import CompositionError, InputError, SpecError

SMALL = {"widths": [8, 16, 16], "norm_groups": 4, "blocks": 1}
TINY = {"width": 8, "encoder_blocks": [1, 2, 1], "decoder_blocks": [1, 2, 1]}
PER_CHANNEL = {"scale": [0.5, 2.0, 1.5, -1.0], "shift": [0.1, -0.2, 0.0, 3.0]}
CODECS: dict[str, tuple[type[Codec], dict[str, Any]]] = {
    "kl": (KLCodec, {**SMALL, "scale": 0.2, "shift": 0.3}),
    "kl per channel": (KLCodec, {**SMALL, **PER_CHANNEL}),
    "kl bare": (KLCodec, {**SMALL, "quant_conv": False, "post_quant_conv": False}),
    "kl linear": (KLCodec, {**SMALL, "mid_attention": "linear", "attention_levels": [1], "level_attention": "linear"}),
    "kl unlearned resampling": (KLCodec, {**SMALL, "resample_conv": False, "embed_dim": 2, "tanh_out": True}),
    "vq": (VQCodec, {**SMALL, "codebook_size": 20, "embed_dim": 3, "scale": 0.5}),
    "vq without attention": (VQCodec, {**SMALL, "codebook_size": 20, "mid_attention": "none", "dropout": 0.1}),
    "tiny": (TinyCodec, {**TINY, "shift": 0.5}),
    "tiny pooled": (TinyCodec, {**TINY, "encoder_pool": True, "decoder_pool": True, "latent_channels": 6}),
    "identity": (IdentityCodec, {}),
    "tiled": (TiledCodec, {"inner": {"type": "tiny", "config": TINY}, "budget_mib": 0.5, "overlap": 8}),
}


def make(name: str) -> Codec:
    kind, config = CODECS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(config).eval()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("off", [(1, 0), (0, -1), (3, 2)])
def test_other_sizes_are_refused_with_the_nearest(name: str, off: tuple[int, int]) -> None:
    codec = make(name)
    if codec.multiple == 1:
        pytest.skip("every size fits")
    height, width = 4 * codec.multiple + off[0], 6 * codec.multiple + off[1]
    with pytest.raises(InputError, match=r"input\.size-multiple") as caught:
        codec.encode(draw(1, 3, height, width))
    near = [max(1, (side + codec.multiple // 2) // codec.multiple) * codec.multiple for side in (height, width)]
    assert f"height {near[0]} x width {near[1]}" in str(caught.value)


@pytest.mark.parametrize("name", CODECS)
def test_other_shapes_are_refused(name: str) -> None:
    codec = make(name)
    for wrong in (
        draw(3, 16, 16),
        draw(1, 5, 16, 16),
        draw(0, 3, 16, 16),
        torch.zeros(1, 3, 16, 16, dtype=torch.uint8),
    ):
        with pytest.raises(InputError, match="images"):
            codec.encode(wrong)
    for wrong in (draw(4, 8, 8), draw(1, 9, 8, 8), draw(1, codec.channels, 0, 8)):
        with pytest.raises(InputError, match="latents"):
            codec.decode(wrong)


def test_noise_of_another_shape_is_refused() -> None:
    for codec in (make("kl"), TiledCodec.wrap(make("kl"))):
        with pytest.raises(InputError, match="noise"):
            codec.encode(draw(1, 3, 16, 16), draw(1, 4, 8, 8))


@pytest.mark.parametrize("name", ["kl", "kl per channel"])
def test_scale_and_shift_are_inverted(name: str) -> None:
    """Against the same weights without scale and shift; float32 rounding of one multiplication and addition."""
    codec = make(name)
    assert isinstance(codec, KLCodec)
    plain = KLCodec({**codec.config.model_dump(), "scale": 1.0, "shift": 0.0})
    plain.load_state_dict(codec.state_dict())
    images = draw(1, 3, 8, 12)
    scale, shift = (torch.tensor(v).view(1, -1, 1, 1) for v in (codec.config.scale, codec.config.shift))
    with torch.no_grad():
        raw = plain.encode(images)
        torch.testing.assert_close(codec.encode(images), (raw - shift) * scale)
        torch.testing.assert_close(codec.decode((raw - shift) * scale), plain.decode(raw), atol=1e-5, rtol=1e-5)


def test_posterior_is_clamped_and_sampled() -> None:
    codec = make("kl")
    assert isinstance(codec, KLCodec) and codec.quant_conv is not None
    with torch.no_grad():
        codec.quant_conv.bias[4:6] += 1000
        codec.quant_conv.bias[6:] -= 1000
        posterior = codec.posterior(draw(1, 3, 8, 8))
    assert (posterior.logvar[:, :2] == 20).all() and (posterior.logvar[:, 2:] == -30).all()
    noise = draw(1, 4, 2, 2)
    expected = posterior.mean + (posterior.logvar / 2).exp() * noise
    torch.testing.assert_close(posterior.sample(noise), expected)


def test_kl_of_a_posterior_against_torch() -> None:
    mean, logvar = draw(3, 2, 4, 5), draw(3, 2, 4, 5, seed=1)
    normal = torch.distributions.Normal
    kl = torch.distributions.kl_divergence(normal(mean, (logvar / 2).exp()), normal(torch.zeros(()), torch.ones(())))
    torch.testing.assert_close(Posterior(mean, logvar).kl(), kl.sum((1, 2, 3)))


def test_nearest_entry_first_wins_in_any_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = make("vq")
    assert isinstance(codec, VQCodec)
    with torch.no_grad():
        codec.codebook.embedding.weight.copy_(draw(20, 3).round())
        codec.codebook.embedding.weight[7] = codec.codebook.embedding.weight[2]
    raw = draw(2, 3, 6, 5, seed=4).round()
    rows = raw.movedim(1, -1).reshape(-1, 1, 3).double()
    distances = (rows - codec.codebook.embedding.weight.detach().double()).square().sum(2)
    expected = torch.tensor([row.tolist().index(min(row.tolist())) for row in distances]).view(2, 6, 5)
    assert torch.equal(codec.codes(raw), expected) and 7 not in codec.codes(raw)
    monkeypatch.setattr("ldmkit_codecs.vq.SEARCH_ELEMENTS", 45)
    assert torch.equal(codec.codes(raw), expected)
    entries = codec.codebook_entry(expected)
    assert torch.equal(entries.movedim(1, -1), codec.codebook.embedding.weight[expected])


def test_codebook_gradients_legacy_and_fixed() -> None:
    """Legacy puts beta on the codebook's term: its gradient is a quarter, the encoder's whole. Fixed: the reverse."""
    for legacy, (to_encoder, to_codebook) in {True: (1.0, 0.25), False: (0.25, 1.0)}.items():
        codec = VQCodec({**CODECS["vq"][1], "legacy": legacy})
        raw = draw(1, 3, 4, 4).requires_grad_()
        quant, codes, loss = codec.quantise(raw)
        loss.backward()
        difference = 2 * (raw - quant).detach() / raw.numel()
        weight = codec.codebook.embedding.weight
        assert raw.grad is not None and weight.grad is not None
        torch.testing.assert_close(raw.grad, to_encoder * difference)
        pulled = torch.zeros_like(weight).index_add_(0, codes.flatten(), -difference.movedim(1, -1).reshape(-1, 3))
        torch.testing.assert_close(weight.grad, to_codebook * pulled)


def test_autocast_finds_the_nearest_entries_all_the_same() -> None:
    codec = VQCodec({**CODECS["vq"][1], "codebook_size": 512})
    raw = draw(1, 3, 16, 16) / 512  # a new codebook's entries lie this close together
    with torch.autocast("cpu", torch.bfloat16):
        found = codec.codes(raw)
    assert torch.equal(found, codec.codes(raw))


def test_the_divergence_is_summed_in_float32() -> None:
    mean, logvar = draw(2, 4, 16, 16), 0.1 * draw(2, 4, 16, 16, seed=1)
    narrow = Posterior(mean.bfloat16(), logvar.bfloat16())
    wide = Posterior(narrow.mean.float(), narrow.logvar.float())
    assert torch.equal(narrow.kl(), wide.kl())


def test_codebook_usage() -> None:
    codec = make("vq")
    assert isinstance(codec, VQCodec)
    with torch.no_grad():
        codec.codebook.embedding.weight.fill_(100.0)
        codec.codebook.embedding.weight[3] = 0.0
        metrics = codec.reconstruct(draw(1, 3, 16, 16)).metrics
    assert metrics["usage"] == pytest.approx(1 / 20) and metrics["perplexity"] == pytest.approx(1.0)


def test_one_tile_is_the_codec_itself() -> None:
    for name in ("kl", "vq", "tiny pooled", "identity"):
        codec = make(name)
        tiled = TiledCodec.wrap(codec, budget_mib=1000)
        images = draw(2, 3, 16, 24)
        noise = draw(2, codec.channels, 16 // codec.factor, 24 // codec.factor) if name == "kl" else None
        with torch.no_grad():
            assert tiled.plan(16, 24).count == tiled.plan(16, 24, "encode").count == 1
            latents = codec.encode(images, noise)
            assert torch.equal(tiled.encode(images, noise), latents)
            assert torch.equal(tiled.decode(latents), codec.decode(latents))


def test_tiles_agree_where_the_overlap_covers_what_a_layer_sees() -> None:
    """Without norms a pixel depends on its neighbourhood only: with an overlap beyond it, tiles equal the whole."""
    codec = TinyCodec({"width": 8, "encoder_blocks": [0, 1], "decoder_blocks": [1, 0]})
    tiled = TiledCodec.wrap(codec, budget_mib=2, overlap=48)
    images = draw(1, 3, 256, 320)
    assert tiled.plan(256, 320).count >= 6 and tiled.plan(256, 320, "encode").count >= 6
    with torch.no_grad():
        latents = codec.encode(images)
        torch.testing.assert_close(tiled.encode(images), latents, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(tiled.decode(latents), codec.decode(latents), atol=1e-6, rtol=1e-5)


def test_batches_are_split_to_the_budget() -> None:
    codec = make("tiny")
    per_picture = TiledCodec.wrap(codec).bytes_per_pixel() * 32 * 32 / 2**20
    tiled = TiledCodec.wrap(codec, budget_mib=per_picture * 2.5, overlap=8)
    assert tiled.plan(32, 32).together == 2 and tiled.plan(32, 32).count == 1
    latents = draw(5, 4, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(tiled.decode(latents), codec.decode(latents))


def test_tiles_cover_every_place_once() -> None:
    for length, count, unit, overlap in [(96, 3, 8, 16), (200, 4, 8, 24), (57, 5, 1, 3), (64, 2, 4, 0), (40, 1, 8, 8)]:
        cut = axis(length, count, unit, overlap)
        assert cut.starts[0] == 0 and cut.starts[-1] + cut.size == length
        assert all(start % unit == 0 for start in cut.starts)
        assert all(b - a <= cut.size - overlap for a, b in zip(cut.starts, cut.starts[1:], strict=False))
        total = torch.zeros(length, dtype=torch.float64)
        for start, weights in zip(cut.starts, cut.weights(), strict=True):
            total[start : start + cut.size] += weights
        torch.testing.assert_close(total, torch.ones_like(total))


def test_cut_keeps_the_area() -> None:
    cut = best_axes(512, 768, 256 * 256, 8, 64)
    assert cut is not None and cut[0].size * cut[1].size <= 256 * 256
    assert best_axes(512, 768, 100 * 100, 8, 64) is None
    assert best_axes(64, 64, 64 * 64, 8, 64) == (axis(64, 1, 8, 64), axis(64, 1, 8, 64))


def test_tiled_budget_too_small_and_unmeasurable() -> None:
    tiled = TiledCodec.wrap(make("kl"), budget_mib=0.01)
    with pytest.raises(InputError, match=r"input\.budget.*MiB or more"):
        tiled.decode(draw(1, 4, 64, 64))

    class Opaque(IdentityCodec):
        def decode(self, latents: Tensor) -> Tensor:
            return latents * float(latents.sum())

    with pytest.raises(CompositionError, match="bytes_per_pixel"):
        TiledCodec.wrap(Opaque({})).plan(64, 64)
    assert TiledCodec.wrap(Opaque({}), bytes_per_pixel=100).plan(64, 64).count == 1


def test_tiled_is_rebuilt_from_its_config() -> None:
    tiled = TiledCodec.wrap(make("kl per channel"), budget_mib=2, overlap=16)
    again = TiledCodec(tiled.config.model_dump(mode="json"))
    assert again.config == tiled.config and again.inner.config == tiled.inner.config
    again.load_state_dict(tiled.state_dict(), strict=True)
    latents = draw(1, 4, 20, 20)
    with torch.no_grad():
        assert torch.equal(again.decode(latents), tiled.decode(latents))


BAD_CONFIGS: dict[str, tuple[type[Codec], dict[str, Any], str]] = {
    "misspelt": (KLCodec, {"witdhs": [8]}, "widths"),
    "groups": (KLCodec, {"widths": [30]}, "32 norm groups"),
    "level": (KLCodec, {**SMALL, "attention_levels": [3]}, "level 3"),
    "scale length": (KLCodec, {**SMALL, "scale": [1.0, 2.0]}, "2 numbers"),
    "scale zero": (KLCodec, {**SMALL, "scale": 0}, "not be 0"),
    "scale nan": (KLCodec, {**SMALL, "scale": float("nan")}, "finite"),
    "embed_dim": (KLCodec, {**SMALL, "embed_dim": 3, "quant_conv": False}, "quant_conv"),
    "codebook": (VQCodec, {**SMALL, "codebook_size": 0}, "codebook_size"),
    "stages": (TinyCodec, {"encoder_blocks": [1, 1]}, "2 encoder stages"),
    "budget": (TiledCodec, {"inner": {"type": "tiny"}, "budget_mib": -1}, "budget_mib"),
    "huge": (KLCodec, {"widths": [10**9]}, "262144"),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_bad_config(case: str) -> None:
    kind, config, words = BAD_CONFIGS[case]
    with pytest.raises(SpecError) as caught:
        kind(config)
    assert words in str(caught.value)


def test_pooled_block_in_words() -> None:
    """x + conv1x1(relu(groupnorm_4(conv1x1(x -> 4c)))), then relu(x + three convolutions), in plain functions."""
    block = Block(8, pool=True)
    assert block.pool is not None
    x, f = draw(2, 8, 5, 6), torch.nn.functional
    wide = f.group_norm(f.conv2d(x, block.pool.expand.weight), 4, block.pool.norm.weight, block.pool.norm.bias)
    y = x + f.conv2d(f.relu(wide), block.pool.squeeze.weight)
    h = f.relu(f.conv2d(y, block.conv1.weight, block.conv1.bias, padding=1))
    h = f.relu(f.conv2d(h, block.conv2.weight, block.conv2.bias, padding=1))
    h = f.conv2d(h, block.conv3.weight, block.conv3.bias, padding=1)
    torch.testing.assert_close(block(x), f.relu(h + y))
