"""ControlNet against the original's numbers and against diffusers' ControlNetModel."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import yaml
from ldmkit_adapters.controlnet import ControlNet
from ldmkit_checkpoints.compvis.controlnet import controlnet_compvis, controlnet_from_compvis
from ldmkit_checkpoints.compvis.unet_config import unet_from_compvis
from ldmkit_checkpoints.compvis.unet_keys import unet_compvis
from ldmkit_checkpoints.diffusers.controlnet import (
    controlnet_diffusers,
    controlnet_from_diffusers,
    controlnet_to_diffusers,
)
from ldmkit_denoisers.unet import UNet
from torch import Tensor, nn

from ldmkit import Plane, Run, Tokens, Vector, attached
from ldmkit.contracts.step import Context
from ldmkit.errors import CompositionError, InputError

GOLDENS = Path(__file__).parents[1] / "goldens"
sys.path.insert(0, str(GOLDENS))
import golden_weights as gw  # noqa: E402

SD_SHARED = "model.diffusion_model."
TOLERANCE = 1e-5  # float32 against the original's float32; the rounding noise of these arrays is about 1e-6


class Original:
    """The reduced original: our network and ControlNet with its weights, and its arrays."""

    def __init__(self) -> None:
        self.man, self.arr = gw.load_model_dir(GOLDENS / "controlnet_v15")
        params = yaml.safe_load((GOLDENS / "controlnet_v15" / "config.yaml").read_text())["model"]["params"]
        state = gw.build_state_dict(self.man, self.arr)
        unet = unet_from_compvis(params["unet_config"]["params"], params["channels"])
        self.unet = read(UNet(unet), unet_compvis(unet), state, SD_SHARED)
        config = controlnet_from_compvis(params["control_stage_config"]["params"])
        self.control = read(ControlNet(config), controlnet_compvis(config), state, "control_model.")
        self.x, self.t = self.tensor("unet.x"), self.tensor("unet.t").float()

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.arr[name])

    def signals(self, **hints: Tensor) -> dict[str, Any]:
        planes = {f"{name}.hint": Plane(hint) for name, hint in hints.items()}
        return {"context": Tokens(self.tensor("cond.c")), **planes}

    def eps(self, controls: dict[str, ControlNet], context: Context, sigma: float | None = None) -> Tensor:
        for name, control in controls.items():
            context.adapters[name] = control.prepare(context, name)
        with torch.no_grad():
            return self.unet(self.x, self.t, context, sigma)

    def controlled(self, control: ControlNet, name: str = "canny") -> Tensor:
        context = self.unet.prepare(self.signals(**{name: self.tensor("hint").float()}))
        with attached(self.unet.ports, control.taps(name)):
            return self.eps({name: control}, context)


def read(module: Any, keymap: Any, state: dict[str, Tensor], prefix: str = "") -> Any:
    """Strictly: every key under the prefix is used, once."""
    used = [prefix + key for entry in keymap.values() for key in entry.keys]
    assert sorted(used) == sorted(key for key in state if key.startswith(prefix))
    module.load_state_dict({n: e.read(*(state[prefix + k] for k in e.keys)) for n, e in keymap.items()})
    return module.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def original() -> Original:
    return Original()


def close(original: Original, name: str, got: Tensor) -> None:
    ok, far = gw.compare(original.man, original.arr, name, got, TOLERANCE)
    assert ok, (name, far)


def test_keys_of_the_published_file() -> None:
    man, _ = gw.load_model_dir(GOLDENS / "controlnet_v15")
    params = yaml.safe_load((GOLDENS / "controlnet_v15" / "config_full.yaml").read_text())["model"]["params"]
    config = controlnet_from_compvis(params["control_stage_config"]["params"])
    with torch.device("meta"):
        control = ControlNet(config)
    want = {k.removeprefix("control_model."): tuple(s) for k, s in man["full_keys"] if k.startswith("control_model.")}
    keymap = controlnet_compvis(config)
    own = control.state_dict()
    assert len(want) == 340 and {k for e in keymap.values() for k in e.keys} == set(want)
    assert set(keymap) == set(own)
    for name, entry in keymap.items():
        assert entry.read(*(torch.empty(want[k], device="meta") for k in entry.keys)).shape == own[name].shape


def test_residuals(original: Original) -> None:
    context = original.unet.prepare(original.signals(canny=original.tensor("hint").float()))
    state = original.control.prepare(context, "canny")
    residuals = original.control(original.x, original.t, state)
    assert len(residuals) == 13
    for i, residual in enumerate(residuals):
        close(original, f"control.{i}", residual)


@pytest.mark.parametrize(
    "name,options",
    [("unet.eps", {}), ("unet.eps_only_mid", {"only_mid": True}), ("unet.eps_guess", {"guess": True})],
)
def test_controlled_network(original: Original, name: str, options: dict[str, Any]) -> None:
    close(original, name, original.controlled(original.control.tuned(**options)))


def test_without_a_hint_it_stays_out(original: Original) -> None:
    context = original.unet.prepare(original.signals())
    with attached(original.unet.ports, original.control.taps("canny")):
        got = original.eps({"canny": original.control}, context)
    close(original, "unet.eps_nocontrol", got)
    with torch.no_grad():
        assert torch.equal(got, original.unet(original.x, original.t, context))


def test_a_new_one_is_the_identity_bit_for_bit(original: Original) -> None:
    fresh = ControlNet.from_denoiser(original.unet)
    with torch.no_grad():
        plain = original.unet(original.x, original.t, original.unet.prepare(original.signals()))
        assert torch.equal(original.controlled(fresh), plain)
    shared = original.unet.state_dict()
    own = {k: v for k, v in fresh.state_dict().items() if not k.startswith(("hint.", "zero"))}
    assert own and all(torch.equal(shared[k], v) for k, v in own.items())


def test_several_add_up(original: Original) -> None:
    hint = original.tensor("hint").float()
    first, second = original.control.tuned(scale=0.25), original.control.tuned(scale=0.75)
    context = original.unet.prepare(original.signals(a=hint, b=hint))
    taps_a, taps_b = first.taps("a"), second.taps("b")
    with attached(original.unet.ports, taps_a), attached(original.unet.ports, taps_b):
        got = original.eps({"a": first, "b": second}, context)
    close(original, "unet.eps", got)


@pytest.mark.parametrize("start,end,acting", [(0.0, 1.0, [0, 1, 2, 3]), (0.5, 1.0, [2, 3]), (0.0, 0.5, [0, 1])])
def test_start_and_end_are_fractions_of_the_run(
    original: Original, start: float, end: float, acting: list[int]
) -> None:
    sigmas = (8.0, 4.0, 2.0, 1.0, 0.0)
    control = original.control.tuned(start=start, end=end)
    context = original.unet.prepare(original.signals(canny=original.tensor("hint").float()))
    context.run = Run(sigmas, (16, 24))
    state = control.prepare(context, "canny")
    assert [i for i, sigma in enumerate(sigmas[:-1]) if control.acts(state, sigma)] == acting


def test_guess_mode_leaves_dropped_rows_alone(original: Original) -> None:
    control = original.control.tuned(guess=True)
    context = original.unet.prepare(original.signals(canny=original.tensor("hint").float()))
    context.present = {"canny.hint": torch.tensor([True, False])}
    with attached(original.unet.ports, control.taps("canny")):
        got = original.eps({"canny": control}, context)
        with torch.no_grad():
            plain = original.unet(original.x, original.t, original.unet.prepare(original.signals()))
    assert torch.equal(got[1], plain[1])
    want = original.tensor("unet.eps_guess")
    assert float((got[0] - want[0]).abs().max()) <= TOLERANCE * float(want.abs().max())


def test_hint_of_another_size_is_refused(original: Original) -> None:
    control = original.control
    context = original.unet.prepare(original.signals(canny=torch.zeros(2, 3, 64, 64)))
    context.adapters["canny"] = control.prepare(context, "canny")
    with attached(original.unet.ports, control.taps("canny")), pytest.raises(InputError, match="hint"):
        original.unet(original.x, original.t, context)
    with pytest.raises(CompositionError, match="hint"):
        control.prepare(original.unet.prepare(original.signals(canny=torch.zeros(2, 1, 128, 192))), "canny")


def test_only_a_unet_can_be_copied() -> None:
    with pytest.raises(CompositionError, match="first half"):
        ControlNet.from_denoiser(nn.Linear(1, 1))  # type: ignore[arg-type]


SMALL: dict[str, Any] = {
    "block_out_channels": (16, 32, 32),
    "norm_num_groups": 8,
    "cross_attention_dim": 24,
    "conditioning_embedding_out_channels": (4, 8, 8),
    "layers_per_block": 1,
}
MODELS: dict[str, dict[str, Any]] = {
    "sd1": {
        **SMALL,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "attention_head_dim": 4,
    },
    "sdxl": {
        **SMALL,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "attention_head_dim": (2, 4, 8),
        "transformer_layers_per_block": (1, 2, 3),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 34,
    },
}


@pytest.mark.parametrize("name", MODELS)
def test_diffusers_controlnet_is_the_same_function(name: str) -> None:
    oracle = diffusers.ControlNetModel(**MODELS[name]).double().eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in oracle.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = noise * 0.2 + (1.0 if parameter.ndim == 1 else 0.0)
    config = controlnet_from_diffusers(dict(oracle.config))
    control = read(ControlNet(config).double(), controlnet_diffusers(config), oracle.state_dict())
    x, tokens = (
        torch.randn(2, 4, 8, 12, generator=generator).double(),
        torch.randn(2, 5, 24, generator=generator).double(),
    )
    hint, t = torch.rand(2, 3, 32, 48, generator=generator).double(), torch.tensor([3.0, 871.0]).double()
    signals: dict[str, Any] = {"context": Tokens(tokens), "c.hint": Plane(hint)}
    kwargs: dict[str, Any] = {}
    if name == "sdxl":
        pooled, sizes = torch.randn(2, 10, generator=generator).double(), torch.arange(12.0).double().view(2, 6) * 50
        kwargs["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": sizes}
        codes = oracle.add_time_proj(sizes.flatten()).view(2, -1).double()
        signals["vector"] = Vector(torch.cat([pooled, codes], dim=1))
    with torch.no_grad():
        down, mid = oracle(x, t, tokens, hint, return_dict=False, **kwargs)
    got = control(x, t, control.prepare(Context(signals), "c"))
    assert len(got) == len(down) + 1
    for mine, theirs in zip(got, (*down, mid), strict=True):
        assert float((mine - theirs).abs().max()) <= 1e-10 * float(theirs.abs().max())


@pytest.mark.parametrize("name", MODELS)
def test_config_written_back_builds_the_same_controlnet(name: str) -> None:
    with torch.device("meta"):
        oracle = diffusers.ControlNetModel(**MODELS[name])
        written = controlnet_to_diffusers(controlnet_from_diffusers(dict(oracle.config)))
        assert written.pop("_class_name") == "ControlNetModel"
        written["addition_time_embed_dim"] = oracle.config["addition_time_embed_dim"]
        again = diffusers.ControlNetModel(**written)
    shapes = {key: value.shape for key, value in oracle.state_dict().items()}
    assert {key: value.shape for key, value in again.state_dict().items()} == shapes
