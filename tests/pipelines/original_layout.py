"""Keys and shapes of published checkpoints, listed from the configs by the rules of the original modules.

Nothing of ldmkit is used: what the package reads is compared with what is listed here. A list is a mapping from key to
shape; `filled` makes random tensors of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
Params = Mapping[str, Any]

BERT_INNER = 512
"""8 heads of 64, whatever the width."""


def both(name: str, weight: tuple[int, ...]) -> Shapes:
    return {f"{name}.weight": weight, f"{name}.bias": (weight[0],)}


def conv(name: str, inputs: int, outputs: int, size: int = 3) -> Shapes:
    return both(name, (outputs, inputs, size, size))


def linear(name: str, inputs: int, outputs: int) -> Shapes:
    return both(name, (outputs, inputs))


def norm(name: str, width: int) -> Shapes:
    return both(name, (width,))


def under(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + key: shape for key, shape in shapes.items()}


class UNetKeys:
    """UNetModel of openaimodel.py; with `control` the ControlNet, which is its first half and zero convolutions."""

    def __init__(self, params: Params, control: bool = False) -> None:
        self.p, self.control = params, control
        self.base = int(params["model_channels"])
        self.mult = list(params["channel_mult"])
        self.attended = set(params["attention_resolutions"])
        depth = params.get("transformer_depth", 1)
        self.depth = list(depth) if isinstance(depth, (list, tuple)) else [depth] * len(self.mult)
        self.found: Shapes = {}

    def shapes(self) -> Shapes:
        base, wide = self.base, 4 * self.base
        self.add(linear("time_embed.0", base, wide), linear("time_embed.2", wide, wide))
        if self.p.get("num_classes") == "sequential":
            self.add(linear("label_emb.0.0", self.p["adm_in_channels"], wide), linear("label_emb.0.2", wide, wide))
        widths = self._down()
        middle = widths[-1]
        self.res("middle_block.0", middle, middle)
        self.attention("middle_block.1", middle, self.depth[-1])
        self.res("middle_block.2", middle, middle)
        if self.control:
            self.add(conv("middle_block_out.0", middle, middle, 1))
            self._hint()
        else:
            self._up(widths)
            self.add(norm("out.0", base), conv("out.2", base, self.p["out_channels"]))
        return self.found

    def add(self, *parts: Shapes) -> None:
        for part in parts:
            assert not self.found.keys() & part.keys()
            self.found.update(part)

    def res(self, name: str, inputs: int, outputs: int) -> None:
        emb = 2 * outputs if self.p.get("use_scale_shift_norm") else outputs
        self.add(norm(f"{name}.in_layers.0", inputs), conv(f"{name}.in_layers.2", inputs, outputs))
        self.add(linear(f"{name}.emb_layers.1", 4 * self.base, emb))
        self.add(norm(f"{name}.out_layers.0", outputs), conv(f"{name}.out_layers.3", outputs, outputs))
        if inputs != outputs:
            self.add(conv(f"{name}.skip_connection", inputs, outputs, 1))

    def attention(self, name: str, width: int, depth: int) -> None:
        self.add(norm(f"{name}.norm", width))
        if not self.p.get("use_spatial_transformer") and self.p.get("context_dim") is None:
            self.add(both(f"{name}.qkv", (3 * width, width, 1)), both(f"{name}.proj_out", (width, width, 1)))
            return
        flat = bool(self.p.get("use_linear_in_transformer"))
        for part in ("proj_in", "proj_out"):
            self.add(linear(f"{name}.{part}", width, width) if flat else conv(f"{name}.{part}", width, width, 1))
        for i in range(depth):
            self.block(f"{name}.transformer_blocks.{i}", width)

    def block(self, name: str, width: int) -> None:
        for attn, source in (("attn1", width), ("attn2", self.p["context_dim"])):
            self.add({f"{name}.{attn}.to_q.weight": (width, width)})
            self.add({f"{name}.{attn}.{part}.weight": (width, source) for part in ("to_k", "to_v")})
            self.add(linear(f"{name}.{attn}.to_out.0", width, width))
        self.add(linear(f"{name}.ff.net.0.proj", width, 8 * width), linear(f"{name}.ff.net.2", 4 * width, width))
        for i in (1, 2, 3):
            self.add(norm(f"{name}.norm{i}", width))

    def _down(self) -> list[int]:
        width, widths, factor, index = self.base, [self.base], 1, 0
        self.add(conv("input_blocks.0.0", self.p["in_channels"], width))
        self._zero(0, width)
        for level, mult in enumerate(self.mult):
            for _ in range(self.p["num_res_blocks"]):
                index += 1
                self.res(f"input_blocks.{index}.0", width, mult * self.base)
                width = mult * self.base
                if factor in self.attended:
                    self.attention(f"input_blocks.{index}.1", width, self.depth[level])
                widths.append(width)
                self._zero(index, width)
            if level + 1 < len(self.mult):
                index, factor = index + 1, factor * 2
                if self.p.get("resblock_updown"):
                    self.res(f"input_blocks.{index}.0", width, width)
                else:
                    self.add(conv(f"input_blocks.{index}.0.op", width, width))
                widths.append(width)
                self._zero(index, width)
        return widths

    def _up(self, skips: list[int]) -> None:
        skips, width, index = list(skips), skips[-1], 0
        for level in reversed(range(len(self.mult))):
            for i in range(self.p["num_res_blocks"] + 1):
                name, layer = f"output_blocks.{index}", 1
                self.res(f"{name}.0", width + skips.pop(), self.mult[level] * self.base)
                width = self.mult[level] * self.base
                if 2**level in self.attended:
                    self.attention(f"{name}.1", width, self.depth[level])
                    layer = 2
                if level and i == self.p["num_res_blocks"]:
                    if self.p.get("resblock_updown"):
                        self.res(f"{name}.{layer}", width, width)
                    else:
                        self.add(conv(f"{name}.{layer}.conv", width, width))
                index += 1

    def _zero(self, index: int, width: int) -> None:
        if self.control:
            self.add(conv(f"zero_convs.{index}.0", width, width, 1))

    def _hint(self) -> None:
        widths = [self.p.get("hint_channels", 3), 16, 16, 32, 32, 96, 96, 256, self.base]
        for i in range(8):
            self.add(conv(f"input_hint_block.{2 * i}", widths[i], widths[i + 1]))


def first_stage(params: Params) -> Shapes:
    """AutoencoderKL or VQModel (which has `n_embed`), without the loss."""
    dd = params["ddconfig"]
    z, c, double = dd["z_channels"], params["embed_dim"], 1 + bool(dd["double_z"])
    found = under("encoder.", _encoder(dd)) | under("decoder.", _decoder(dd))
    if "n_embed" in params:
        found["quantize.embedding.weight"] = (params["n_embed"], c)
    return found | conv("quant_conv", double * z, double * c, 1) | conv("post_quant_conv", c, z, 1)


def _vae_res(name: str, inputs: int, outputs: int) -> Shapes:
    found = norm(f"{name}.norm1", inputs) | conv(f"{name}.conv1", inputs, outputs)
    found |= norm(f"{name}.norm2", outputs) | conv(f"{name}.conv2", outputs, outputs)
    return found | (conv(f"{name}.nin_shortcut", inputs, outputs, 1) if inputs != outputs else {})


def _vae_attention(name: str, width: int) -> Shapes:
    found = norm(f"{name}.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        found |= conv(f"{name}.{part}", width, width, 1)
    return found


def _vae_middle(dd: Params, width: int) -> Shapes:
    found = _vae_res("mid.block_1", width, width) | _vae_res("mid.block_2", width, width)
    return found if dd.get("attn_type") == "none" else found | _vae_attention("mid.attn_1", width)


def _encoder(dd: Params) -> Shapes:
    width, side = dd["ch"], dd["resolution"]
    found = conv("conv_in", dd["in_channels"], width)
    for level, mult in enumerate(dd["ch_mult"]):
        for i in range(dd["num_res_blocks"]):
            found |= _vae_res(f"down.{level}.block.{i}", width, mult * dd["ch"])
            width = mult * dd["ch"]
            if side in dd["attn_resolutions"]:
                found |= _vae_attention(f"down.{level}.attn.{i}", width)
        if level + 1 < len(dd["ch_mult"]):
            found |= conv(f"down.{level}.downsample.conv", width, width)
            side //= 2
    outputs = dd["z_channels"] * (1 + bool(dd["double_z"]))
    return found | _vae_middle(dd, width) | norm("norm_out", width) | conv("conv_out", width, outputs)


def _decoder(dd: Params) -> Shapes:
    levels = len(dd["ch_mult"])
    width, side = dd["ch_mult"][-1] * dd["ch"], dd["resolution"] // 2 ** (levels - 1)
    found = conv("conv_in", dd["z_channels"], width) | _vae_middle(dd, width)
    for level in reversed(range(levels)):
        for i in range(dd["num_res_blocks"] + 1):
            found |= _vae_res(f"up.{level}.block.{i}", width, dd["ch_mult"][level] * dd["ch"])
            width = dd["ch_mult"][level] * dd["ch"]
            if side in dd["attn_resolutions"]:
                found |= _vae_attention(f"up.{level}.attn.{i}", width)
        if level:
            found |= conv(f"up.{level}.upsample.conv", width, width)
            side *= 2
    return found | norm("norm_out", width) | conv("conv_out", width, dd["out_ch"])


def first_stage_loss(kl: bool, layers: int = 3) -> Shapes:
    """What first-stage files keep of their training: LPIPS over VGG16, the patch discriminator, KL's log-variance."""
    found: Shapes = {"loss.logvar": ()} if kl else {}
    lpips = "loss.perceptual_loss"
    found |= {f"{lpips}.scaling_layer.{name}": (1, 3, 1, 1) for name in ("shift", "scale")}
    slices = [(0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)]
    inputs = 3
    for i, (convs, width) in enumerate(zip(slices, (64, 128, 256, 512, 512), strict=True)):
        for index in convs:
            found |= conv(f"{lpips}.net.slice{i + 1}.{index}", inputs, width)
            inputs = width
        found[f"{lpips}.lin{i}.model.1.weight"] = (1, width, 1, 1)
    main, widths = "loss.discriminator.main", [64 * min(2**n, 8) for n in range(layers + 1)]
    found |= conv(f"{main}.0", 3, 64, 4)
    for n in range(1, layers + 1):
        found[f"{main}.{3 * n - 1}.weight"] = (widths[n], widths[n - 1], 4, 4)
        found |= norm(f"{main}.{3 * n}", widths[n])
        found |= {f"{main}.{3 * n}.{name}": (widths[n],) for name in ("running_mean", "running_var")}
        found[f"{main}.{3 * n}.num_batches_tracked"] = ()
    return found | conv(f"{main}.{3 * layers + 2}", widths[-1], 1, 4)


def bert(params: Params) -> Shapes:
    """BERTEmbedder's x-transformer."""
    d, vocab, length = params["n_embed"], params.get("vocab_size", 30522), params.get("max_seq_len", 77)
    found: Shapes = {"token_emb.weight": (vocab, d), "pos_emb.emb.weight": (length, d)}
    for i in range(params["n_layer"]):
        attn, feed = f"attn_layers.layers.{2 * i}", f"attn_layers.layers.{2 * i + 1}"
        found |= norm(f"{attn}.0", d) | norm(f"{feed}.0", d)
        found |= {f"{attn}.1.{part}.weight": (BERT_INNER, d) for part in ("to_q", "to_k", "to_v")}
        found |= linear(f"{attn}.1.to_out", BERT_INNER, d)
        found |= linear(f"{feed}.1.net.0.0", d, 4 * d) | linear(f"{feed}.1.net.2", 4 * d, d)
    return under("transformer.", found | norm("norm", d) | linear("to_logits", d, vocab))


def clip_hf(tower: Params, level: str = "text_model.", position_ids: bool = True) -> Shapes:
    """transformers' CLIPTextModel below FrozenCLIPEmbedder; `level` and `position_ids` differ between versions."""
    d = tower["width"]
    found: Shapes = {"embeddings.position_ids": (1, 77)} if position_ids else {}
    found |= {"embeddings.token_embedding.weight": (49408, d), "embeddings.position_embedding.weight": (77, d)}
    for i in range(tower["layers"]):
        name = f"encoder.layers.{i}"
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            found |= linear(f"{name}.self_attn.{part}", d, d)
        found |= norm(f"{name}.layer_norm1", d) | norm(f"{name}.layer_norm2", d)
        found |= linear(f"{name}.mlp.fc1", d, tower["mlp"]) | linear(f"{name}.mlp.fc2", tower["mlp"], d)
    return under(f"transformer.{level}", found | norm("final_layer_norm", d))


def open_clip(tower: Params) -> Shapes:
    """open_clip's text tower below FrozenOpenCLIPEmbedder."""
    d = tower["width"]
    found: Shapes = {
        "positional_embedding": (77, d),
        "text_projection": (d, tower["projection"]),
        "logit_scale": (),
        "token_embedding.weight": (49408, d),
    }
    for i in range(tower["layers"]):
        name = f"transformer.resblocks.{i}"
        found |= {f"{name}.attn.in_proj_weight": (3 * d, d), f"{name}.attn.in_proj_bias": (3 * d,)}
        found |= linear(f"{name}.attn.out_proj", d, d) | norm(f"{name}.ln_1", d) | norm(f"{name}.ln_2", d)
        found |= linear(f"{name}.mlp.c_fc", d, tower["mlp"]) | linear(f"{name}.mlp.c_proj", tower["mlp"], d)
    return under("model.", found | norm("ln_final", d))


def schedule(start: float, end: float, steps: int = 1000) -> dict[str, Tensor]:
    """The 12 buffers, computed in float64 and stored in float32; "linear" is linear in sqrt(beta)."""
    betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
    bar = (1 - betas).cumprod(0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), bar[:-1]])
    variance = betas * (1 - before) / (1 - bar)
    found = {
        "betas": betas,
        "alphas_cumprod": bar,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": bar.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - bar).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - bar).log(),
        "sqrt_recip_alphas_cumprod": (1 / bar).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / bar - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": betas * before.sqrt() / (1 - bar),
        "posterior_mean_coef2": (1 - before) * (1 - betas).sqrt() / (1 - bar),
    }
    return {key: value.float() for key, value in found.items()}


def filled(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Random weights that keep activations of order 1: norms about 1, small biases, the rest by fan-in."""
    noise = torch.Generator().manual_seed(seed)
    found = {}
    for key, shape in shapes.items():
        value = torch.randn(shape, generator=noise)
        if key.endswith("position_ids"):
            value = torch.arange(shape[-1])[None]
        elif key.endswith("num_batches_tracked"):
            value = torch.tensor(5)
        elif len(shape) < 2:
            value = (value * 0.1 + 1.0) if key.endswith("weight") else value * 0.1
        elif not key.endswith(("emb.weight", "embedding.weight", "positional_embedding")):
            value = value * (0.6 / math.prod(shape[1:]) ** 0.5)
        found[key] = value
    return found
