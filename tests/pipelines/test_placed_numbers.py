"""Placements that change numbers: dtypes of parts and 8-bit weights, by how much, and what recipes say of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_fusing import CALL, TEXT, low_rank, pipeline
from torch import nn
from typer.testing import CliRunner

import ldmkit
from ldmkit.cli.app import app
from ldmkit.errors import LdmkitError
from ldmkit.models.residence import in_use
from ldmkit.models.resting import eight_bits

RUN = CliRunner()


@pytest.mark.parametrize("when", ["always", "at-use", "streamed"])
def test_a_part_has_a_dtype_of_its_own(when: str) -> None:
    """The same as converting that part alone; what it yields has the network's dtype."""
    pipe, other = pipeline(), pipeline()
    other.conditioners["text"].to(torch.bfloat16)
    placed = pipe.placed(f"text:{when}+bfloat16")
    assert placed.conditioners["text"].dtype == torch.bfloat16 and placed.denoiser.dtype == torch.float32
    found, wanted = placed(TEXT, **CALL), other(TEXT, **CALL)
    assert torch.equal(found.images, wanted.images) and not torch.equal(found.images, pipe(TEXT, **CALL).images)
    assert found.recipes[0]["placed"] == {"conditioners.text": {"dtype": "bfloat16"}}
    assert pipe.conditioners["text"].dtype == torch.float32


def test_the_networks_adapters_have_its_dtype() -> None:
    pipe = pipeline()
    adapter = low_rank(pipe, text=False)
    one = pipe.with_adapter("lora", adapter, {}).placed("denoiser:float64")
    other = pipe.placed("denoiser:float64").with_adapter("lora", adapter, {})
    assert one.adapters["lora"].dtype == other.adapters["lora"].dtype == torch.float64
    assert adapter.dtype == torch.float32
    assert torch.equal(one(TEXT, **CALL).images, other(TEXT, **CALL).images)


def test_a_dtype_that_is_there_already_is_nothing() -> None:
    pipe = pipeline()
    placed = pipe.placed("text:float32 denoiser:at-use+float32")
    assert placed.rounded == {} and "placed" not in placed(TEXT, **CALL).recipes[0]
    assert torch.equal(placed(TEXT, **CALL).images, pipe(TEXT, **CALL).images)


def test_eight_bits_are_within_half_a_step_of_each_row() -> None:
    weight = torch.randn(7, 33, generator=torch.Generator().manual_seed(0)) * torch.logspace(-20, 20, 7)[:, None]
    weight[3] = 0
    values, scales = eight_bits(weight)
    error = (values.float() * scales - weight).abs().amax(1)
    assert values.dtype == torch.int8 and torch.equal(values.float()[3], torch.zeros(33))
    assert (error <= weight.abs().amax(1) / 254 * (1 + 1e-5)).all()  # 1e-5: float32 itself


@pytest.mark.parametrize("when", ["always", "at-use", "streamed"])
@pytest.mark.parametrize("rest", ["cpu", "disk"])
def test_eight_bit_weights_compute_as_their_widened_selves(when: str, rest: str) -> None:
    pipe, other = pipeline(), pipeline()
    with torch.no_grad():
        for part in (other.denoiser, other.conditioners["text"]):
            for module in part.modules():
                if isinstance(module, nn.Linear):
                    values, scales = eight_bits(module.weight)
                    module.weight.copy_(values.float() * scales)
    wanted = other(TEXT, **CALL).images
    spelled = ldmkit.Placement.read([f"denoiser:{when}+int8", f"text:{when}+int8"])
    placed = pipe.placed(spelled.model_copy(update={"rest": rest}))
    found = placed(TEXT, **CALL)
    assert torch.equal(found.images, wanted)
    assert not torch.equal(found.images, pipe(TEXT, **CALL).images)
    assert (found.images - pipe(TEXT, **CALL).images).abs().max() < 0.1
    held = {p.dtype for p in placed.denoiser.parameters() if p.is_meta}
    assert held == {torch.float32}
    with in_use([placed.denoiser]):
        assert when != "at-use" or not any(p.is_meta for p in placed.denoiser.parameters())


@pytest.mark.parametrize("call", [
    lambda pipe: pipe.fused(), lambda pipe: pipe.placed("low-memory"), lambda pipe: pipe.placed({}),
], ids=["fused", "placed", "unplaced"])  # fmt: skip
def test_rounded_numbers_are_not_gone_on_from(call: Any) -> None:
    pipe = pipeline()
    placed = pipe.with_adapter("lora", low_rank(pipe), {}).placed("denoiser:int8")
    with pytest.raises(LdmkitError, match=r"compose\.placed-rounded.*denoiser"):
        call(placed)


def test_recipes_are_replayed_with_their_placement() -> None:
    pipe = pipeline()
    placed = pipe.placed("denoiser:streamed+int8 text:at-use+bfloat16 codec:at-use")
    out = placed(TEXT, **{**CALL, "seeds": [1]})
    recipe = out.recipes[0]
    assert recipe["placed"] == {"denoiser": {"stored": "int8"}, "conditioners.text": {"dtype": "bfloat16"}}
    with pytest.raises(LdmkitError, match=r"other-model.*pipeline\.placed"):
        ldmkit.replay(pipe, recipe)
    again = ldmkit.replay(pipe.placed(recipe["placed"]), recipe)
    assert torch.equal(again.images, out.images) and again.recipes[0] == recipe


@pytest.mark.parametrize(("placement", "what"), [
    ("txt:at-use", r"input\.unknown-part.*'txt'.*text"),
    ("text:onuse", r"input\.placement.*'onuse'.*at-use"),
    ("low-memry", r"input\.placement.*low-memory"),
    ("text:at-use+streamed", r"input\.placement.*exclude"),
    ("text:at-use text:streamed", r"input\.placement.*twice"),
    ("codec:after-encoding", r"input\.placement.*for conditioners"),
    ("adapters:at-use", r"input\.placement.*adapter"),
    ({"text": {"wehn": "at-use"}}, r"input\.unknown-key.*wehn.*when"),
    ({"text": 3}, r"input\.not-a-mapping"),
    (7, r"input\.placement"),
    ([1], r"input\.placement"),
    ({"parts": {"text": "at-use"}, "device": "nowhere"}, r"input\.device"),
    ({"parts": {"text": "at-use"}, "rest": "tape"}, r"input\.invalid"),
])  # fmt: skip
def test_what_is_no_placement(placement: Any, what: str) -> None:
    with pytest.raises(LdmkitError, match=what):
        pipeline().placed(placement)


def test_one_set_of_weights_has_one_placement() -> None:
    with pytest.raises(LdmkitError, match=r"compose\.placement-shared.*pooled"):
        pipeline(pooled=True).placed("text:at-use")


def test_spellings_and_values_are_one() -> None:
    asked = ldmkit.Placement.read("low-memory,text:streamed+bfloat16")
    assert asked.parts["text"] == ldmkit.PartPlacement(when="streamed", dtype="bfloat16")
    assert asked.parts["codec"].when == "at-use" and ldmkit.Placement.read(asked.model_dump()) == asked
    assert pipeline().placed(asked).placement is asked


def test_the_command_line_places_and_replays(tmp_path: Path) -> None:
    args = ["sample", "miniworld", "--text", "a red house", "--steps", "1"]
    plain, placed, narrow = (tmp_path / f"{name}.png" for name in ("plain", "placed", "narrow"))
    assert RUN.invoke(app, [*args, "-o", str(plain)]).exit_code == 0
    more = ["--place", "low-memory", "--place", "denoiser:streamed"]
    done = RUN.invoke(app, [*args, *more, "-o", str(placed)])
    assert done.exit_code == 0, done.output
    assert placed.read_bytes() == plain.read_bytes()
    done = RUN.invoke(app, [*args, "--place", "text:after-encoding+bfloat16", "-o", str(narrow)])
    assert done.exit_code == 0, done.output
    assert ldmkit.read_recipe(narrow)["placed"] == {"conditioners.text": {"dtype": "bfloat16"}}
    done = RUN.invoke(app, ["replay", str(narrow)])
    assert done.exit_code == 0 and "largest difference: 0" in done.output, done.output
    assert RUN.invoke(app, [*args, "--place", "text:sometimes", "-o", str(tmp_path / "x.png")]).exit_code != 0


def test_a_cascades_stages_are_placed_one_by_one(tmp_path: Path) -> None:
    first, second = pipeline(), pipeline()
    whole = ldmkit.Cascade.of({"base": first, "up": second}, {"up": {"start": {"stage": "base"}}})
    placed = whole.with_(base=first.placed("text:at-use+bfloat16"))
    out = placed(TEXT, seeds=[1], steps=2)
    recipe = out.recipes[0]
    assert recipe["stages"]["base"]["placed"] == {"conditioners.text": {"dtype": "bfloat16"}}
    assert torch.equal(ldmkit.replay(placed, recipe).images, out.images)
    with pytest.raises(LdmkitError, match=r"other-model.*recipe\.stages\.base\.placed"):
        ldmkit.replay(whole.with_(base=first), recipe)
    with pytest.raises(LdmkitError, match=r"placed-rounded"):
        placed.save(tmp_path / "cascade")
