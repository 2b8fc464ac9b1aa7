"""GLIGEN attached to a pipeline that was loaded without it: from a file of gates, from a folder, by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gligen_models as gm
import numpy as np
import pytest
import tiny_diffusers as tiny
import torch
from ldmkit_checkpoints.compvis.unet_keys import unet_compvis
from ldmkit_checkpoints.diffusers.gligen import gligen_keys
from ldmkit_conditioners.layout_phrases import LayoutPhrases
from PIL import Image
from safetensors.torch import load_file, save_file
from test_diffusers_pipelines import close

import ldmkit
from ldmkit.cli import main
from ldmkit.errors import LdmkitError, SourceError
from ldmkit.replaying import replay, with_updates

TEXT = "the red house"
CALL: dict[str, Any] = {"steps": 6, "seeds": [3], "guidance": 4.0}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`whole`, a pipeline with gates; `base`, the same without; `gates.safetensors`, the gates in the original's names;
    `boxes.json`."""
    root = tmp_path_factory.mktemp("gates")
    theirs = gm.gligen()
    whole = ldmkit.load(tiny.saved(theirs, root / "whole"))
    plain = tiny.stable_diffusion()
    state = theirs.unet.state_dict()
    plain.unet.load_state_dict({k: v for k, v in state.items() if k in plain.unet.state_dict()})
    tiny.saved(plain, root / "base")
    adapter: Any = whole.adapters["gligen"]
    keys = gligen_keys(adapter.config, unet_compvis(whole.denoiser.config))
    own = adapter.state_dict()
    save_file({entry.keys[0]: own[name] for name, entry in keys.items()}, root / "gates.safetensors")
    save_file({k: v for k, v in state.items() if ".fuser." in k or "position_net" in k}, root / "theirs.safetensors")
    (root / "boxes.json").write_text(json.dumps(gm.layout(3)))
    return root


@pytest.fixture(scope="module")
def want(root: Path) -> torch.Tensor:
    return ldmkit.load(root / "whole")({"text": TEXT, "layout": gm.layout(3)}, **CALL).latents


@pytest.fixture(scope="module")
def base(root: Path) -> ldmkit.Pipeline:
    return ldmkit.load(root / "base")


@pytest.mark.parametrize("source", ["gates.safetensors", "theirs.safetensors", "whole"])
def test_attached_from_a_file_or_folder(root: Path, base: ldmkit.Pipeline, want: torch.Tensor, source: str) -> None:
    before, keys = base({"text": TEXT}, **CALL).latents, base.denoiser.state_dict().keys()
    pipe = base.with_adapter_file(root / source)
    assert torch.equal(pipe({"text": TEXT, "layout": gm.layout(3)}, **CALL).latents, want)
    (layout,) = (part for name, part in pipe.conditioners.items() if name != "text")
    assert any(True for _ in layout.parameters()) == (source == "whole")  # the text encoder is not read twice
    del pipe
    assert torch.equal(base({"text": TEXT}, **CALL).latents, before)
    assert base.denoiser.state_dict().keys() == keys


def test_attached_by_hand(root: Path, base: ldmkit.Pipeline, want: torch.Tensor) -> None:
    whole = ldmkit.load(root / "whole")
    text: Any = whole.conditioners["text"]
    phrases = LayoutPhrases({k: v for k, v in text.config if k in LayoutPhrases.Config.model_fields})
    phrases.adopt(text)
    pipe = base.with_adapter("boxes", whole.adapters["gligen"], {"objects": phrases})
    assert torch.equal(pipe({"text": TEXT, "boxes": gm.layout(3)}, **CALL).latents, want)


def test_with_other_files(root: Path, base: ldmkit.Pipeline, tmp_path: Path) -> None:
    """The order of attaching changes nothing, and the gates see texts and networks as LoRAs change them."""
    width, name = tiny.TEXT_WIDTH, "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    tensors = {f"{name}.lora_down.weight": torch.randn(2, width), f"{name}.lora_up.weight": torch.randn(width, 2)}
    save_file(tensors, lora := tmp_path / "te.safetensors")
    gates, inputs = root / "gates.safetensors", {"text": TEXT, "layout": gm.layout(3)}
    one = base.with_adapter_file(gates).with_lora(lora)(inputs, **CALL).latents
    close(base.with_lora(lora).with_adapter_file(gates)(inputs, **CALL).latents, one)
    assert not torch.equal(base.with_adapter_file(gates)(inputs, **CALL).latents, one)


def test_saved_recorded_replayed(root: Path, base: ldmkit.Pipeline, want: torch.Tensor, tmp_path: Path) -> None:
    pipe = base.with_adapter_file(root / "gates.safetensors", end=0.3)
    again = ldmkit.load(pipe.save(tmp_path / "saved"))
    assert torch.equal(again({"text": TEXT, "layout": gm.layout(3)}, **CALL).latents, want)
    out = pipe.tuned("gates", end=0.5)({"text": TEXT, "layout": gm.layout(3)}, **CALL)
    (recipe,) = out.recipes
    assert recipe["updates"][0]["options"] == {"end": 0.5}
    made = replay(with_updates(ldmkit.load(root / "base"), recipe), recipe, trust=True)
    assert torch.equal(made.images, out.images)


def test_the_command_line(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = ["--layout", str(root / "boxes.json")]
    words = ["--text", TEXT, "--steps", "6", "--seed", "3", "--guidance", "4"]
    for number, model in enumerate(
        ([str(root / "whole")], [str(root / "base"), "--adapter", f"{root / 'gates.safetensors'}"])
    ):
        out = tmp_path / f"{number}.png"
        assert main(["sample", *model, *words, *layout, "-o", str(out)]) == 0, capsys.readouterr().err
        capsys.readouterr()
        assert main(["replay", str(out), "--model", model[0], "--trust", "--json"]) == 0, capsys.readouterr().err
        assert json.loads(capsys.readouterr().out)["largest_difference"] == 0
    assert np.array_equal(*(np.asarray(Image.open(tmp_path / f"{number}.png")) for number in (0, 1)))
    assert main(["sample", str(root / "whole"), "--inputs"]) == 0
    assert "layout" in json.loads(capsys.readouterr().out)


def test_gates_for_another_network(root: Path, base: ldmkit.Pipeline, tmp_path: Path) -> None:
    tensors = load_file(root / "gates.safetensors")
    xl = ldmkit.load(tiny.saved(tiny.stable_diffusion_xl(), tmp_path / "xl"))
    with pytest.raises(LdmkitError, match=r"fuser"):
        xl.with_adapter_file(root / "gates.safetensors")
    assert not any(port.taps for port in xl.denoiser.ports.values())
    with pytest.raises(SourceError, match="U-Net with cross-attention"):
        ldmkit.load(tiny.saved(_unconditional(), tmp_path / "plain")).with_adapter_file(root / "gates.safetensors")
    for key, changed, words in [
        ("extra", {**tensors, "extra.weight": torch.ones(2)}, r"extra\.weight"),
        ("less", {k: v for k, v in tensors.items() if not k.endswith("alpha_dense")}, "alpha_dense"),
        ("nan", {k: torch.full_like(v, float("nan")) if "alpha" in k else v for k, v in tensors.items()}, "not-finite"),
        ("image", {**tensors, "position_net.linears_image.0.weight": torch.ones(2, 2)}, "pictures in boxes"),
    ]:
        save_file(changed, file := tmp_path / f"{key}.safetensors")
        with pytest.raises(LdmkitError, match=words):
            base.with_adapter_file(file)


def _unconditional() -> Any:
    import diffusers

    unet = diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1, attention_head_dim=8,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    return diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler())
