"""Conditioners against numbers of the original code.

Tolerance: 1e-5 of an array's largest value, or four times the rounding noise measured for it; token
sequences are equal.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ldmkit_checkpoints.compvis.text_config import PlannedConditioner, conditioners_from_compvis, conditioners_from_sgm
from ldmkit_checkpoints.compvis.text_keys import bert_keys, conditioner_keys, open_clip_keys
from ldmkit_checkpoints.keys import KeyMap, prefixed
from ldmkit_checkpoints.transformers.text_keys import clip_hf_keys
from ldmkit_checkpoints.unread import ignorable_conditioner_key
from ldmkit_conditioners.clip_text import ClipPooled, ClipText
from ldmkit_conditioners.image import ImagePlane
from ldmkit_conditioners.label import Label
from ldmkit_conditioners.layout import Layout, Rect
from ldmkit_conditioners.layout_tokens import WHOLE, LayoutCode, LayoutTokens, Thing
from ldmkit_conditioners.ldm_text import LdmText
from ldmkit_conditioners.semantic import Semantic
from ldmkit_conditioners.size_codes import SizeCodes, Sizes
from torch import Tensor, nn

import ldmkit

GOLDENS = Path(__file__).parents[1] / "goldens"
sys.path.insert(0, str(GOLDENS))
import golden_weights as gw  # noqa: E402


def close(manifest: dict[str, Any], arrays: Any, name: str, got: Tensor) -> None:
    ok, worst = gw.compare(manifest, arrays, name, got, rtol=1e-5)
    assert ok, f"{name}: {worst:.2g}"


def fill(module: nn.Module, keymap: KeyMap, state: dict[str, Tensor], prefix: str) -> None:
    weights = {n: e.read(*(state[prefix + k] for k in e.keys)) for n, e in keymap.items()}
    module.load_state_dict(weights, strict=True)
    for name, entry in keymap.items():
        for key, back in zip(entry.keys, entry.write(weights[name]), strict=True):
            assert torch.equal(back, state[prefix + key]), f"{key} does not survive the way back"


def ids(array: Any) -> list[list[int]]:
    return [list(map(int, row)) for row in array]


# ---- text towers


@pytest.fixture(scope="module")
def towers() -> tuple[dict[str, Any], Any]:
    return gw.load_model_dir(str(GOLDENS / "text_encoders"))


def golden_state(keys: list[Any]) -> dict[str, Tensor]:
    return {key: gw.golden_tensor(key, shape) for key, shape in keys}


SMALL = {"vocab_size": 1000, "width": 64, "heads": 4, "mlp": 256, "bos": 998, "eos": 999}


@pytest.mark.parametrize(
    ("array", "config"),
    [
        ("clip_l.last_hidden_state", {"layer": "last"}),
        ("clip_l.hidden_11", {"layer": 11, "final_norm": False}),
        ("clip_l.hidden_11", {"layer": -2, "final_norm": False}),
        ("clip_l.hidden_0", {"layer": 0, "final_norm": False}),
        ("clip_l.pooled", None),
    ],
)
def test_clip_l(towers: tuple[dict[str, Any], Any], array: str, config: dict[str, Any] | None) -> None:
    manifest, arrays = towers
    shape = {**SMALL, "layers": 12, "pad": 999}
    part = ClipPooled(shape) if config is None else ClipText({**shape, **config})
    fill(part, clip_hf_keys(part.config), golden_state(manifest["clip_l"]["keys"]), "clip_l.transformer.")
    with torch.no_grad():
        close(manifest, arrays, array, part(ids(arrays["tokens"])).value)


@pytest.mark.parametrize(
    ("array", "config"),
    [
        ("open_clip.penultimate", {"layer": "penultimate", "final_norm": False}),
        ("open_clip.sd2", {"layer": "penultimate"}),
        ("open_clip.last", {"layer": "last"}),
        ("open_clip.pooled", None),
    ],
)
def test_open_clip(towers: tuple[dict[str, Any], Any], array: str, config: dict[str, Any] | None) -> None:
    manifest, arrays = towers
    shape = {**SMALL, "layers": 5, "pad": 0, "activation": "gelu", "pool": "argmax", "projection": 64}
    part = ClipPooled(shape) if config is None else ClipText({**shape, **config})
    fill(part, open_clip_keys(part.config), golden_state(manifest["open_clip"]["keys"]), "open_clip.model.")
    with torch.no_grad():
        close(manifest, arrays, array, part(ids(arrays["tokens_open_clip"])).value)


# ---- layouts


def cases() -> list[dict[str, Any]]:
    return list(gw.load_model_dir(str(GOLDENS / "layout_bbox"))[0]["cases"])


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["array"])
def test_layout_sequences(case: dict[str, Any]) -> None:
    wanted = LAYOUTS[case["array"]].reshape(-1).tolist()
    params = case["params"]
    code = LayoutCode(
        n_classes=params["no_object_classes"],
        max_objects=params["no_max_objects"],
        n_tokens=params["no_tokens"],
        encode_crop=params["encode_crop"],
        group=params["use_group_parameter"],
        attributes=params["use_additional_parameters"],
        centres="Center" in case["builder"],
    )
    things = [Thing(a["category_no"], _bits(a), Rect(*a["bbox"])) for a in case["annotations"]]
    crop = Rect(*case["crop"]) if case["crop"] else WHOLE
    assert code.encode(things[: code.max_objects], crop, case["horizontal_flip"]) == wanted
    assert code.length == case["length"]
    decoded, decoded_crop = code.decode(wanted)
    numbers = 2 if code.centres else 4
    back = [[thing.label + code.n_classes * thing.bits, list(thing.rect)[:numbers]] for thing in decoded]
    assert back == case["inverse"]
    assert (decoded_crop is None) == (not code.encode_crop)
    if decoded_crop is not None:
        assert list(decoded_crop) == pytest.approx(case["inverse_crop"], abs=1e-12)


LAYOUTS = gw.load_model_dir(str(GOLDENS / "layout_bbox"))[1]


def _bits(annotation: dict[str, Any]) -> int:
    names = ("is_group_of", "is_occluded", "is_depiction", "is_inside")
    return sum(bool(annotation[name]) << i for i, name in enumerate(names))


@pytest.mark.parametrize("form", ["xyxy", "xywh", "cxcywh"])
def test_layout_input_makes_the_published_sequence(form: str) -> None:
    case = next(c for c in cases() if c["array"] == "bbox_30_8192_300.A.crop0.flip0")
    boxes = []
    for a in case["annotations"]:
        x, y, w, h = a["bbox"]
        box = {"xyxy": [x, y, x + w, y + h], "xywh": [x, y, w, h], "cxcywh": [x + w / 2, y + h / 2, w, h]}[form]
        flags = {name[3:]: bool(a[name]) for name in a if name.startswith("is_")}
        boxes.append({"label": a["category_no"], "box": box, "format": form, **flags})
    part = LayoutTokens({"n_classes": 300, "dim": 8, "layers": 1, "heads": 1, "head_dim": 8})
    assert part.tokens(part.parse(boxes, "layout")) == LAYOUTS[case["array"]].reshape(-1).tolist()


# ---- isolated modules


@pytest.fixture(scope="module")
def modules() -> tuple[dict[str, Any], Any]:
    return gw.load_model_dir(str(GOLDENS / "modules"))


def test_bert_encoder(modules: tuple[dict[str, Any], Any]) -> None:
    manifest, arrays = modules
    part = LdmText({"vocab_size": 50, "dim": 48, "layers": 3, "max_length": 16, "words": False})
    state = {
        f"transformer.{key}": gw.golden_tensor(f"bert_encoder.{key}", shape)
        for key, shape in manifest["key_lists"]["bert_encoder"]
    }
    fill(part, bert_keys(part.config), state, "")
    unread = state.keys() - {key for entry in bert_keys(part.config).values() for key in entry.keys}
    assert unread and all(ignorable_conditioner_key(key) for key in unread)
    with torch.no_grad():
        for kind in ("", "_small"):
            rows = torch.from_numpy(arrays[f"bert_encoder.in0{kind}"]).long()
            close(manifest, arrays, f"bert_encoder.out{kind}", part.encoder(rows))


def test_spatial_rescaler(modules: tuple[dict[str, Any], Any]) -> None:
    manifest, arrays = modules
    part = Semantic({"n_classes": 7})
    state = {"channel_mapper.weight": gw.golden_tensor("spatial_rescaler.channel_mapper.weight", (3, 7, 1, 1))}
    fill(part, conditioner_keys("semantic", {"n_classes": 7}, "compvis"), state, "")
    with torch.no_grad():
        for kind in ("", "_small"):
            x = torch.from_numpy(arrays[f"spatial_rescaler.in0{kind}"])
            close(manifest, arrays, f"spatial_rescaler.out{kind}", part.rescale(x))


@pytest.mark.parametrize("method", ["nearest", "bicubic", "area"])
def test_spatial_rescaler_methods(modules: tuple[dict[str, Any], Any], method: str) -> None:
    manifest, arrays = modules
    part = Semantic({"n_classes": 7, "dim": None, "stages": 1, "method": method})
    x = torch.from_numpy(arrays["spatial_rescaler.in0"])
    close(manifest, arrays, f"spatial_rescaler_{method}.out", part.rescale(x))


# ---- conditioners of whole models, from their own yaml and checkpoint


def plan(name: str, full: bool = False) -> list[PlannedConditioner]:
    data = yaml.safe_load((GOLDENS / name / ("config_full.yaml" if full else "config.yaml")).read_text())
    params = data["model"]["params"]
    if "conditioner_config" in params:
        return conditioners_from_sgm(params["conditioner_config"])
    channels = params["first_stage_config"]["params"]["embed_dim"]
    return conditioners_from_compvis(params["cond_stage_config"], params, channels)


def model(name: str) -> tuple[dict[str, Any], Any, Any]:
    manifest, arrays = gw.load_model_dir(str(GOLDENS / name))
    [planned] = plan(name)
    part = ldmkit.get("conditioner", planned.spec["type"])(planned.spec["config"])
    if planned.layout:
        state = gw.build_state_dict(manifest, arrays)
        fill(part, planned.keymap(), state, "")
    return manifest, arrays, part


@pytest.mark.parametrize("name", ["ldm_text2img256", "ldm_layout2img_openimages256"])
def test_text_and_layout_models(name: str) -> None:
    manifest, arrays, part = model(name)
    rows = torch.from_numpy(arrays["cond.tokens"]).long()
    with torch.no_grad():
        close(manifest, arrays, "cond.c", part.encoder(rows))
        like = ldmkit.Tokens(torch.zeros(2, 1, 1))
        close(manifest, arrays, "cond.uc", part.null(like).value)
        if isinstance(part, LdmText):
            close(manifest, arrays, "cond.c", part(ids(arrays["cond.tokens"])).value)
        else:
            assert isinstance(part, LayoutTokens)
            assert part.tokens(Layout()) == ids(arrays["cond.uc_tokens"])[0]


def test_class_model() -> None:
    manifest, arrays, part = model("ldm_cin256_v2")
    assert isinstance(part, Label)
    with torch.no_grad():
        signal = part(list(map(int, arrays["cond.classes"])))
        close(manifest, arrays, "cond.c", signal.value)
        close(manifest, arrays, "cond.uc", part.null(signal).value)


def test_semantic_model() -> None:
    manifest, arrays, part = model("ldm_semantic_synthesis256")
    maps = [part.parse(row, "semantic") for row in arrays["cond.labels"]]
    with torch.no_grad():
        close(manifest, arrays, "cond.c", part(maps).value)


def test_super_resolution_model() -> None:
    manifest, arrays, part = model("ldm_bsr_sr")
    assert isinstance(part, ImagePlane)
    pictures = [part.parse(row, "image") for row in torch.from_numpy(arrays["cond.c"])]
    close(manifest, arrays, "cond.c", part(pictures).value)


@pytest.mark.parametrize(
    ("field", "reads"), [("original_size_as_tuple", "original"), ("target_size_as_tuple", "target")]
)
@pytest.mark.parametrize(("suffix", "width"), [("_emb", 32), ("_emb256", 256)])
def test_size_codes(field: str, reads: str, suffix: str, width: int) -> None:
    manifest, arrays = gw.load_model_dir(str(GOLDENS / "sdxl_base"))
    part = SizeCodes({"reads": [reads], "width": width})
    rows = [tuple(map(int, row)) for row in arrays[f"cond.{field}"]]
    inputs = [Sizes(**{"original": (1, 1), "target": (1, 1), reads: row}) for row in rows]
    close(manifest, arrays, f"cond.{field}{suffix}", part(inputs).value)


# ---- full-size key lists on the meta device


FULL = {
    "ldm_cin256_v2": "full_keys",
    "ldm_text2img256": "full_keys",
    "ldm_layout2img_openimages256": "full_keys",
    "ldm_semantic_synthesis256": "full_keys",
    "ldm_bsr_sr": "full_keys",
    "sd_v1": "full_cond_stage_keys",
    "controlnet_v15": "full_cond_stage_keys",
    "sdxl_base": "full_conditioner_keys",
}


@pytest.mark.parametrize("name", FULL)
def test_full_key_lists(name: str) -> None:
    manifest, _ = gw.load_model_dir(str(GOLDENS / name))
    heads = ("cond_stage_model.", "conditioner.")
    published = {k: tuple(shape) for k, shape in manifest[FULL[name]] if k.startswith(heads)}
    used: set[str] = set()
    for planned in plan(name, full=(GOLDENS / name / "config_full.yaml").is_file()):
        with torch.device("meta"):
            part = ldmkit.get("conditioner", planned.spec["type"])(planned.spec["config"])
        if not planned.layout:
            continue
        keymap = planned.keymap()
        shapes = {key: tuple(tensor.shape) for key, tensor in part.state_dict().items()}
        assert keymap.keys() == shapes.keys()
        for native, entry in keymap.items():
            made = entry.read(*(torch.empty(published[key], device="meta") for key in entry.keys))
            assert tuple(made.shape) == shapes[native], native
            used.update(entry.keys)
    left = {key for key in published if key not in used}
    assert not [key for key in left if ignorable_conditioner_key(key) is None]


def test_prefixes_are_not_lost() -> None:
    keymap = prefixed(bert_keys(LdmText.Config(layers=1)), foreign="cond_stage_model.")
    assert keymap["encoder.tokens.weight"].keys == ("cond_stage_model.transformer.token_emb.weight",)
