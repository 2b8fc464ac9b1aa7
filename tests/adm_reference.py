"""guided-diffusion's networks from their published description, on a mapping of tensors: keys, shapes and forward.

Nothing of ldmkit is used. Layers are named as in the published files; sizes follow the flags of the scripts.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
GROUPS = 32


class Net(NamedTuple):
    """Sizes of a network: `factors` are the attended downsampling factors, `classes` None or a table's rows."""

    width: int
    mult: tuple[float, ...]
    blocks: int
    factors: tuple[int, ...]
    inputs: int = 3
    outputs: int = 3
    classes: int | None = None
    heads: int = 4
    head_dim: int = -1
    scale_shift: bool = True
    updown: bool = False
    new_order: bool = False


class Block(NamedTuple):
    """One entry of `input_blocks` or `output_blocks`: its residual block, attention and resampling."""

    inputs: int
    outputs: int
    attends: bool = False
    resample: str = ""
    kind: str = "res"


def down(net: Net) -> list[Block]:
    width = int(net.mult[0] * net.width)
    found = [Block(net.inputs, width, kind="conv")]
    for level, factor in enumerate(net.mult):
        for _ in range(net.blocks):
            after = int(factor * net.width)
            found.append(Block(width, after, 2**level in net.factors))
            width = after
        if level < len(net.mult) - 1:
            found.append(Block(width, width, resample="down", kind="res" if net.updown else "op"))
    return found


def up(net: Net) -> list[Block]:
    skips, found = [block.outputs for block in down(net)], []
    width = skips[-1]
    for level in reversed(range(len(net.mult))):
        for i in range(net.blocks + 1):
            after = int(net.mult[level] * net.width)
            last = i == net.blocks and level > 0
            found.append(Block(width + skips.pop(), after, 2**level in net.factors, "up" if last else ""))
            width = after
    return found


def conv(name: str, inputs: int, outputs: int, *size: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, *size), f"{name}.bias": (outputs,)}


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def res(net: Net, name: str, inputs: int, outputs: int) -> Shapes:
    found = norm(f"{name}.in_layers.0", inputs) | conv(f"{name}.in_layers.2", inputs, outputs, 3, 3)
    found |= conv(f"{name}.emb_layers.1", 4 * net.width, outputs * (2 if net.scale_shift else 1))
    found |= norm(f"{name}.out_layers.0", outputs) | conv(f"{name}.out_layers.3", outputs, outputs, 3, 3)
    return found | ({} if inputs == outputs else conv(f"{name}.skip_connection", inputs, outputs, 1, 1))


def attn(name: str, width: int) -> Shapes:
    return norm(f"{name}.norm", width) | conv(f"{name}.qkv", width, 3 * width, 1) | conv(
        f"{name}.proj_out", width, width, 1
    )  # fmt: skip


def encoder_shapes(net: Net) -> Shapes:
    found = conv("time_embed.0", net.width, 4 * net.width) | conv("time_embed.2", 4 * net.width, 4 * net.width)
    for i, block in enumerate(down(net)):
        name = f"input_blocks.{i}.0"
        if block.kind == "res":
            found |= res(net, name, block.inputs, block.outputs)
        else:
            found |= conv(f"{name}.op" if block.kind == "op" else name, block.inputs, block.outputs, 3, 3)
        found |= attn(f"input_blocks.{i}.1", block.outputs) if block.attends else {}
    wide = down(net)[-1].outputs
    for i in (0, 2):
        found |= res(net, f"middle_block.{i}", wide, wide)
    return found | attn("middle_block.1", wide)


def unet_shapes(net: Net) -> Shapes:
    found = encoder_shapes(net)
    if net.classes is not None:
        found["label_emb.weight"] = (net.classes, 4 * net.width)
    for i, block in enumerate(up(net)):
        found |= res(net, f"output_blocks.{i}.0", block.inputs, block.outputs)
        found |= attn(f"output_blocks.{i}.1", block.outputs) if block.attends else {}
        if block.resample:
            last = f"output_blocks.{i}.{1 + block.attends}"
            wide = block.outputs
            found |= res(net, last, wide, wide) if net.updown else conv(f"{last}.conv", wide, wide, 3, 3)
    first = int(net.mult[0] * net.width)
    return found | norm("out.0", first) | conv("out.2", first, net.outputs, 3, 3)


def classifier_shapes(net: Net, side: int) -> Shapes:
    wide = down(net)[-1].outputs
    found = encoder_shapes(net) | norm("out.0", wide) | conv("out.2.qkv_proj", wide, 3 * wide, 1)
    return found | conv("out.2.c_proj", wide, net.outputs, 1) | {"out.2.positional_embedding": (wide, side * side + 1)}


def filled(shapes: Shapes, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Random tensors, of a size at which activations stay of order 1."""
    draws = torch.Generator().manual_seed(seed)

    def one(shape: tuple[int, ...]) -> Tensor:
        scale = 1 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.3
        return (torch.randn(shape, generator=draws, dtype=torch.float64) * scale).to(dtype)

    return {key: one(shape) + float(key.endswith("norm.weight")) for key, shape in shapes.items()}


class Forward:
    """The networks' outputs for a mapping of tensors."""

    def __init__(self, net: Net, tensors: dict[str, Tensor]) -> None:
        self.net, self.w = net, tensors

    def unet(self, x: Tensor, t: Tensor, y: Tensor | None = None, low: Tensor | None = None) -> Tensor:
        if low is not None:
            x = torch.cat([x, F.interpolate(low, x.shape[2:], mode="bilinear")], 1)
        emb = self.embedding(t)
        emb = emb if y is None else emb + self.w["label_emb.weight"][y]
        h, skips = self.encoded(x, emb)
        for i, block in enumerate(up(self.net)):
            h = self.res(f"output_blocks.{i}.0", torch.cat([h, skips.pop()], 1), emb)
            h = self.attn(f"output_blocks.{i}.1", h) if block.attends else h
            if block.resample:
                last = f"output_blocks.{i}.{1 + block.attends}"
                h = self.res(last, h, emb, "up") if self.net.updown else self.conv(f"{last}.conv", repeat(h), padding=1)
        return self.conv("out.2", F.silu(self.norm("out.0", h)), padding=1)

    def classifier(self, x: Tensor, t: Tensor) -> Tensor:
        h = F.silu(self.norm("out.0", self.encoded(x, self.embedding(t))[0])).flatten(2)
        h = torch.cat([h.mean(2, keepdim=True), h], 2) + self.w["out.2.positional_embedding"]
        q, k, v = self.conv("out.2.qkv_proj", h).chunk(3, 1)
        return self.conv("out.2.c_proj", self.softmaxed(q, k, v, self.heads(h.shape[1])))[:, :, 0]

    def embedding(self, t: Tensor) -> Tensor:
        half = self.net.width // 2
        angles = t.float()[:, None] * torch.exp(-math.log(10000) * torch.arange(half).float() / half)
        code = torch.cat([angles.cos(), angles.sin()], 1).to(self.w["time_embed.0.weight"].dtype)
        return self.conv("time_embed.2", F.silu(self.conv("time_embed.0", code)))

    def encoded(self, h: Tensor, emb: Tensor) -> tuple[Tensor, list[Tensor]]:
        skips = []
        for i, block in enumerate(down(self.net)):
            name = f"input_blocks.{i}.0"
            if block.kind == "res":
                h = self.res(name, h, emb, block.resample)
            else:
                h = self.conv(f"{name}.op", h, 2, 1) if block.kind == "op" else self.conv(name, h, padding=1)
            h = self.attn(f"input_blocks.{i}.1", h) if block.attends else h
            skips.append(h)
        h = self.attn("middle_block.1", self.res("middle_block.0", h, emb))
        return self.res("middle_block.2", h, emb), skips

    def res(self, name: str, x: Tensor, emb: Tensor, resample: str = "") -> Tensor:
        h = F.silu(self.norm(f"{name}.in_layers.0", x))
        if resample:
            change = repeat if resample == "up" else lambda m: F.avg_pool2d(m, 2)
            h, x = change(h), change(x)
        h = self.conv(f"{name}.in_layers.2", h, padding=1)
        e = self.conv(f"{name}.emb_layers.1", F.silu(emb))[..., None, None]
        if self.net.scale_shift:
            scale, shift = e.chunk(2, 1)
            h = self.norm(f"{name}.out_layers.0", h) * (1 + scale) + shift
        else:
            h = self.norm(f"{name}.out_layers.0", h + e)
        h = self.conv(f"{name}.out_layers.3", F.silu(h), padding=1)
        skip = f"{name}.skip_connection"
        return h + (self.conv(skip, x) if f"{skip}.weight" in self.w else x)

    def attn(self, name: str, x: Tensor) -> Tensor:
        b, c = x.shape[:2]
        flat = x.flatten(2)
        heads, qkv = self.heads(c), self.conv(f"{name}.qkv", self.norm(f"{name}.norm", flat))
        if self.net.new_order:  # rows: q of all heads, k of all heads, v of all heads
            q, k, v = qkv.chunk(3, 1)
        else:  # rows: q, k, v of head 0, q, k, v of head 1 ...
            q, k, v = (part.flatten(1, 2) for part in qkv.view(b, heads, 3, c // heads, -1).unbind(2))
        return (flat + self.conv(f"{name}.proj_out", self.softmaxed(q, k, v, heads))).view_as(x)

    def softmaxed(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        q, k, v = (part.unflatten(1, (heads, -1)) for part in (q, k, v))
        weights = (torch.einsum("bhct,bhcs->bhts", q, k) / math.sqrt(q.shape[2])).softmax(-1)
        return torch.einsum("bhts,bhcs->bhct", weights, v).flatten(1, 2)

    def heads(self, width: int) -> int:
        return self.net.heads if self.net.head_dim == -1 else width // self.net.head_dim

    def norm(self, name: str, x: Tensor) -> Tensor:
        return F.group_norm(x, GROUPS, self.w[f"{name}.weight"], self.w[f"{name}.bias"], 1e-5)

    def conv(self, name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        weight, bias = self.w[f"{name}.weight"], self.w[f"{name}.bias"]
        if weight.ndim == 2:
            return F.linear(x, weight, bias)
        if weight.ndim == 3:
            return F.conv1d(x, weight, bias)
        return F.conv2d(x, weight, bias, stride, padding)


def repeat(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def saved(folder: Any, name: str, tensors: dict[str, Tensor], flags: str | None = None) -> Any:
    """A file as guided-diffusion writes it, and its yaml."""
    path = folder / f"{name}.pt"
    torch.save(tensors, path)
    if flags is not None:
        path.with_suffix(".yaml").write_text(f'guided_diffusion: "{flags}"\n')
    return path
