"""diffusers' networks with one field changed: saved by their own save_pretrained, loaded here, outputs compared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import torch
from ldmkit_checkpoints.diffusers.folder import DiffusersComponent, open_diffusers
from ldmkit_denoisers.unet import UNet
from torch import Tensor

import ldmkit
from ldmkit import Plane, Tokens, Vector
from ldmkit.contracts.step import Context
from ldmkit.models.weights import assign

Options = dict[str, Any]
LEVELS: Options = {"block_out_channels": [16, 32], "norm_num_groups": 8, "layers_per_block": 1}
BASES: dict[str, Options] = {
    "UNet2DModel": {
        **LEVELS,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    },
    "UNet2DConditionModel": {
        **LEVELS,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "attention_head_dim": 4,
        "cross_attention_dim": 24,
    },
    "joint": {
        **LEVELS,
        "down_block_types": ["ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"],
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "up_block_types": ["SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"],
        "attention_head_dim": 8,
        "cross_attention_dim": 32,
        "cross_attention_norm": "group_norm",
        "encoder_hid_dim": 24,
        "encoder_hid_dim_type": "text_proj",
        "addition_embed_type": "text",
        "addition_embed_type_num_heads": 4,
    },
    "ControlNetModel": {
        **LEVELS,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "attention_head_dim": 4,
        "cross_attention_dim": 24,
        "conditioning_embedding_out_channels": [4, 8],
    },
}
TOLERANCE = 1e-4
"""Of the largest output: float32 on both sides; 1e-6 is seen, and a field that is read wrongly shows at 1e-2."""


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def filled(model: Any) -> Any:
    """Random weights, about a unit norm each, so that no part of the network is silent."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        plain = parameter.ndim == 1
        unit = 1.0 if plain and "norm" in name and name.endswith("weight") else 0.0
        parameter.data = noise * 0.1 + unit if plain else noise / max(parameter[0].numel(), 1) ** 0.5
    return model.eval()


def edited(folder: Path, changes: Mapping[str, Any] = {}, drop: str | None = None) -> None:
    path = folder / "config.json"
    data = {key: value for key, value in json.loads(path.read_text(encoding="utf-8")).items() if key != drop}
    path.write_text(json.dumps({**data, **changes}), encoding="utf-8")


def made(name: str, folder: Path, changes: Options, drop: str | None = None) -> Any:
    """Their network of `BASES`: see `saved`."""
    return saved(class_of(name), BASES[name], folder, changes, drop)


def class_of(name: str) -> Any:
    """Their class of a base."""
    return getattr(diffusers, "UNet2DConditionModel" if name == "joint" else name)


def saved(
    cls: Any, base: Options, folder: Path, changes: Options, drop: str | None, fill: Callable[[Any], Any] = filled
) -> Any:
    """Their model, and its folder; None where they cannot make it: then the folder is the base's, config edited."""
    if drop is not None:
        written(cls, base, folder, fill)
        edited(folder, changes, drop)
        try:
            return cls.from_pretrained(folder, low_cpu_mem_usage=False).eval()
        except Exception:
            return None
    try:
        model = fill(cls(**base | changes))
        model.save_pretrained(folder)
    except Exception:
        written(cls, base, folder, filled)
        edited(folder, changes)
        return None
    return model


_written: dict[tuple[Any, ...], TemporaryDirectory[str]] = {}


def written(cls: Any, base: Options, folder: Path, fill: Callable[[Any], Any]) -> None:
    """The folder of their model of a base, which is made and filled once."""
    key = (cls, json.dumps(base, sort_keys=True), fill)
    if key not in _written:
        _written[key] = TemporaryDirectory()
        fill(cls(**base)).save_pretrained(_written[key].name)
    shutil.copytree(_written[key].name, folder, dirs_exist_ok=True)


def loaded(name: str, folder: Path) -> Any:
    """Our network of the folder."""
    if name == "ControlNetModel":
        return ldmkit.load_adapter(folder)
    source = open_diffusers(folder, None)
    assert isinstance(source, DiffusersComponent)
    net = UNet(UNet.Config.of(source.part_spec.config)).eval()
    assign(net, source.tensors("denoiser"), str(folder))
    return net


def difference(name: str, theirs: Any, ours: Any) -> float:
    """The largest difference of the outputs, relative to the largest of theirs; they may refuse to run."""
    config = dict(theirs.config)
    x, t = normal(2, config["in_channels"], 8, 12, seed=2), torch.tensor([3.0, 871.0])
    kwargs, signals = _vector(theirs, config)
    with torch.no_grad():
        if name == "UNet2DModel":
            want = [theirs(x, t, **kwargs).sample]
        else:
            width = config["cross_attention_dim"]
            width = config.get("encoder_hid_dim") or (width[0] if isinstance(width, list) else width)
            context = normal(2, 5, width, seed=3)
            signals["context"] = Tokens(context)
            if name == "ControlNetModel":
                factor = 2 ** (len(config["conditioning_embedding_out_channels"]) - 1)
                hint = normal(2, config["conditioning_channels"], 8 * factor, 12 * factor, seed=9)
                down, mid = theirs(x, t, context, hint, return_dict=False, **kwargs)
                want = [*down, mid]
                got = ours(x, t, ours.prepare(Context({**signals, "c.hint": Plane(hint)}), "c"))
                return max(map(_far, got, want))
            want = [theirs(x, t, context, **kwargs).sample]
        if ours.slots.get("plane"):
            signals["plane"] = Plane(x[:, ours.channels :])
        return _far(ours(x[:, : ours.channels], t, ours.prepare(signals)), want[0])


def _vector(theirs: Any, config: Options) -> tuple[Options, Options]:
    """What they take beside x, t and the context, and our signal of it."""
    if "image" in (config.get("addition_embed_type"), str(config.get("encoder_hid_dim_type")).removesuffix("_proj")):
        image = normal(2, config["encoder_hid_dim"], seed=6)
        return {"added_cond_kwargs": {"image_embeds": image}}, {"image": Vector(image)}
    if config.get("addition_embed_type") == "text_time":
        wide = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        pooled, sizes = normal(2, wide, seed=4), torch.arange(12.0).view(2, 6) * 50
        codes = theirs.add_time_proj(sizes.flatten()).view(2, -1)
        given = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes}}
        return given, {"vector": Vector(torch.cat([pooled, codes], 1))}
    if getattr(theirs, "class_embedding", None) is None:
        return {}, {}
    kind = config.get("class_embed_type")
    if kind in (None, "timestep"):
        labels = torch.tensor([2, 4])
        return {"class_labels": labels}, {"vector": Vector(labels[:, None].float())}
    wide = theirs.time_embedding.linear_2.out_features
    wide = wide if kind == "identity" else config["projection_class_embeddings_input_dim"]
    labels = normal(2, wide, seed=5)
    return {"class_labels": labels}, {"vector": Vector(labels)}


def _far(got: Tensor, want: Tensor) -> float:
    assert got.shape == want.shape
    return float((got - want).abs().max() / want.abs().max())
