"""Our U-Net against the original's numbers: every golden model, the single blocks, and the published key lists.

Tolerance 1e-5 of the largest value (float32 against float32; the arrays' rounding noise is about 1e-6).
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ldmkit_checkpoints.compvis.unet_config import compvis_options, unet_from_compvis
from ldmkit_checkpoints.compvis.unet_keys import unet_compvis
from ldmkit_checkpoints.keys import KeyMap
from ldmkit_checkpoints.unet_keys import transformer_block
from ldmkit_denoisers.attention import SpatialTransformer, TransformerBlock
from ldmkit_denoisers.config import UNetConfig
from ldmkit_denoisers.embeddings import frequencies, sinusoidal
from ldmkit_denoisers.patched import PatchedConfig, PatchedDenoiser, patches_of
from ldmkit_denoisers.resnet import Downsample, Upsample
from ldmkit_denoisers.unet import UNet
from torch import Tensor, nn

from ldmkit import Plane, Tokens, Vector
from ldmkit.contracts.step import Context, Frame

GOLDENS = Path(__file__).parents[1] / "goldens"
sys.path.insert(0, str(GOLDENS))
import golden_weights as gw  # noqa: E402

PREFIX = "model.diffusion_model."
TOLERANCE = 1e-5
MODELS = sorted(p.name for p in GOLDENS.iterdir() if p.name.startswith(("ldm_", "sd_", "sdxl", "controlnet")))
FULL = [name for name in MODELS if (GOLDENS / name / "config_full.yaml").exists()]


def params_of(name: str, file: str) -> tuple[dict[str, Any], int]:
    """The U-Net's part of a model's yaml, and its latent channels."""
    params = yaml.safe_load((GOLDENS / name / file).read_text())["model"]["params"]
    unet = params.get("unet_config") or params["network_config"]
    return unet["params"], params.get("channels", 4)


class Golden:
    """A reduced original: manifest, arrays, checkpoint, and our network with its weights."""

    def __init__(self, name: str) -> None:
        self.man, self.arr = gw.load_model_dir(GOLDENS / name)
        self.state = gw.build_state_dict(self.man, self.arr)
        params, channels = params_of(name, "config.yaml")
        config = unet_from_compvis(params, channels)
        self.keymap = unet_compvis(config, **compvis_options(params))
        with torch.device("meta"):
            self.net = UNet(config).eval().requires_grad_(False)
        self.load(lambda key: self.state[PREFIX + key])

    def load(self, tensor: Any) -> None:
        tensors = {n: e.read(*map(tensor, e.keys)) for n, e in self.keymap.items()}
        self.net.load_state_dict(tensors, assign=True)
        self.net.requires_grad_(False)

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.arr[name])

    def signals(self, branch: str = "c") -> dict[str, Any]:
        slots: dict[str, Any] = {}
        if "context" in self.net.slots:
            name = {"c": "cond.crossattn", "uc": "cond.uc_crossattn"}[branch]
            slots["context"] = Tokens(self.tensor(name if name in self.arr else f"cond.{branch}"))
        if "plane" in self.net.slots:
            slots["plane"] = Plane(self.tensor("cond.c"))
        if "vector" in self.net.slots:
            slots["vector"] = Vector(self.tensor("cond.vector" if branch == "c" else "cond.uc_vector"))
        return slots

    def eps(self, t: str = "unet.t", branch: str = "c") -> Tensor:
        return self.net(self.tensor("unet.x"), self.tensor(t).float(), self.net.prepare(self.signals(branch)))

    def close(self, name: str, got: Tensor) -> None:
        ok, far = gw.compare(self.man, self.arr, name, got, TOLERANCE)
        assert ok, (name, far)


@cache
def golden(name: str) -> Golden:
    return Golden(name)


def fits(keymap: KeyMap, want: dict[str, tuple[int, ...]], net: nn.Module) -> None:
    """Every foreign key is used once, every native one is made, and shapes agree both ways."""
    own = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    used = [key for entry in keymap.values() for key in entry.keys]
    assert len(used) == len(set(used)) and set(used) == set(want)
    assert set(keymap) == set(own)
    for name, entry in keymap.items():
        read = entry.read(*(torch.empty(want[key], device="meta") for key in entry.keys))
        assert tuple(read.shape) == own[name]
        for key, written in zip(entry.keys, entry.write(read), strict=True):
            assert tuple(written.shape) == want[key]


@pytest.mark.parametrize("name", FULL)
def test_keys_of_the_full_size_model(name: str) -> None:
    man, _ = gw.load_model_dir(GOLDENS / name)
    params, channels = params_of(name, "config_full.yaml")
    config = unet_from_compvis(params, channels)
    with torch.device("meta"):
        net = UNet(config)
    want = {k.removeprefix(PREFIX): tuple(s) for k, s in man["full_keys"] if k.startswith(PREFIX)}
    fits(unet_compvis(config), want, net)
    assert config.channels == channels and net.channels == channels


@pytest.mark.parametrize("name", MODELS)
def test_outputs(name: str) -> None:
    model = golden(name)
    if name == "controlnet_v15":
        model.close("unet.eps_nocontrol", model.eps())
        return
    model.close("unet.eps", model.eps())
    if "unet.eps_b" in model.arr:
        model.close("unet.eps_b", model.eps("unet.t_b"))
    if "unet.eps_uc" in model.arr:
        model.close("unet.eps_uc", model.eps(branch="uc"))


@pytest.mark.parametrize("name", [n for n in MODELS if n in ("ldm_bsr_sr", "ldm_celeba256")])
def test_averaged_weights(name: str) -> None:
    model = Golden(name)
    model.load(lambda key: model.state["model_ema.diffusion_model" + key.replace(".", "")])
    model.close("unet.eps_ema", model.eps())


def test_state_dict_is_written_back_exactly() -> None:
    for name in ("ldm_celeba256", "sd_v1"):
        model = golden(name)
        own = model.net.state_dict()
        assert own.keys() == model.keymap.keys()
        for native, entry in model.keymap.items():
            for key, tensor in zip(entry.keys, entry.write(own[native]), strict=True):
                assert torch.equal(tensor, model.state[PREFIX + key]), key


def test_timestep_codes() -> None:
    model = golden("ldm_celeba256")
    model.close("unet.t_embed", sinusoidal(model.tensor("unet.t").float(), frequencies(64), 64))
    man, arr = gw.load_model_dir(GOLDENS / "schedules")
    times = torch.tensor([0, 1, 7.5, 250, 999])
    for dim in (32, 33, 320):
        got = sinusoidal(times, frequencies(dim), dim)
        assert gw.compare(man, arr, f"timestep_embedding.dim{dim}", got, TOLERANCE)[0]


def test_label_embedding_of_sdxl() -> None:
    model = golden("sdxl_base")
    context = model.net.prepare(model.signals())
    assert context.projected is not None and context.projected.vector is not None
    model.close("unet.label_emb", context.projected.vector)


# Single blocks: the `_small` inputs turn a wrong norm epsilon into a gross error.

BLOCK = {"channels": 64, "in_channels": 64, "widths": (64,), "time_dim": 128, "mid": "absent", "blocks": 1, "heads": 4}
RES = {
    "resblock_same": {},
    "resblock_wider": {},
    "resblock_up": {"resample": "up"},
    "resblock_down": {"resample": "down"},
    "resblock_film": {"scale_shift": True},
    "resblock_film_up": {"scale_shift": True, "resample": "up"},
}


class Block:
    """The arrays of `modules`, and the golden weights of one block by our key map."""

    def __init__(self, name: str, keymap: KeyMap, module: nn.Module) -> None:
        self.name, self.module = name, module.eval()
        self.man, self.arr = gw.load_model_dir(GOLDENS / "modules")
        want = {key: tuple(shape) for key, shape in self.man["key_lists"][name]}
        assert {key for entry in keymap.values() for key in entry.keys} == set(want)
        made = {n: e.read(*(gw.golden_tensor(f"{name}.{k}", want[k]) for k in e.keys)) for n, e in keymap.items()}
        module.load_state_dict(made)

    def check(self, call: Any) -> None:
        for suffix in ("", "_small"):
            inputs = [torch.from_numpy(self.arr[f"{self.name}.in0{suffix}"])]
            if f"{self.name}.in1" in self.arr:
                inputs.append(torch.from_numpy(self.arr[f"{self.name}.in1"]))
            with torch.no_grad():
                got = call(*inputs)
            ok, far = gw.compare(self.man, self.arr, f"{self.name}.out{suffix}", got, TOLERANCE)
            assert ok, (self.name, suffix, far)


def below(keymap: KeyMap, native: str, foreign: str) -> KeyMap:
    """The part of a key map under two prefixes."""
    from ldmkit_checkpoints.keys import Conversion

    return {
        name.removeprefix(native): Conversion(tuple(k.removeprefix(foreign) for k in e.keys), e.read, e.write)
        for name, e in keymap.items()
        if name.startswith(native)
    }


@pytest.mark.parametrize("name", RES)
def test_residual_block(name: str) -> None:
    from ldmkit_denoisers.resnet import ResBlock

    outputs = 96 if name == "resblock_wider" else 64
    options: Any = RES[name]
    config = UNetConfig.of({**BLOCK, "widths": (64, outputs), "scale_shift": options.get("scale_shift", False)})
    keymap = below(unet_compvis(config), "down.1.res.0.", "input_blocks.3.0.")
    block = Block(name, keymap, ResBlock(64, outputs, 128, **options))
    block.check(lambda x, emb: block.module(x, torch.nn.functional.silu(emb)))


@pytest.mark.parametrize("name", ["attnblock_legacy_h4", "attnblock_legacy_hc32", "attnblock_new_h4"])
def test_attention_block(name: str) -> None:
    heads = {"heads": None, "head_dim": 32} if name.endswith("hc32") else {"heads": 4}
    config = UNetConfig.of({**BLOCK, "attention": ("self",), **heads})
    with torch.device("cpu"):
        net = UNet(config)
    keymap = below(unet_compvis(config, new_attention_order="new" in name), "down.0.attn.0.", "input_blocks.1.1.")
    block = Block(name, keymap, net.down[0].attn[0])
    block.check(lambda x: block.module(x, Frame(x, x, Context({}))))


def test_spatial_transformer() -> None:
    config = UNetConfig.of({**BLOCK, "attention": ("cross",), "context_dim": 48, "depth": 2})
    keymap = below(unet_compvis(config), "down.0.attn.0.", "input_blocks.1.1.")
    block = Block("spatial_transformer", keymap, SpatialTransformer(64, 4, depth=2, context=48))

    def call(x: Tensor, tokens: Tensor) -> Tensor:
        frame = Frame(x, x, Context({}))
        kv = tuple(b.cross_attn.keys_values(tokens, frame) for b in block.module.blocks)
        return block.module(x, frame, kv, None)

    block.check(call)


def test_transformer_block() -> None:
    block = Block("transformer_block", transformer_block(), TransformerBlock(64, 4, 48))

    def call(x: Tensor, tokens: Tensor) -> Tensor:
        frame = Frame(x, x, Context({}))
        return block.module(x, frame, (block.module.cross_attn.keys_values(tokens, frame),), None)

    block.check(call)


def test_gated_feed_forward_and_cross_attention() -> None:
    whole = TransformerBlock(64, 4, 48)
    frame = Frame(torch.zeros(1), torch.zeros(1), Context({}))
    ff = Block("geglu_ff", below(transformer_block(), "ff.", "ff."), whole.ff)
    ff.check(lambda x: whole.ff(x, frame))
    cross = Block("cross_attention", below(transformer_block(), "cross_attn.", "attn2."), whole.cross_attn)
    cross.check(lambda x, tokens: whole.cross_attn(x, frame, whole.cross_attn.keys_values(tokens, frame)))


def test_resampling() -> None:
    config = UNetConfig.of({**BLOCK, "channels": 32, "in_channels": 32, "widths": (32, 32)})
    keymap = unet_compvis(config)
    emb = torch.zeros(1)
    down = Block("unet_downsample", below(keymap, "down.0.resample.", "input_blocks.2.0."), Downsample(32))
    down.check(lambda x: down.module(x, emb))
    up = Block("unet_upsample", below(keymap, "up.1.resample.", "output_blocks.1.1."), Upsample(32))
    up.check(lambda x: up.module(x, emb))


# Patches, as the original samples large pictures.


def test_patch_weights_of_the_original() -> None:
    model = golden("ldm_bsr_sr")
    for tie, suffix in ((False, ""), (True, "_tie")):
        config = PatchedConfig.of({"inner": {"type": "unet"}, "kernel": 16, "stride": 8, "tie_breaker": tie})
        patches = patches_of(config, (24, 32), torch.device("cpu"))
        assert len(patches.corners) == 6
        model.close(f"split.weighting{suffix}", patches.weights.permute(1, 2, 0)[None, None])
        model.close(f"split.normalization{suffix}", patches.total[None, None])


def test_patchwise_network_of_the_original() -> None:
    model = golden("ldm_bsr_sr")
    patched = PatchedDenoiser.wrap(model.net, kernel=16, stride=8)
    context = patched.prepare({"plane": Plane(model.tensor("split.cond"))})
    model.close("split.eps", patched(model.tensor("split.x"), torch.tensor([640.0]), context))
