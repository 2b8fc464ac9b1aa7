"""What model_index.json says of a pipeline's components: read as diffusers reads it, or refused by name."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from ldm_pipelines import paper_text, pixels, unconditional

import ldmkit
from ldmkit.models.reading import open_source

sys.path.append(str(Path(__file__).parents[1] / "pipelines"))
import tiny_diffusers as tiny


def edit(path: Path, drop: str = "", **changes: Any) -> None:
    data = {key: value for key, value in json.loads(path.read_text(encoding="utf-8")).items() if key != drop}
    path.write_text(json.dumps({**data, **changes}), encoding="utf-8")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("folders")
    makes = {"sd": tiny.stable_diffusion, "xl": tiny.stable_diffusion_xl, "refiner": tiny.refiner, "ddpm": pixels}
    found = {name: tiny.saved(make(), top / name) for name, make in makes.items()}
    return found | {"ldm": tiny.saved(unconditional(), top / "ldm"), "text": tiny.saved(paper_text(top), top / "text")}


@pytest.fixture
def copy(folders: dict[str, Path], tmp_path: Path) -> Any:
    return lambda name: Path(shutil.copytree(folders[name], tmp_path / name))


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(ldmkit.LdmkitError) as caught:
        ldmkit.load(folder)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert not caught.value.code.endswith("crashed")


OTHERS = (
    "XLMRobertaTokenizer",
    "GPT2Tokenizer",
    "LlamaTokenizer",
    "Qwen2Tokenizer",
    "PreTrainedTokenizerFast",
)


@pytest.mark.parametrize("cls", OTHERS)
@pytest.mark.parametrize("name", ["sd", "text"])
def test_another_tokenizer_is_refused_by_name(copy: Any, name: str, cls: str) -> None:
    folder = copy(name)
    edit(folder / "model_index.json", tokenizer=["transformers", cls])
    refused(folder, cls)


def test_tokenizers_of_the_same_kind_are_read(copy: Any) -> None:
    for name, cls in (("sd", "CLIPTokenizerFast"), ("text", "BertTokenizerFast")):
        folder = copy(name)
        edit(folder / "model_index.json", tokenizer=["transformers", cls])
        ldmkit.load(folder)
    written = folder.parent / "sd"
    edit(written / "model_index.json", tokenizer=["transformers", "PreTrainedTokenizerFast"])
    edit(written / "tokenizer" / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    ldmkit.load(written)


@pytest.mark.parametrize("cls", ["XLMRobertaModel", "LlamaModel", "RobertaSeriesModelWithTransformation", "CLIPModel"])
def test_another_text_encoder_is_refused_by_name(copy: Any, cls: str) -> None:
    folder = copy("sd")
    edit(folder / "model_index.json", text_encoder=["transformers", cls])
    refused(folder, cls)


@pytest.mark.parametrize(
    ("name", "component", "cls"),
    [
        ("sd", "vae", "AutoencoderOobleck"),
        ("sd", "vae", "AsymmetricAutoencoderKL"),
        ("sd", "unet", "UNetFlatConditionModel"),
        ("sd", "scheduler", "ScoreSdeVeScheduler"),
        ("ldm", "vqvae", "AutoencoderDC"),
        ("ddpm", "unet", "UNet3DConditionModel"),
    ],
)
def test_another_class_of_a_network_is_refused_by_name(copy: Any, name: str, component: str, cls: str) -> None:
    """Whether the index says so, the component's own config, or both."""
    folder = copy(name)
    file = "scheduler_config.json" if component == "scheduler" else "config.json"
    own = folder / component / file
    edit(folder / "model_index.json", **{component: ["diffusers", cls]})
    refused(folder, cls)
    edit(own, _class_name=cls)
    refused(folder, cls)
    edit(own, "_class_name")
    refused(folder, cls)


@pytest.mark.parametrize(
    ("name", "component"),
    [("sd", "vae"), ("sd", "unet"), ("sd", "scheduler"), ("xl", "vae"), ("ldm", "vqvae"), ("text", "bert")],
)
@pytest.mark.parametrize("entry", ["absent", [None, None], None, "x", ["diffusers"], [1, 2]], ids=str)
def test_a_component_that_is_needed(copy: Any, name: str, component: str, entry: Any) -> None:
    folder = copy(name)
    edit(folder / "model_index.json", component, **({} if entry == "absent" else {component: entry}))
    refused(folder, component)


def test_what_the_class_does_not_read_is_not_read_here(copy: Any) -> None:
    folder = copy("sd")
    plain = ldmkit.load(folder)({"text": "a"}, steps=2).images
    more = {"text_encoder_2": ["transformers", "CLIPTextModel"], "controlnet": ["diffusers", "ControlNetModel"]}
    edit(folder / "model_index.json", **more, adapter=["diffusers", "T2IAdapter"], requires_aesthetics_score=True)
    assert bool((ldmkit.load(folder)({"text": "a"}, steps=2).images == plain).all())
    notes = " ".join(open_source(folder).report.notes)
    assert all(f"{name}: not used" in notes for name in (*more, "adapter"))
    xl = copy("xl")
    edit(xl / "model_index.json", requires_aesthetics_score=True)  # of the refiner's class only
    assert "aesthetic" not in ldmkit.load(xl).spec.conditioners["sizes"].config["reads"]
    assert "aesthetic" in ldmkit.load(copy("refiner")).spec.conditioners["sizes"].config["reads"]


def test_a_component_without_a_class_of_its_own(copy: Any) -> None:
    folder = copy("sd")
    for component in ("unet", "vae", "text_encoder"):
        edit(folder / component / "config.json", "_class_name")
    edit(folder / "scheduler" / "scheduler_config.json", "_class_name")
    ldmkit.load(folder)


def test_networks_of_another_family_than_the_pipelines(copy: Any) -> None:
    for name, cls in (("sd", "StableDiffusionXLPipeline"), ("xl", "StableDiffusionPipeline")):
        folder = copy(name)
        edit(folder / "model_index.json", _class_name=cls)
        refused(folder, "addition_embed_type")


@pytest.mark.parametrize("changes", [{"flip_sin_to_cos": False}, {"freq_shift": 1}], ids=str)
def test_codes_of_sizes_in_another_order_are_refused(copy: Any, changes: dict[str, Any]) -> None:
    folder = copy("xl")
    edit(folder / "unet" / "config.json", **changes)
    refused(folder, next(iter(changes)))


def test_a_custom_pipeline_is_refused_by_name(copy: Any) -> None:
    folder = copy("sd")
    edit(folder / "model_index.json", _class_name=["my_pipeline", "MyPipeline"])
    refused(folder, "MyPipeline")
