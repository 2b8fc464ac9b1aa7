"""The first stage's turns, statistics, figures and saved codec, on small real codecs."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from ldmkit_codecs.kl import KLCodec
from ldmkit_training.stages.codec.metrics import psnr, ssim
from ldmkit_training.stages.codec.section import CodecObjective, CodecSection
from ldmkit_training.stages.codec.stage import CodecStage
from ldmkit_training.stages.codec.statistics import measured
from torch import Tensor, nn

import ldmkit
from ldmkit import Batch, Draws

GEOMETRY = {"widths": [8, 16], "blocks": 1, "mid_attention": "none", "norm_groups": 4, "z_channels": 3}
ADVERSARY = {"layers": 1, "width": 8, "start": 2, "weight": 0.7}


def batch(step: int = 0, rows: int = 4, side: int = 16) -> Batch:
    """Smooth coloured noise in [-1,1]: a pure function of the step."""
    coarse = torch.randn(rows, 3, 4, 4, generator=torch.Generator().manual_seed(step))
    images = nn.functional.interpolate(coarse, size=(side, side), mode="bilinear").tanh()
    ids = tuple(f"picture {row}" for row in range(rows))
    return Batch(ids, images, None, None, [{}] * rows, (side, side), Draws(0, step, tuple(range(rows))))


def stage(kind: str = "kl", config: dict[str, Any] | None = None, **objective: Any) -> CodecStage:
    torch.manual_seed(0)
    more = {"codebook_size": 32, "legacy": False} if kind == "vq" else {}
    section = CodecSection(type=kind, config={**GEOMETRY, **more, **(config or {})})
    return CodecStage(section, CodecObjective.of(objective), Path())


def test_one_step_of_both_optimisers_equals_a_reference_written_out() -> None:
    """Same arithmetic in another order: 1e-6 after a step of Adam at 1e-3."""
    made = stage(reduction="sum", learn_logvar=True, logvar=0.2, kl_weight=1e-3, discriminator=ADVERSARY,
                 perceptual={"type": "none"})  # fmt: skip
    given = batch(2)
    codec, adversary = copy.deepcopy(made.codec), copy.deepcopy(made.turns["discriminator"].discriminator)
    for turn in made.turns.values():
        optimiser = torch.optim.Adam(turn.parameters(), lr=1e-3)
        assert turn.active(2) and (turn.active(1) == (turn is made.turns["codec"]))
        turn(given, 2).total.backward()
        optimiser.step()

    logvar = nn.Parameter(torch.tensor(0.2))
    codec_step = torch.optim.Adam([*codec.parameters(), logvar], lr=1e-3)
    adversary_step = torch.optim.Adam(adversary.parameters(), lr=1e-3)

    def through() -> tuple[Tensor, Tensor]:
        mean, spread = codec.quant_conv(codec.encoder(given.images)).split(3, dim=1)
        spread = spread.clamp(-30, 20)
        z = mean + (spread / 2).exp() * given.draws.normal("posterior", (3, 8, 8))
        kl = (mean**2 + spread.exp() - 1 - spread).sum() / 2 / 4
        return codec.decoder(codec.post_quant_conv(z)), kl

    made_images, kl = through()
    nll = (((made_images - given.images).abs() / logvar.exp() + logvar).sum()) / 4
    fooled = -adversary(made_images).mean()
    last = codec.decoder.conv_out.weight
    slopes = [torch.autograd.grad(x, last, retain_graph=True)[0].pow(2).sum().sqrt() for x in (nll, fooled)]
    weight = (slopes[0] / (slopes[1] + 1e-4)).clamp(0, 1e4).detach() * 0.7
    (nll + 1e-3 * kl + weight * fooled).backward()
    codec_step.step()
    adversary_step.zero_grad()
    fake = through()[0].detach()
    hinge = torch.relu(1 - adversary(given.images)).mean() + torch.relu(1 + adversary(fake)).mean()
    (hinge / 2).backward()
    adversary_step.step()

    got = {**made.turns["codec"].state_dict(), **made.turns["discriminator"].state_dict()}
    want = {f"codec.{k}": v for k, v in codec.state_dict().items()} | {"logvar": logvar.detach()}
    want |= {f"discriminator.{k}": v for k, v in adversary.state_dict().items()}
    assert got.keys() == want.keys()
    for key, value in want.items():
        torch.testing.assert_close(got[key], value, rtol=0, atol=1e-6, msg=key)


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_every_part_reaches_what_it_says_and_nothing_else(kind: str) -> None:
    made = stage(kind, learn_logvar=True, discriminator=ADVERSARY)
    assert made.turns.keys() == {"codec", "discriminator"}
    for turn in made.turns.values():
        groups, parts = turn.groups(), turn(batch(3), 3).parts
        assert sum(len(group) for group in groups.values()) == len(list(turn.parameters()))
        assert parts.keys() == turn.reaches().keys()
        for name, part in parts.items():
            everything = [p for t in made.turns.values() for p in t.parameters()]
            slopes = torch.autograd.grad(part, everything, retain_graph=True, allow_unused=True)
            moved = {id(p) for p, slope in zip(everything, slopes, strict=True) if slope is not None and slope.any()}
            reached = {group for group, members in groups.items() if moved & {id(p) for p in members}}
            assert reached == turn.reaches()[name], name
            assert moved <= {id(p) for group in reached for p in groups[group]}, name


def test_parts_add_up_to_the_total() -> None:
    loss = stage(discriminator=ADVERSARY).turns["codec"](batch(3), 3)
    torch.testing.assert_close(sum(loss.parts.values()), loss.total)
    assert not any(term.requires_grad for term in loss.terms.values())
    assert "adversarial" not in stage(discriminator=ADVERSARY).turns["codec"](batch(1), 1).parts


def test_the_commitment_weight_is_on_the_encoders_term_unless_legacy() -> None:
    """beta times the pull on the encoder; in the legacy form beta times the pull on the codebook."""
    pulls: dict[bool, tuple[Tensor, Tensor]] = {}
    for legacy in (False, True):
        made = stage("vq", {"legacy": legacy, "beta": 0.25}, perceptual={"type": "none"})
        part = made.turns["codec"](batch(), 0).parts["codebook"]
        pulls[legacy] = torch.autograd.grad(part, [made.codec.codebook.embedding.weight, made.codec.quant_conv.bias])
    torch.testing.assert_close(pulls[True][0], 0.25 * pulls[False][0])
    torch.testing.assert_close(0.25 * pulls[True][1], pulls[False][1])


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_a_trained_codec_is_saved_alone_and_its_latents_are_standardised(kind: str, tmp_path: Path) -> None:
    made = stage(kind)
    before = made.codec.encode(batch(1).images)
    made.finish(batch(step) for step in range(8))
    made.save(tmp_path / "codec")
    loaded = ldmkit.load_codec(tmp_path / "codec")
    assert not loaded.training and {path.name for path in (tmp_path / "codec").iterdir()} == {
        "codec.json",
        "codec.safetensors",
    }
    latents = torch.cat([loaded.encode(b.images, b.draws.normal("other", (3, 8, 8))) for b in map(batch, range(8))])
    # another draw of 2048 values than was measured: the means differ by 0.03 (one deviation), the deviations by 0.02
    assert latents.mean((0, 2, 3)).abs().max() < 0.12 and (latents.std((0, 2, 3)) - 1).abs().max() < 0.08
    torch.testing.assert_close(loaded.raw(loaded.encode(batch(1).images)), before)
    again = CodecStage(CodecSection(type=kind, config=dict(loaded.config), start="codec"), CodecObjective(), tmp_path)
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in again.codec.state_dict().items())
    with pytest.raises(ldmkit.SourceError, match="codec-only"):
        ldmkit.load(tmp_path / "codec")


def test_statistics_as_one_scale_are_the_deviation_of_all_values() -> None:
    codec = KLCodec(GEOMETRY)
    found = measured(codec, [batch(1), batch(2)], "scale")
    with torch.no_grad():
        drawn = [codec.encode(b.images, b.draws.normal("statistics", (3, 8, 8))) for b in (batch(1), batch(2))]
    raw = torch.cat(drawn)
    assert found.config.shift == 0 and math.isclose(found.config.scale, 1 / float(raw.std(correction=0)), rel_tol=1e-5)
    assert found.encoder is codec.encoder and codec.config.scale == 1


def test_statistics_are_refused_where_they_have_no_place() -> None:
    with pytest.raises(ldmkit.CompositionError, match="no-statistics"):
        measured(ldmkit.get("codec", "identity")(), [batch()])
    with pytest.raises(ldmkit.InputError, match="no-pictures"):
        measured(KLCodec(GEOMETRY), [])
    flat = KLCodec(GEOMETRY)
    with torch.no_grad():
        flat.quant_conv.weight.zero_()
        flat.quant_conv.bias.copy_(torch.tensor([1.0, 2, 3, -30, -30, -30]))
    with pytest.raises(ldmkit.InputError, match="dead-latent"):
        measured(flat, [batch()])


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_training_on_one_batch_improves_the_figures(kind: str) -> None:
    made = stage(kind, perceptual={"type": "structure"})
    one = batch(1)
    before = made.validate([one])
    optimiser = torch.optim.AdamW(made.turns["codec"].parameters(), lr=4e-3)
    for step in range(60):
        loss = made.turns["codec"](one, step)
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
    after = made.validate([one])
    assert after["psnr"] > before["psnr"] + 4 and after["ssim"] > before["ssim"] + 0.1
    assert after["perceptual"] < before["perceptual"]
    if kind == "vq":
        assert 0 < after["usage"] <= 1 and 1 <= after["perplexity"] <= 32 * after["usage"] + 1e-9
    else:
        assert after["kl"] > 0


def test_codebook_figures_are_of_all_batches_together() -> None:
    """Two batches of one flat colour each use an entry each: together two of them, evenly."""
    made = stage("vq")

    def flat(value: float) -> Batch:
        return Batch(("a",), torch.full((1, 3, 16, 16), value), None, None, [{}], (16, 16), Draws(0, 0, (0,)))

    with torch.no_grad():
        made.codec.quant_conv.weight.zero_()
        made.codec.quant_conv.bias.zero_()
    alone = made.validate([flat(-1.0), flat(1.0)])
    assert alone["usage"] == 1 / 32 and math.isclose(alone["perplexity"], 1)


def test_psnr_and_ssim() -> None:
    """Against the definitions, written out for one window; equal pictures are at the top of both scales."""
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(2, 3, 11, 11, generator=generator) * 2 - 1
    b = (a + 0.1 * torch.randn(a.shape, generator=generator)).clamp(-1, 1)
    assert torch.allclose(psnr(a, b), -10 * ((a - b).double().square().mean((1, 2, 3)) / 4).log10())
    assert torch.all(psnr(a, a) == 120) and torch.allclose(ssim(a, a), torch.ones(2).double())
    assert torch.equal(psnr(a * 3, b), psnr((a * 3).clamp(-1, 1), b))
    weight = torch.tensor([math.exp(-((i - 5) ** 2) / 4.5) for i in range(11)]).double()
    weight = weight[:, None] * weight / weight.sum() ** 2
    x, y = a[0].double(), b[0].double()
    mx, my = (x * weight).sum((1, 2)), (y * weight).sum((1, 2))
    vx, vy = (x * x * weight).sum((1, 2)) - mx**2, (y * y * weight).sum((1, 2)) - my**2
    both = (x * y * weight).sum((1, 2)) - mx * my
    want = (2 * mx * my + 4e-4) * (2 * both + 3.6e-3) / ((mx**2 + my**2 + 4e-4) * (vx + vy + 3.6e-3))
    torch.testing.assert_close(ssim(a, b)[0], want.mean())


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_too_small_pictures_for_the_discriminator_are_refused(norm: str) -> None:
    made = stage(discriminator={**ADVERSARY, "layers": 3, "norm": norm})
    with pytest.raises(ldmkit.InputError, match="discriminator-size"):
        made.turns["discriminator"](batch(3), 3)
    assert made.turns["discriminator"](batch(3, side=24), 3).total.isfinite()


def test_without_batch_norm_a_batch_in_two_parts_gives_the_same_loss() -> None:
    made = stage(discriminator=ADVERSARY)
    whole, turn = batch(3), made.turns["discriminator"]
    halves = [
        Batch(whole.ids[i : i + 2], whole.images[i : i + 2], None, None, [{}] * 2, (16, 16), Draws(0, 3, (i, i + 1)))
        for i in (0, 2)
    ]
    torch.testing.assert_close(turn(whole, 3).total, (turn(halves[0], 3).total + turn(halves[1], 3).total) / 2)


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_a_decoder_trained_alone_leaves_the_latents_as_they_are(kind: str, tmp_path: Path) -> None:
    first = stage(kind)
    first.finish([batch(1)])
    first.save(tmp_path / "first")
    objective = CodecObjective.of({"statistics": "none", "discriminator": ADVERSARY})
    made = CodecStage(CodecSection(start="first", train="decoder"), objective, tmp_path)
    turn = made.turns["codec"]
    assert set(turn.groups()) == {"decoder"} and all(row == {"decoder"} for row in turn.reaches().values())
    assert turn(batch(3), 3).parts.keys() == turn.reaches().keys()
    optimiser = torch.optim.AdamW([p for p in turn.parameters() if p.requires_grad], lr=1e-2)
    turn(batch(3), 3).total.backward()
    optimiser.step()
    made.save(tmp_path / "second")
    one, other = (ldmkit.load_codec(tmp_path / name) for name in ("first", "second"))
    latents = one.encode(batch(5).images)
    assert torch.equal(other.encode(batch(5).images), latents)
    assert not torch.equal(other.decode(latents), one.decode(latents))
    with pytest.raises(ldmkit.SpecError, match="fixed-latents"):
        CodecStage(CodecSection(start="first", train="decoder"), CodecObjective(), tmp_path)
    with pytest.raises(ldmkit.WeightsError, match=r"model\.start"):
        CodecStage(CodecSection(type=kind, config={**GEOMETRY, "blocks": 2}, start="first"), CodecObjective(), tmp_path)


def test_codecs_that_cannot_be_trained_say_so() -> None:
    with pytest.raises(ldmkit.CompositionError, match="not-trainable"):
        CodecStage(CodecSection(type="identity"), CodecObjective(), Path())


def test_a_folder_that_is_no_codec_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(ldmkit.InputError, match="folder-taken"):
        stage().save(tmp_path / "notes")
    stage().save(tmp_path / "codec")
    stage().save(tmp_path / "codec")
    assert isinstance(ldmkit.load_codec(tmp_path / "codec"), KLCodec)
