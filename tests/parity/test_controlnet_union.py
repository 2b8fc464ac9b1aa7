"""ControlNet Union against diffusers' ControlNetUnionModel with the same random weights in float64.

Tolerance 1e-10 of the largest value: the same function, in another order of sums. The oracle lets the pictures of a
batch attend to one another, so it is run picture by picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ldmkit_adapters.union import TYPES
from test_controlnet_variants import SD, XL
from test_unet_diffusers import far, normal, seeded

import ldmkit
from ldmkit import Context, Plane, Tokens, Vector
from ldmkit.models.weights import write_safetensors

OWN: dict[str, Any] = {"num_trans_channel": 64, "num_proj_channel": 64, "num_trans_head": 4}
MODELS: dict[str, dict[str, Any]] = {
    "xl": {**XL, **OWN},
    "promax": {**XL, **OWN, "num_control_type": 8},
    "ten types": {**XL, **OWN, "num_control_type": 10, "num_trans_layer": 2},
    "sd1": {**SD, **OWN, "addition_time_embed_dim": 8, "num_trans_head": 1, "num_trans_layer": 0},
    "pooled": {**XL, **OWN, "global_pool_conditions": True},
}


def names(count: int) -> list[str]:
    return [TYPES[i] if i < len(TYPES) else f"type-{i}" for i in range(count)]


def residuals(oracle: Any, given: dict[int, Any], row: int, size: tuple[int, int], **options: Any) -> list[Any]:
    """The oracle's residuals of one picture, of which the hints are given by type."""
    x, tokens = normal(2, 4, *size)[row : row + 1], normal(2, 5, 24, seed=3)[row : row + 1]
    t = torch.tensor([3.0, 871.0], dtype=torch.float64)[row : row + 1]
    more: dict[str, Any] = {}
    if oracle.config.addition_embed_type:
        pooled, sizes = normal(2, 10, seed=4), torch.arange(12.0, dtype=torch.float64).view(2, 6) * 50
        more["added_cond_kwargs"] = {"text_embeds": pooled[row : row + 1], "time_ids": sizes[row : row + 1]}
    kinds = torch.zeros(1, oracle.config.num_control_type, dtype=torch.float64)
    kinds[0, list(given)] = 1
    hints = [hint[row : row + 1] for hint in given.values()]
    with torch.no_grad():
        down, mid = oracle(x, t, tokens, hints, kinds, list(given), return_dict=False, **options, **more)
    return [*down, mid]


def ours(oracle: Any, control: Any, hints: dict[str, Any], present: dict[str, Any], size: tuple[int, int]) -> list[Any]:
    signals: dict[str, Any] = {"context": Tokens(normal(2, 5, 24, seed=3))}
    signals |= {f"c.{name}": Plane(hint) for name, hint in hints.items()}
    if oracle.config.addition_embed_type:
        pooled, sizes = normal(2, 10, seed=4), torch.arange(12.0, dtype=torch.float64).view(2, 6) * 50
        signals["vector"] = Vector(torch.cat([pooled, oracle.add_time_proj(sizes.flatten()).view(2, -1).double()], 1))
    context = Context(signals, {f"c.{name}": rows for name, rows in present.items()})
    with torch.no_grad():
        state = control.prepare(context, "c")
        made = control(normal(2, 4, *size), torch.tensor([3.0, 871.0], dtype=torch.float64), state)
    return list(made)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [(8, 12), (7, 9)])
def test_one_and_several(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    """In each row other types: one with its scale, several with their own."""
    oracle: Any = seeded("ControlNetUnionModel", MODELS[name])
    oracle.save_pretrained(tmp_path)
    control: Any = ldmkit.load_adapter(tmp_path)
    known = names(oracle.config.num_control_type)
    assert list(control.slots) == known
    picked = [1, 3, len(known) - 1]
    shape = (2, 3, 8 * size[0], 8 * size[1])
    hints = {i: torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in picked}
    mine = control.tuned(scale=0.8, scales={known[3]: 0.5})
    for rows in ([picked[:1], picked[1:2]], [picked[:1], picked], [picked[1:], picked[:2]]):
        present = {known[i]: torch.tensor([i in row for row in rows]) for i in picked}
        got = ours(oracle, mine, {known[i]: hints[i] for i in picked}, present, size)
        for row, given in enumerate(rows):
            scales = [0.4 if i == 3 else 0.8 for i in given]
            want = residuals(oracle, {i: hints[i] for i in given}, row, size, conditioning_scale=scales)
            assert all(far(m[row : row + 1], w) <= 1e-10 for m, w in zip(got, want, strict=True))


def test_guess_mode_and_none(tmp_path: Path) -> None:
    oracle: Any = seeded("ControlNetUnionModel", MODELS["xl"])
    oracle.save_pretrained(tmp_path)
    control: Any = ldmkit.load_adapter(tmp_path)
    hint = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    guess = control.tuned(guess=True, guess_weights="logspace")
    assert guess.drops("canny")
    got = ours(oracle, guess, {"canny": hint}, {"canny": torch.tensor([False, True])}, (8, 12))
    want = residuals(oracle, {3: hint}, 1, (8, 12), guess_mode=True)
    assert all(far(m[1:], w) <= 1e-10 and not m[0].any() for m, w in zip(got, want, strict=True))
    assert control.prepare(Context({}), "c") is None
    assert control.tuned(scales={"canny": 0}).prepare(Context({"c.canny": Plane(hint)}), "c") is None


@pytest.mark.parametrize("name", [name for name in MODELS if name != "pooled"])
def test_keys_alone(name: str, tmp_path: Path) -> None:
    oracle: Any = seeded("ControlNetUnionModel", MODELS[name])
    oracle.save_pretrained(tmp_path / "folder")
    write_safetensors(tmp_path / "union.safetensors", oracle.state_dict())
    want, got = ldmkit.load_adapter(tmp_path / "folder"), ldmkit.load_adapter(tmp_path / "union.safetensors")
    assert got.slots == want.slots and got.state_dict().keys() == want.state_dict().keys()
    assert all(torch.equal(tensor, want.state_dict()[key]) for key, tensor in got.state_dict().items())
    hints = {"canny": torch.rand(2, 3, 64, 96, dtype=torch.float64)}
    for mine, other in zip(*(ours(oracle, one, hints, {}, (8, 12)) for one in (got, want)), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_trans_channel", 32),
        ("num_proj_channel", 32),
        ("num_control_type", "6"),
        ("controlnet_conditioning_channel_order", "bgr"),
        ("addition_time_embed_dim", None),
    ],
)
def test_fields_that_diffusers_cannot_run(field: str, value: Any, tmp_path: Path) -> None:
    from ldmkit_checkpoints.diffusers.control.union import union_component

    with pytest.raises(ldmkit.SourceError, match=field):
        union_component({"_class_name": "ControlNetUnionModel", **MODELS["xl"], field: value}, {}, "config.json")
