"""Published models without golden data, read from complete files in their own layout, sampled, saved and reloaded.

The files are listed from the original modules' rules (`original_layout`), not through the package's key maps. Where
diffusers has the architecture, its own conversion of the same file and a DDIM loop written out here are the reference.
Tolerances: 1e-4 of the largest latent for whole runs (float32, 5 steps), 1e-5 for one pass of a codec, else exact.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ldmkit_checkpoints.compvis import text_config
from ldmkit_checkpoints.compvis.checkpoint import CompVisSource
from ldmkit_checkpoints.singlefile.models import infer_config
from original_files import reduced, write
from original_inputs import inputs_for
from original_layout import filled, first_stage_loss
from original_models import MODELS, SMALL_CLIP, SMALL_OPEN, STAGES, Original, averaged, buffers, shapes
from torch import Tensor
from typer.testing import CliRunner

import ldmkit
from ldmkit.cli.app import app
from ldmkit.models.compose import build, compose
from ldmkit.models.weights import LazyTensor, check
from ldmkit.run.noise import Noise

diffusers = pytest.importorskip("diffusers")
from diffusers.loaders.single_file_utils import (  # noqa: E402
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)

RUNS = {"ddim": (64, 64), "plms": (64, 96), "dpmpp-2m": (70, 90)}
NEEDS_YAML = {"ffhq256", "lsun_beds256", "cin256", "semantic_synthesis512", "bsr_sr", "inpainting_big"}
NEEDS_YAML |= {"txt2img-1p4B", "rdm768", "sd2-v", "cldm_v21"}
SAFETENSORS = {"ffhq256", "sd1", "sd2-v", "sdxl-base", "kl-f16", "vq-f16"}


@pytest.fixture
def small_towers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The original yaml names text towers instead of describing them: these names mean narrow ones here."""
    for key, value in SMALL_CLIP.items():
        monkeypatch.setitem(text_config._CLIP_L, key, value)
    for name in ("ViT-H-14", "ViT-bigG-14"):
        monkeypatch.setitem(text_config.OPEN_CLIP, name, SMALL_OPEN)


def full_file(model: Original) -> dict[str, LazyTensor]:
    """The published file without data, save the schedule."""
    listed = shapes(model)
    keys = {**listed, **averaged(model, listed), **model.extras}
    found = {key: LazyTensor(shape, torch.float32, lambda copy: torch.zeros(())) for key, shape in keys.items()}
    return found | {key: LazyTensor.of(value) for key, value in buffers(model).items()}


@pytest.mark.parametrize("name", [*MODELS, *STAGES])
def test_every_key_at_full_size(name: str) -> None:
    model = {**MODELS, **STAGES}[name]
    tensors = full_file(model)
    source = CompVisSource(tensors, model.config, name)
    if model.is_stage:
        with torch.device("meta"):
            check(build("codec", source.codec_spec, "codec"), source.tensors("codec"), name)
    else:
        assert len(tensors) == model.count
        for path, part in compose(source.spec).items().items():
            wiring = source.spec.conditioners.get(path.removeprefix("conditioners."))
            if wiring is None or wiring.shares is None:
                check(part, source.tensors(path), path)
    assert source.report.used.keys() | source.report.ignored.keys() == tensors.keys()
    assert not source.report.used.keys() & source.report.ignored.keys()


@pytest.mark.parametrize("name", [*MODELS, *STAGES])
def test_what_the_keys_alone_tell(name: str) -> None:
    model = {**MODELS, **STAGES}[name]
    tensors = full_file(model)
    extras = {"global_step": 875_000} if name == "sd2-base" else {}
    if name in NEEDS_YAML:
        with pytest.raises(ldmkit.SourceError, match="config="):
            infer_config(tensors, extras, name)
        return
    guessed = CompVisSource(tensors, infer_config(tensors, extras, name)[0], name)
    told = CompVisSource(tensors, model.config, name)
    assert guessed.codec_spec == told.codec_spec
    assert model.is_stage or guessed.spec == told.spec


def test_a_first_stage_file_has_as_many_loss_keys_as_reported() -> None:
    assert len(first_stage_loss(kl=False)) == 55


def published(name: str, folder: Path) -> tuple[Path, Path]:
    """A reduced model's file and yaml."""
    suffix = ".safetensors" if name in SAFETENSORS else ".ckpt"
    return write(reduced({**MODELS, **STAGES}[name]), folder, suffix)


@pytest.mark.usefixtures("small_towers")
@pytest.mark.parametrize("name", MODELS)
def test_load_sample_import_reload(tmp_path: Path, name: str) -> None:
    path, config = published(name, tmp_path)
    pipe = ldmkit.load(path, config=config)
    results = []
    for sampler, size in RUNS.items():
        given = inputs_for(pipe, size)
        asked = None if given.sized else size
        out = pipe(given.row, sampler=sampler, size=asked, steps=2, seeds=[3])
        fine = size if "image" not in pipe.conditioners else tuple(-(-side // 4) * 4 for side in size)
        assert tuple(out.images.shape) == (1, 3, *fine)
        results.append((given, asked, sampler, out))
    made = CliRunner().invoke(
        app, ["import", str(path), "--config", str(config), "-o", str(tmp_path / "own"), "--json"]
    )
    assert made.exit_code == 0, made.output
    report = json.loads(made.stdout)
    assert report["used"].keys() | report["ignored"].keys() == keys_of(path)
    own = ldmkit.load(tmp_path / "own")
    assert own.spec == pipe.spec
    given, asked, sampler, out = results[1]
    assert torch.equal(own(given.row, sampler=sampler, size=asked, steps=2, seeds=[3]).images, out.images)


def keys_of(path: Path) -> set[str]:
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(str(path), "pt") as file:
            return set(file.keys())
    return set(torch.load(path, weights_only=True)["state_dict"])


def weights_in(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(str(path)))
    found: dict[str, Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return found


def reference_unet(name: str, state: dict[str, Tensor], model: Original) -> Any:
    """UNet2DConditionModel with the file's weights, through diffusers' own conversion."""
    params = model.params.get("unet_config", model.params.get("network_config"))["params"]
    levels = len(params["channel_mult"])
    cross = [2**i in params["attention_resolutions"] for i in range(levels)]
    widths = [params["model_channels"] * m for m in params["channel_mult"]]
    depth = params["transformer_depth"]
    heads = [w // params["num_head_channels"] for w in widths] if "num_head_channels" in params else params["num_heads"]
    config = {
        "in_channels": params["in_channels"],
        "out_channels": params["out_channels"],
        "block_out_channels": widths,
        "layers_per_block": 2,
        "down_block_types": ["CrossAttnDownBlock2D" if c else "DownBlock2D" for c in cross],
        "up_block_types": ["CrossAttnUpBlock2D" if c else "UpBlock2D" for c in reversed(cross)],
        "cross_attention_dim": params["context_dim"],
        "attention_head_dim": heads,
        "transformer_layers_per_block": depth,
        "use_linear_projection": params.get("use_linear_in_transformer", False),
    }
    if "adm_in_channels" in params:
        config |= {"addition_embed_type": "text_time", "addition_time_embed_dim": 256}
        config["projection_class_embeddings_input_dim"] = params["adm_in_channels"]
    net = diffusers.UNet2DConditionModel(**config)
    # its conversion wants this entry even where there is none
    net.load_state_dict(convert_ldm_unet_checkpoint(state, {"class_embed_type": None, **net.config}, model.ema))
    return net.eval()


def ddim(net: Any, noise: Tensor, context: Tensor, null: Tensor | None, prediction: str, bar: Tensor) -> Tensor:
    """Five uniform DDIM steps with guidance 3 as the original sampler makes them: it ends at bar[0], not 1."""
    x, times = noise, [801, 601, 401, 201, 1]
    for i, t in enumerate(times):
        outs = [net(x, torch.tensor([t]), c).sample for c in (context, null) if c is not None]
        out = outs[0] if null is None else outs[1] + 3.0 * (outs[0] - outs[1])
        a, before = bar[t], bar[times[i + 1]] if i + 1 < len(times) else bar[0]
        eps = out if prediction == "eps" else a.sqrt() * out + (1 - a).sqrt() * x
        x0 = (x - (1 - a).sqrt() * eps) / a.sqrt()
        x = before.sqrt() * x0 + (1 - before).sqrt() * eps
    return x


@pytest.mark.usefixtures("small_towers")
@pytest.mark.parametrize("name", ["cin256", "txt2img-1p4B", "sd1-flat", "sd2-v"])
def test_a_run_against_diffusers(tmp_path: Path, name: str) -> None:
    path, config = published(name, tmp_path)
    pipe, model, state = ldmkit.load(path, config=config), reduced(MODELS[name]), weights_in(path)
    net = reference_unet(name, state, model)
    row = inputs_for(pipe, (64, 96)).row
    (conditioner,) = pipe.conditioners.values()
    with torch.no_grad():
        context = conditioner([conditioner.parse(next(iter(row.values())), "it")])
        null = conditioner.null(context).value if conditioner.has_null else None
        noise = Noise((5,), (pipe.codec.channels, 8, 12), pipe.device)(0, "start")
        prediction = model.params.get("parameterization", "eps")
        want = ddim(net, noise, context.value, null, prediction, state["alphas_cumprod"].double().float())
    out = pipe(row, size=(64, 96), seeds=[5], steps=5, sampler="ddim", guidance="none" if null is None else 3.0)
    assert (out.latents - want).abs().max() <= 1e-4 * want.abs().max()


@pytest.mark.parametrize("name", STAGES)
def test_first_stages_against_diffusers(tmp_path: Path, name: str) -> None:
    path, config = published(name, tmp_path)
    model, codec = reduced(STAGES[name]), ldmkit.load_codec(path, config=config)
    assert torch.equal(ldmkit.load_codec(path).decode(torch.ones(1, codec.channels, 2, 3)),
                       codec.decode(torch.ones(1, codec.channels, 2, 3)))  # fmt: skip
    theirs, kl = reference_stage(model, weights_in(path))
    picture = filled({"picture": (2, 3, 64, 96)})["picture"].clamp(-1, 1)
    with torch.no_grad():
        latents = codec.encode(picture)
        want = theirs.encode(picture).latent_dist.mode() if kl else theirs.encode(picture).latents
        assert (latents - want).abs().max() <= 1e-5 * want.abs().max()
        decoded, wanted = codec.decode(latents), theirs.decode(latents).sample
        assert (decoded - wanted).abs().max() <= 2e-5 * wanted.abs().max()


def reference_stage(model: Original, state: dict[str, Tensor]) -> tuple[Any, bool]:
    """AutoencoderKL or VQModel with the file's weights, through diffusers' own conversion."""
    dd, kl = model.params["ddconfig"], "n_embed" not in model.params
    sides = [dd["resolution"] >> level for level in range(len(dd["ch_mult"]))]
    attended = [side in dd["attn_resolutions"] for side in sides]
    shape = {
        "block_out_channels": [dd["ch"] * m for m in dd["ch_mult"]],
        "layers_per_block": 2,
        "latent_channels": dd["z_channels"],
        "down_block_types": ["AttnDownEncoderBlock2D" if a else "DownEncoderBlock2D" for a in attended],
        "up_block_types": ["AttnUpDecoderBlock2D" if a else "UpDecoderBlock2D" for a in reversed(attended)],
        "mid_block_add_attention": dd.get("attn_type") != "none",
    }
    kind = diffusers.AutoencoderKL if kl else diffusers.VQModel
    more = {} if kl else {"num_vq_embeddings": model.params["n_embed"], "vq_embed_dim": model.params["embed_dim"]}
    theirs = kind(**shape, **more)
    converted = {k: v for k, v in convert_ldm_vae_checkpoint(state, theirs.config).items() if ".attn." not in k}
    converted |= level_attention(state, len(attended))
    if not kl:
        converted["quantize.embedding.weight"] = state["quantize.embedding.weight"]
    theirs.load_state_dict(converted)
    return theirs.eval(), kl


def level_attention(state: dict[str, Tensor], levels: int) -> dict[str, Tensor]:
    """Attention outside the middle, whose keys diffusers' conversion passes through."""
    names = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
    found = {}
    for key, value in state.items():
        half, _, rest = key.partition(".")
        parts = rest.split(".")
        if half in ("encoder", "decoder") and len(parts) == 6 and parts[2] == "attn":
            level = int(parts[1]) if half == "encoder" else levels - 1 - int(parts[1])
            name = f"{half}.{parts[0]}_blocks.{level}.attentions.{parts[3]}.{names[parts[4]]}.{parts[5]}"
            found[name] = value.flatten(1) if value.ndim > 2 else value
    return found
