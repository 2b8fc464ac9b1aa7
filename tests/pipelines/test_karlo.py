"""Karlo against diffusers: whole cascades of texts and of variations, alone or stage by stage, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import karlo_models as karlo
import numpy as np
import pytest
import torch
from diffusers.pipelines.deprecated.unclip import pipeline_unclip, pipeline_unclip_image_variation
from diffusers.schedulers import scheduling_unclip
from PIL import Image
from torch import Tensor
from unclip_tables import in_double

import ldmkit
from ldmkit.cli import main
from ldmkit.run.noise import Noise

TOLERANCE = 1e-4
"""Of pictures in [0, 1]: float32 on both sides, three runs on one another's results; 2e-6 is seen."""

STEPS = {"prior": 4, "decoder": 3, "enlarged": 2}
SHAPES: dict[str, tuple[int, ...]] = {"prior": (karlo.DIM,), "decoder": (3, 16, 16), "enlarged": (3, 32, 32)}
TEXTS = ["the horse", "a cat on the hat"]


class Drawn:
    """Our noise in the order in which diffusers asks for it: of every stage the start, then one draw a step but the
    last."""

    def __init__(self, seeds: Sequence[int], stages: Sequence[str]) -> None:
        self.left: list[Tensor] = []
        for name in stages:
            noise = Noise([ldmkit.stage_seed(seed, name) for seed in seeds], SHAPES[name])
            self.left += [noise(0, "start"), *(noise(i) for i in range(STEPS[name] - 1))]

    def __call__(self, shape: Any, **kwargs: Any) -> Tensor:
        """Steps ask with the shape of the network's output, whose second half is a variance."""
        made = self.left.pop(0)
        assert made.shape == (shape[0], made.shape[1], *shape[2:])
        return made


def drawn_by_us(monkeypatch: pytest.MonkeyPatch, seeds: Sequence[int], stages: Sequence[str]) -> Drawn:
    made = Drawn(seeds, stages)
    for module in (pipeline_unclip, pipeline_unclip_image_variation, scheduling_unclip):
        monkeypatch.setattr(module, "randn_tensor", made)
    return made


def steps(*names: str) -> dict[str, Any]:
    return {name: {"steps": STEPS[name]} for name in names or STEPS}


def counted() -> dict[str, int]:
    return {"decoder_num_inference_steps": STEPS["decoder"], "super_res_num_inference_steps": STEPS["enlarged"]}


def far(images: Tensor, want: Any) -> float:
    return float((images.permute(0, 2, 3, 1) - torch.as_tensor(want)).abs().max())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Path]]:
    base = tmp_path_factory.mktemp("karlo")
    found = {"texts": karlo.texts(), "variations": karlo.variations()}
    for name, pipe in found.items():
        pipe.save_pretrained(base / name)
        for scheduler in (getattr(pipe, f"{one}_scheduler", None) for one in ("prior", "decoder", "super_res")):
            in_double(scheduler) if scheduler is not None else None
    return {name: (pipe, base / name) for name, pipe in found.items()}


@pytest.mark.parametrize(("prior", "decoder"), [(4.0, 8.0), (2.0, 1.5)])
def test_texts_become_pictures(
    prior: float, decoder: float, folders: dict[str, tuple[Any, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, folder = folders["texts"]
    cascade = ldmkit.Cascade.load(folder)
    defaults = [pipe.spec.defaults for pipe in cascade.stages.values()]
    assert [one.steps for one in defaults] == [25, 25, 7]
    assert [one.guidance.config.get("scale") for one in defaults] == [4.0, 8.0, None]
    left = drawn_by_us(monkeypatch, [5, 6], list(STEPS)).left
    want = theirs(
        TEXTS, prior_num_inference_steps=STEPS["prior"], **counted(), prior_guidance_scale=prior,
        decoder_guidance_scale=decoder, output_type="np",
    ).images  # fmt: skip
    assert not left
    stages = steps()
    stages["prior"]["guidance"], stages["decoder"]["guidance"] = prior, decoder
    out = cascade([{"text": text} for text in TEXTS], seeds=[5, 6], stages=stages)
    assert out.images.shape == (2, 3, 32, 32) and far(out.images, want) < TOLERANCE
    assert np.std(want) > 0.1 and np.abs(want[0] - want[1]).max() > 0.1


def test_a_picture_becomes_variations(folders: dict[str, tuple[Any, Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, folder = folders["variations"]
    pixels = np.random.default_rng(0).integers(0, 256, (40, 33, 3), dtype=np.uint8)
    cascade = ldmkit.Cascade.load(folder)
    left = drawn_by_us(monkeypatch, [7], ["decoder", "enlarged"]).left
    want = theirs(Image.fromarray(pixels), **counted(), output_type="np").images
    assert not left
    out = cascade({"image": pixels}, seeds=[7], stages=steps("decoder", "enlarged"))
    assert far(out.images, want) < TOLERANCE
    embedding = theirs.image_encoder(
        theirs.feature_extractor(Image.fromarray(pixels), return_tensors="pt").pixel_values
    )
    again = cascade({"image": embedding.image_embeds[0].detach()}, seeds=[7], stages=steps("decoder", "enlarged"))
    assert (again.images - out.images).abs().max() < TOLERANCE


def test_the_prior_alone_and_its_embedding_given_back(
    folders: dict[str, tuple[Any, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From Python and the command line: the same embedding, and the same picture of it."""
    folder = str(folders["texts"][1])
    cascade = ldmkit.Cascade.load(folder)
    whole = cascade({"text": TEXTS[0]}, seeds=[5], stages=steps())
    alone = cascade({"text": TEXTS[0]}, seeds=[5], last="prior", stages=steps("prior"))
    assert torch.equal(alone.images, whole.stages["prior"].images) and alone.images.shape == (1, karlo.DIM)
    path = tmp_path / "e.safetensors"
    said = ["--text", TEXTS[0], "--seed", "5"]
    chosen = [f"--stage={name}.steps={count}" for name, count in STEPS.items()]
    assert main(["sample", folder, *said, "--last", "prior", chosen[0], "-o", str(path)]) == 0
    picture = tmp_path / "p.png"
    given = ["--first", "decoder", "--image", str(path), *chosen[1:]]
    assert main(["sample", folder, *said, *given, "-o", str(picture)]) == 0
    levels = np.asarray(Image.open(picture)).astype(float) / 255
    assert np.abs(levels - whole.images[0].permute(1, 2, 0).numpy()).max() <= 0.5 / 255 + 1e-6
    capsys.readouterr()


def changed(folder: Path, tmp_path: Path, name: str, **fields: Any) -> Path:
    """A copy of the folder with fields of a config changed; its weights are links."""
    copy = tmp_path / "changed"
    for path in (one for one in folder.rglob("*") if one.is_file()):
        target = copy / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    config = copy / name
    config.write_text(json.dumps({**json.loads(config.read_text()), **fields}))
    return copy


@pytest.mark.parametrize(
    ("name", "fields", "word"),
    [
        ("model_index.json", {"prior": ["diffusers", "UNet2DModel"]}, "prior"),
        ("model_index.json", {"text_proj": [None, None]}, "text_proj"),
        ("model_index.json", {"decoder_scheduler": ["diffusers", "DDPMScheduler"]}, "decoder_scheduler"),
        ("text_proj/config.json", {"clip_embeddings_dim": 16}, "dim 16"),
        ("text_proj/config.json", {"time_embed_dim": 64}, "time_embed_dim"),
        ("decoder/config.json", {"class_embed_type": None}, "class_embed_type"),
        ("decoder/config.json", {"sample_size": 12}, "sample_size"),
        ("decoder_scheduler/scheduler_config.json", {"variance_type": "fixed_small_log"}, "variance_type"),
        ("super_res_scheduler/scheduler_config.json", {"variance_type": "learned_range"}, "variance_type"),
        ("prior/config.json", {"embedding_dim": 16}, "prior"),
    ],
)
def test_what_does_not_fit_is_named_before_weights_are_read(
    name: str, fields: dict[str, Any], word: str, folders: dict[str, tuple[Any, Path]], tmp_path: Path
) -> None:
    with pytest.raises(ldmkit.LdmkitError) as caught:
        ldmkit.Cascade.load(changed(folders["texts"][1], tmp_path, name, **fields))
    assert word in str(caught.value)


def test_a_prior_without_statistics_is_an_error(tmp_path: Path) -> None:
    net = karlo.prior()
    net.clip_std.data.zero_()
    net.clip_mean.data.zero_()
    karlo.texts(prior=net).save_pretrained(tmp_path)
    with pytest.raises(ldmkit.WeightsError, match="statistics of the embeddings are all zero") as caught:
        ldmkit.Cascade.load(tmp_path)
    assert caught.value.code == "weights.no-statistics"


def test_a_text_is_encoded_once(folders: dict[str, tuple[Any, Path]]) -> None:
    cascade = ldmkit.Cascade.load(folders["texts"][1])
    prior, decoder = cascade.stages["prior"], cascade.stages["decoder"]
    assert all(decoder.conditioners[name] is prior.conditioners[name] for name in ("text", "pooled"))
