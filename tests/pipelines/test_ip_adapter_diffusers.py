"""IP-Adapters: whole pipelines against diffusers with the same files.

Tolerance: 1e-4 of the largest latent, in float32, as for pipelines without (see test_diffusers_pipelines): what is seen
is 1e-6, and every change that is asked for moves the latents by more than 0.02.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ip_files as made
import pytest
import tiny_diffusers as tiny
import torch
from diffusers.image_processor import IPAdapterMaskProcessor
from torch import Tensor

import ldmkit
from ldmkit.run.noise import Noise

CALL: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": 4.0, "height": 32, "width": 32}
OURS: dict[str, Any] = {"steps": 3, "guidance": 4.0, "seeds": [3], "size": 32}
NOISE = Noise([3], (4, 16, 16))(0, "start")
WORDS = {"prompt": "the red house", "negative_prompt": "a blur"}
MASKS = [made.mask(1), made.mask(2)]
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("plain", {}), "plus": ("plus", {}), "plus wide": ("plus", {"heads": 3, "tokens": 16, "width": 32}),
    "full": ("full", {}),
}  # fmt: skip
DEEP: dict[str, Any] = {
    "block_out_channels": (32, 64, 96), "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}  # fmt: skip
"""Stable Diffusion 1's levels: cross-attentions of three widths, the middle's the widest."""


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, ldmkit.Pipeline]]:
    """Pipelines of diffusers, and ours of their folders."""
    pipes = {"sd": tiny.stable_diffusion(**DEEP), "xl": tiny.stable_diffusion_xl()}
    folders = {name: tiny.saved(pipe, tmp_path_factory.mktemp(name)) for name, pipe in pipes.items()}
    return {name: (folder, ldmkit.load(folder)) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.encoder(tmp_path_factory.mktemp("encoder"))


def far(got: Tensor, want: Tensor) -> float:
    assert got.shape == want.shape
    return float((got - want).abs().max() / want.abs().max())


def theirs(pipe: Any, pictures: list[list[Any]], **more: Any) -> Tensor:
    found: Tensor = pipe(
        latents=NOISE, output_type="latent", ip_adapter_image=pictures, **{**WORDS, **CALL, **more}
    ).images
    return found


def drawn(pipe: ldmkit.Pipeline, inputs: dict[str, Any] | None = None, **more: Any) -> Tensor:
    given = {"text": "the red house", **(inputs or {})}
    return pipe(given, negative={"text": "a blur"}, **{**OURS, **more}).latents


@pytest.mark.parametrize("base", ["sd", "xl"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_files(
    bases: dict[str, tuple[Path, ldmkit.Pipeline]], images: Path, tmp_path: Path, base: str, kind: str, suffix: str
) -> None:
    """One picture, two, at a scale; afterwards the pipeline draws what it drew before, and detached it has its keys."""
    folder, ours = bases[base]
    unet = made.diffusers.UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    halves = made.adapter(unet, KINDS[kind][0], **KINDS[kind][1])
    pipe = made.with_adapters(folder, [halves], images)
    file = made.saved(halves, tmp_path / f"ip{suffix}")
    plain, keys = drawn(ours), list(ours.denoiser.state_dict())
    mine = ours.with_adapter_file(file, encoder=images)
    pictures = [made.picture(1), made.picture(2, 33, 90)]
    for count, scale in ((1, 1.0), (2, 0.6)):
        pipe.set_ip_adapter_scale(scale)
        want = theirs(pipe, [pictures[:count]])
        assert far(plain, want) > 0.02, "a change that would be noticed"
        given = pictures[0] if count == 1 else pictures
        assert far(drawn(mine.tuned("ip", scale=scale), {"ip-image": given}), want) < 1e-4
    assert torch.equal(drawn(mine), plain), "no picture, no change"
    assert torch.equal(drawn(mine.tuned("ip", scale=0.0), {"ip-image": pictures[0]}), plain)
    del mine
    assert torch.equal(drawn(ours), plain) and list(ours.denoiser.state_dict()) == keys
    assert not any(port.taps for port in ours.denoiser.ports.values())


@pytest.mark.parametrize("base", ["sd", "xl"])
@pytest.mark.parametrize("kind", ["plain", "plus"])
def test_regions(
    bases: dict[str, tuple[Path, ldmkit.Pipeline]], images: Path, tmp_path: Path, base: str, kind: str
) -> None:
    """Masks for one picture and for two, with a weight for each picture."""
    folder, ours = bases[base]
    unet = made.diffusers.UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    halves = made.adapter(unet, kind)
    pipe = made.with_adapters(folder, [halves], images)
    mine = ours.with_adapter_file(made.saved(halves, tmp_path / "ip.bin"), encoder=images)
    pictures, processor = [made.picture(1), made.picture(2)], IPAdapterMaskProcessor()
    for count, weights in ((1, ()), (2, ()), (2, (0.3, 0.9))):
        masks = processor.preprocess(MASKS[:count], height=32, width=32)
        more = {"cross_attention_kwargs": {"ip_adapter_masks": [masks.reshape(1, count, 32, 32)]}}
        pipe.set_ip_adapter_scale([list(weights)] if weights else 0.8)
        if weights:
            for processor_ in pipe.unet.attn_processors.values():
                if hasattr(processor_, "scale"):
                    processor_.scale = [list(weights)]
        want = theirs(pipe, [pictures[:count]], **more)
        tuned = mine.tuned("ip", weights=weights) if weights else mine.tuned("ip", scale=0.8)
        given = {"ip-image": pictures[:count], "ip-region": MASKS[:count]}
        assert far(drawn(tuned, given), want) < 1e-4
        assert far(drawn(tuned, {"ip-image": pictures[:count]}), want) > 0.02, "the masks matter"


def test_scales_of_layers(bases: dict[str, tuple[Path, ldmkit.Pipeline]], images: Path, tmp_path: Path) -> None:
    """As `set_ip_adapter_scale` takes them for style and layout: blocks that it does not name are 0."""
    folder, ours = bases["sd"]
    unet = made.diffusers.UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    halves = made.adapter(unet, "plain")
    pipe = made.with_adapters(folder, [halves], images)
    mine = ours.with_adapter_file(made.saved(halves, tmp_path / "ip.bin"), encoder=images)
    seen: list[Tensor] = []
    none = {"down": 0, "up": 0, "mid": 0}
    for theirs_scale, ours_scale in (
        ({"down": {"block_1": [0.0, 1.0]}, "up": {"block_1": [0.2, 0.9, 0.0]}},
         {**none, "down.1.attn.1": 1.0, "up.1.attn.0": 0.2, "up.1.attn.1": 0.9}),
        ({"mid": 0.7, "down": 0.4}, {**none, "mid": 0.7, "down": 0.4}),
        ({"up": {"block_2": 1.0}}, {**none, "up.0": 1.0}),
    ):  # fmt: skip
        pipe.set_ip_adapter_scale(theirs_scale)
        want = theirs(pipe, [[made.picture(1)]])
        got = drawn(mine.tuned("ip", scales=ours_scale), {"ip-image": made.picture(1)})
        assert far(got, want) < 1e-4
        assert all(far(got, other) > 0.005 for other in seen)
        seen.append(got)


@pytest.mark.parametrize("base", ["sd", "xl"])
def test_two_adapters(bases: dict[str, tuple[Path, ldmkit.Pipeline]], images: Path, tmp_path: Path, base: str) -> None:
    """A plain and a plus one, with other scales, a region for the second, embeddings for the first."""
    folder, ours = bases[base]
    unet = made.diffusers.UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    one, two = made.adapter(unet, "plain", 1), made.adapter(unet, "plus", 2)
    pipe = made.with_adapters(folder, [one, two], images)
    pipe.set_ip_adapter_scale([0.5, 0.9])
    masks = IPAdapterMaskProcessor().preprocess(MASKS[:1], height=32, width=32).reshape(1, 1, 32, 32)
    whole = torch.ones(1, 2, 32, 32)
    pictures = [made.picture(1), made.picture(2)]
    want = theirs(pipe, [pictures, [pictures[0]]])
    mine = ours.with_adapter_file(made.saved(one, tmp_path / "one.bin"), encoder=images, scale=0.5)
    mine = mine.with_adapter_file(made.saved(two, tmp_path / "two.safetensors"), encoder=images, scale=0.9)
    given = {"ip-image": pictures, "ip-image-2": pictures[0]}
    assert far(drawn(mine, given), want) < 1e-4
    more = {"cross_attention_kwargs": {"ip_adapter_masks": [whole, masks]}}
    want = theirs(pipe, [pictures, [pictures[0]]], **more)
    assert far(drawn(mine, {**given, "ip-region": [torch.ones(32, 32)] * 2, "ip-region-2": MASKS[0]}), want) < 1e-4


@pytest.mark.parametrize(("base", "kind"), [("sd", "plain"), ("xl", "plus"), ("sd", "full")])
def test_embeddings(bases: dict[str, tuple[Path, ldmkit.Pipeline]], tmp_path: Path, base: str, kind: str) -> None:
    """Without an encoder the inputs are its embeddings; what a plus one is guided away from has to be given."""
    folder, ours = bases[base]
    unet = made.diffusers.UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    halves = made.adapter(unet, kind)
    pipe = made.with_adapters(folder, [halves])
    shape = (2, made.SOURCE) if kind == "plain" else (2, made.TOKENS, made.WIDTH)
    embeds = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    empty = torch.zeros(shape) if kind == "plain" else torch.randn(shape, generator=torch.Generator().manual_seed(2))
    want = pipe(
        latents=NOISE, output_type="latent", ip_adapter_image_embeds=[torch.stack([empty, embeds])], **WORDS, **CALL
    ).images
    length = {} if kind == "plain" else {"length": made.TOKENS}
    mine = ours.with_adapter_file(made.saved(halves, tmp_path / "ip.bin"), **length)
    given = {"text": "the red house", "ip-image": embeds}
    negative = {"text": "a blur", **({} if kind == "plain" else {"ip-image": empty})}
    assert far(mine(given, negative=negative, **OURS).latents, want) < 1e-4
    if kind != "plain":
        with pytest.raises(ldmkit.InputError, match=r"missing-condition.*negative"):
            mine(given, negative={"text": "a blur"}, **OURS)
