"""What each conditioner does beyond the contract that `ldmkit.testing` checks: refusals by code, and behaviour.

Tolerance: 1e-5 absolute where sums may run in another order (float32).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_parts
import torch
from ldmkit_conditioners.layout import Layout
from ldmkit_conditioners.layout_boxes import LayoutBoxes
from ldmkit_conditioners.layout_tokens import LayoutTokens
from torch import Tensor

import ldmkit
from ldmkit import CompositionError, InputError, SourceError, SpecError
from ldmkit.contracts.codec import Codec
from ldmkit.contracts.conditioner import Conditioner

ATOL = 1e-5


LAYOUT = {"n_classes": 9, "max_objects": 3, "n_tokens": 256, "dim": 16, "layers": 1, "heads": 2, "head_dim": 4}
PICTURE = torch.linspace(-1, 1, 3 * 8 * 8).view(3, 8, 8)
BOX = {"label": 1, "box": [0.1, 0.2, 0.5, 0.9]}


class Halving(Codec):
    """A linear codec with weights of its own: mean pooling by 2, then a scale."""

    channels = 3
    factor = 2

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.gain = torch.nn.Parameter(torch.tensor(2.0))

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        return torch.nn.functional.avg_pool2d(images, 2) * self.gain

    def decode(self, latents: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(latents / self.gain, scale_factor=2.0)

    def raw(self, latents: Tensor) -> Tensor:
        return latents / self.gain


def build(type_: str) -> Conditioner:
    """The first of the class's own examples."""
    torch.manual_seed(0)
    cls = ldmkit.get("conditioner", type_)
    part: Conditioner = cls(cls.examples[0].config)
    return part.eval()


# ---- hostile inputs: (type, config changes, raw input, code, words)

NAN = float("nan")
HOSTILE: list[tuple[str, Any, str, str]] = [
    ("clip-text", "a\0b", "prompt-nul", "character 1"),
    ("clip-text", "\ud800", "prompt-unicode", "surrogate"),
    ("clip-text", "x" * 1_000_001, "prompt-too-long", "1000001"),
    ("clip-text", "a house", "no-vocabulary", "merges.txt"),
    ("clip-text", 5, "prompt-type", "int"),
    ("clip-text", None, "prompt-type", "NoneType"),
    ("clip-text", [1, "a"], "prompt-type", "integers"),
    ("clip-text", [True], "prompt-type", "integers"),
    ("clip-text", [], "token-count", "0 token"),
    ("clip-text", [1] * 10, "token-count", "1 to 9"),
    ("clip-text", [50], "token-range", "0 to 49"),
    ("clip-text", [-1], "token-range", "-1"),
    ("clip-pooled", [47, 3], "token-end", "48"),
    ("ldm-text", "a house", "no-vocabulary", "vocab.txt"),
    ("ldm-text", [1] * 8, "token-count", "1 to 7"),
    ("t5-text", "a house", "no-vocabulary", "spiece.model"),
    ("t5-text", [99], "token-range", "0 to 49"),
    ("label", 5, "label-range", "0 to 3"),
    ("label", -1, "label-range", "0 to 3"),
    ("label", "cow", "unknown-label", "cow"),
    ("label", "dgo", "unknown-label", "did you mean 'dog'"),
    ("label", 1.5, "label-type", "float"),
    ("label", True, "label-type", "bool"),
    ("layout-boxes", [{**BOX, "box": [0.5, 0.2, 0.1, 0.9]}], "box-inverted", "[0].box"),
    ("layout-boxes", [{**BOX, "box": [0.1, 0.9, 0.5, 0.2]}], "box-inverted", "xywh"),
    ("layout-boxes", [{**BOX, "box": [0.1, 0.2, 0.1, 0.9]}], "box-empty", "no area"),
    ("layout-boxes", [{**BOX, "box": [0.1, 0.2, 1.1, 0.9]}], "box-range", "pixel"),
    ("layout-boxes", [{**BOX, "box": [-0.1, 0.2, 0.5, 0.9]}], "box-range", "-0.1"),
    ("layout-boxes", [{**BOX, "box": [NAN, 0.2, 0.5, 0.9]}], "box-not-finite", "nan"),
    ("layout-boxes", [{**BOX, "box": [0.1, 0.2, float("inf"), 0.9]}], "box-not-finite", "inf"),
    ("layout-boxes", [{**BOX, "box": [0.1, 0.2, 0.5]}], "missing-key", "box[3]"),
    ("layout-boxes", [{**BOX, "box": [0.6, 0.6, 0.5, 0.5], "format": "xywh"}], "box-range", "1.1"),
    ("layout-boxes", [{**BOX, "box": [0.1, 0.1, -0.5, 0.5], "format": "cxcywh"}], "box-inverted", "negative"),
    ("layout-boxes", [{**BOX, "format": "yxyx"}], "invalid", "format"),
    ("layout-boxes", [{**BOX, "normalised": False}], "box-size", "size"),
    ("layout-boxes", [{**BOX, "size": [10, 10]}], "box-size", "normalised"),
    ("layout-boxes", [{**BOX, "box": [1, 2, 30, 9], "normalised": False, "size": [10, 20]}], "box-range", "1.5"),
    ("layout-boxes", [{**BOX, "colour": "red"}], "unknown-key", "colour"),
    ("layout-boxes", [{"box": [0, 0, 1, 1]}], "missing-key", "label"),
    ("layout-boxes", [{**BOX, "label": 9}], "label-range", "[0].label"),
    ("layout-boxes", [{**BOX, "label": "cat"}], "unknown-label", "no names"),
    ("layout-boxes", [BOX] * 101, "too-many-boxes", "at most 100"),
    ("layout-boxes", {"objects": [BOX], "crop": [0, 0, 1, 1]}, "layout-crop", "crops"),
    ("layout-boxes", "boxes", "invalid", "boxes"),
    ("layout-plane", [{**BOX, "label": 9}], "label-range", "[0].label"),
    ("layout-plane", [BOX] * 101, "too-many-boxes", "at most 100"),
    ("layout-plane", {"objects": [BOX], "crop": [0, 0, 1, 1]}, "layout-crop", "crops"),
    ("layout-tokens", [BOX] * 4, "too-many-boxes", "at most 3"),
    ("layout-tokens", {"objects": [BOX], "crop": [0.6, 0, 1, 1]}, "box-outside", "[0]"),
    ("layout-tokens", {"objects": [BOX], "crop": [0.6, 0, 0.5, 1]}, "box-inverted", "ends before"),
    ("layout-tokens", [{**BOX, "label": 9}], "label-range", "0 to 8"),
    ("semantic", [[0, 4]], "label-range", "label 4"),
    ("semantic", [[0, 254]], "label-range", "255 for none"),
    ("semantic", [[0, -1]], "picture-range", "negative"),
    ("semantic", [[0.5]], "picture-dtype", "integers"),
    ("semantic", [[0, 1], [0]], "picture-shape", "differ"),
    ("semantic", [0, 1], "picture-shape", "height"),
    ("image", "no-such-file.png", "picture-missing", "no-such-file.png"),
    ("image", torch.zeros(3, 4, 4) + 2, "picture-range", "2"),
    ("image", torch.full((3, 4, 4), NAN), "picture-not-finite", "NaN"),
    ("image", torch.zeros(1, 4, 4), "picture-shape", "(3, height, width)"),
    ("image", torch.zeros(3, 4, 4, dtype=torch.long), "picture-dtype", "int64"),
    ("image", 3, "picture-type", "int"),
    ("masked-image", {"image": PICTURE, "mask": torch.ones(4, 8)}, "mask-size", "(8, 8)"),
    ("masked-image", {"image": PICTURE, "mask": torch.ones(8, 8) * 2}, "picture-range", "[0, 1]"),
    ("masked-image", {"image": PICTURE}, "missing-key", "mask"),
    ("size-codes", {"original": [0, 4], "target": [4, 4]}, "invalid", "1 to"),
    ("size-codes", {"original": [4, 4]}, "missing-key", "target"),
    ("size-codes", {"original": [4, 4], "target": [4, 4], "aesthetic": NAN}, "invalid", "aesthetic"),
]


@pytest.mark.parametrize(("type_", "raw", "code", "words"), HOSTILE, ids=lambda value: str(value)[:24])
def test_hostile_inputs_are_refused(type_: str, raw: Any, code: str, words: str) -> None:
    part = build(type_)
    with pytest.raises(InputError) as caught:
        part.parse(raw, "inputs.it")
    assert caught.value.code == f"input.{code}"
    assert words in str(caught.value)


# ---- particular behaviour


def test_class_without_a_null() -> None:
    part = ldmkit.get("conditioner", "label")({"n_classes": 5, "dim": 8})
    assert not part.has_null
    with pytest.raises(CompositionError, match="null class"):
        part.null(part([1]))
    assert torch.equal(part([1]).value[0, 0], part.embedding.weight[1])


def test_pixel_boxes_and_formats_agree() -> None:
    part = build("layout-boxes")
    forms = [
        {"box": [0.25, 0.5, 0.75, 1.0]},
        {"box": [0.25, 0.5, 0.5, 0.5], "format": "xywh"},
        {"box": [0.5, 0.75, 0.5, 0.5], "format": "cxcywh"},
        {"box": [16, 16, 48, 32], "normalised": False, "size": [32, 64]},
    ]
    layouts = [part.parse([{"label": 1, **form}], "layout") for form in forms]
    with torch.no_grad():
        value = part(layouts).value
    assert all(torch.equal(value[0], row) for row in value)


def test_order_of_boxes_only_permutes_tokens() -> None:
    part = build("layout-boxes")
    boxes = [{"label": i, "box": [0.1 * i, 0.1, 0.1 * i + 0.1, 0.9]} for i in range(4)]
    with torch.no_grad():
        value, mask = part([part.parse(boxes, "layout"), part.parse(boxes[::-1], "layout")])
    assert bool(mask.all())
    assert torch.allclose(value[0], value[1].flip(0), atol=ATOL)


def test_empty_layout_is_the_null() -> None:
    part = build("layout-boxes")
    assert isinstance(part, LayoutBoxes)
    with torch.no_grad():
        part.empty.normal_()
        signal = part([part.parse([], "layout"), part.parse([BOX, BOX], "layout")])
        null = part.null(signal)
    assert torch.equal(signal.value[0], null.value[0]) and torch.equal(signal.mask[0], null.mask[0])
    assert null.mask.sum(1).tolist() == [1, 1]


def test_layout_tokens_truncate_as_the_original_does() -> None:
    part = ldmkit.get("conditioner", "layout-tokens")({**LAYOUT, "truncate": True})
    assert isinstance(part, LayoutTokens)
    boxes = [{**BOX, "label": i} for i in range(5)]
    assert part.tokens(part.parse(boxes, "layout")) == part.tokens(part.parse(boxes[:3], "layout"))
    outside = part.parse({"objects": boxes[:2], "crop": [0.6, 0, 1, 1]}, "layout")
    assert part.tokens(outside)[:9] == [255] * 9


def test_layout_tokens_round_trip_to_the_grid() -> None:
    part = ldmkit.get("conditioner", "layout-tokens")(LAYOUT)
    layout = part.parse([{"label": 3, "box": [0.21, 0.4, 0.8, 0.97], "inside": True}], "layout")
    [thing], crop = part.config.decode(part.tokens(layout))
    assert (thing.label, thing.bits, tuple(crop)) == (3, 8, (0, 0, 1, 1))
    assert max(abs(a - b) for a, b in zip(thing.rect.corners, (0.21, 0.4, 0.8, 0.97), strict=True)) <= 0.5 / 15
    with pytest.raises(InputError, match="11 tokens"):
        part.config.decode([0] * 4)
    assert part.tokens(Layout()) == [255] * 9 + [0, 255 - 255 % 16 + 15]


@pytest.mark.parametrize(
    ("order", "signed", "hole", "scaled"), [("latent-mask", True, -1, False), ("mask-latent", False, 0, True)]
)
def test_masked_image_channels(order: str, signed: bool, hole: float, scaled: bool) -> None:
    config = {"order": order, "signed": signed, "hole": hole, "scaled": scaled}
    part, codec = ldmkit.get("conditioner", "masked-image")(config), Halving()
    part.bind(codec)
    assert not list(part.parameters()) and not part.state_dict()
    mask = torch.zeros(8, 8)
    mask[:, 4:] = 1
    with torch.no_grad():
        plane = part([part.parse({"image": PICTURE, "mask": mask}, "it")]).value
        blanked = torch.cat([PICTURE[..., :4], torch.full((3, 8, 4), float(hole))], dim=-1)
        latents = codec.encode(blanked[None])
        latents = latents if scaled else codec.raw(latents)
    small = torch.tensor([0.0, 0, 1, 1]).expand(1, 1, 4, 4)
    small = small * 2 - 1 if signed else small
    wanted = [latents, small] if order == "latent-mask" else [small, latents]
    assert torch.allclose(plane, torch.cat(wanted, dim=1), atol=1e-6)


def test_masked_image_needs_a_codec_that_fits() -> None:
    part = ldmkit.get("conditioner", "masked-image")({"latent_channels": 4})
    with pytest.raises(CompositionError, match="3"):
        part.bind(Halving())
    item = part.parse({"image": PICTURE, "mask": torch.ones(8, 8)}, "it")
    with pytest.raises(CompositionError, match="bind"):
        part([item])
    fitting = ldmkit.get("conditioner", "masked-image")({})
    first = Halving()
    fitting.bind(first)
    fitting.bind(first)
    with pytest.raises(CompositionError, match="bound-elsewhere"):
        fitting.bind(Halving())
    odd = ldmkit.get("conditioner", "masked-image")({})
    odd.bind(Halving())
    plane = odd([odd.parse({"image": PICTURE[:, :7], "mask": torch.ones(7, 8)}, "it")]).value
    assert plane.shape[-2:] == (4, 4)
    assert (plane[:, -1] == 1).all(), "the padded row is as the edge"


def test_pictures_of_one_batch_have_one_size() -> None:
    part = ldmkit.get("conditioner", "image")({})
    with pytest.raises(InputError, match="4 x 8, 8 x 8"):
        part([PICTURE, PICTURE[:, :4]])


def test_hint_is_in_zero_one() -> None:
    part = ldmkit.get("conditioner", "hint")({})
    assert torch.allclose(part([PICTURE]).value[0], (PICTURE + 1) / 2)


def test_semantic_ignores_the_ignored() -> None:
    part = ldmkit.get("conditioner", "semantic")({"n_classes": 3, "dim": None, "stages": 0, "ignore": 9})
    plane = part([part.parse([[0, 9, 2]], "map")]).value
    assert plane[0, :, 0].T.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]
    with pytest.raises(SpecError, match="is a class"):
        ldmkit.get("conditioner", "semantic")({"n_classes": 3, "ignore": 2})


@pytest.mark.parametrize("config", [{"stages": 2}, {"stages": 1}, {"stages": 2, "multiplier": 0.3}, {"stages": 0}])
def test_semantic_example_makes_a_plane_of_the_latents(config: dict[str, Any]) -> None:
    part = ldmkit.get("conditioner", "semantic")({"n_classes": 3, "dim": None, **config})
    part.bind(Halving())
    for size, latents in (((32, 48), (16, 24)), ((30, 46), (15, 23))):
        assert tuple(part([part.example(size)]).value.shape[-2:]) == latents
    with pytest.raises(CompositionError, match="bound-elsewhere"):
        part.bind(ldmkit.get("codec", "identity")())


@pytest.mark.parametrize("centres", [True, False])
def test_a_label_that_no_token_can_hold_is_named(centres: bool) -> None:
    config = {"n_classes": 10, "n_tokens": 16, "dim": 8, "layers": 1, "heads": 1, "head_dim": 8, "max_objects": 4}
    part = ldmkit.get("conditioner", "layout-tokens")({**config, "centres": centres})
    plain = {"label": 1, "box": [0.1, 0.1, 0.5, 0.5], "format": "xywh"}
    layout = {"objects": [plain, plain, {**plain, "label": 9, "group_of": True}], "crop": [0, 0, 1, 1]}
    with pytest.raises(InputError) as caught:
        part.parse(layout, "layout")
    assert caught.value.code == "input.label-range" and caught.value.where == "layout[2]"


def test_sizes_default_to_the_run_and_stay_when_dropped() -> None:
    part = ldmkit.get("conditioner", "size-codes")({"reads": ["original", "crop", "aesthetic"], "width": 4})
    assert part.dim == 20
    default = part.default((64, 32))
    assert (default.original, default.crop, default.target) == ((64, 32), (0, 0), (64, 32))
    signal = part([default])
    low = part([default.model_copy(update={"aesthetic": 2.5})])
    assert torch.equal(part.null(signal).value, low.value) and not torch.equal(low.value, signal.value)
    plain = ldmkit.get("conditioner", "size-codes")({"width": 4})
    assert plain.null(signal) is signal


def test_pooled_refuses_another_tower() -> None:
    text = ldmkit.get("conditioner", "clip-text")(tiny_parts.CLIP)
    pooled = ldmkit.get("conditioner", "clip-pooled")({**tiny_parts.CLIP, "layers": 1})
    with pytest.raises(CompositionError, match="layers"):
        pooled.adopt(text)
    with pytest.raises(CompositionError, match="Label"):
        pooled.adopt(ldmkit.get("conditioner", "label")({}))


def test_pooled_shares_tower_and_vocabulary(tmp_path: Path) -> None:
    letters = [*"abcdefghij", *(c + "</w>" for c in "abcdefghij"), "ab", "ab</w>"]
    words = {word: i for i, word in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    (tmp_path / "vocab.json").write_text(json.dumps(words))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\na b</w>\n")
    config = {**tiny_parts.CLIP, "bos": words["<|startoftext|>"], "eos": words["<|endoftext|>"], "pad": 0}
    text = ldmkit.get("conditioner", "clip-text")(config)
    pooled = ldmkit.get("conditioner", "clip-pooled")(config)
    pooled.adopt(text)
    with pytest.raises(InputError, match="load_assets"):
        pooled.parse("ab c", "text")
    text.load_assets(tmp_path)
    ids = [config["bos"], words["ab</w>"], words["c</w>"], config["eos"]]
    assert torch.equal(pooled([pooled.parse("AB c", "text")]).value, pooled([ids]).value)
    folder = tmp_path / "saved"
    folder.mkdir()
    text.save_assets(folder)
    again = ldmkit.get("conditioner", "clip-text")(config)
    again.load_assets(folder)
    again.load_state_dict(text.state_dict())
    assert torch.equal(again(["ab c"]).value, text([ids]).value)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"vocab.json": "{"}, "vocab.json"),
        ({"vocab.json": "[]", "merges.txt": ""}, "not an object"),
        ({"vocab.json": '{"a": 0}'}, "no merges.txt"),
        ({"vocab.json": '{"a": 0}', "merges.txt": "#version\na b c\n"}, "merge 0 is not a pair"),
        ({"vocab.json": '{"a": 0}', "merges.txt": ""}, "startoftext"),
        ({"vocab.json": '{"<|startoftext|>": 0, "<|endoftext|>": 50}', "merges.txt": ""}, "id 50"),
        ({"vocab.json": '{"<|startoftext|>": 0, "<|endoftext|>": 1}', "merges.txt": "a b\n"}, "byte-pair"),
        ({"tokenizer.json": "{}"}, "not a tokenizer"),
        ({"tokenizer.json": b"\xff\xfe"}, "UTF-8"),
        ({"bpe_simple_vocab_16e6.txt.gz": "plain"}, "gzip"),
    ],
)
def test_damaged_vocabularies_are_refused(tmp_path: Path, files: dict[str, str | bytes], words: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    part = ldmkit.get("conditioner", "clip-text")(tiny_parts.CLIP)
    with pytest.raises(SourceError) as caught:
        part.load_assets(tmp_path)
    assert words in str(caught.value) and str(tmp_path) in str(caught.value)


def test_command_line_arguments(tmp_path: Path) -> None:
    prompt = ldmkit.get("conditioner", "clip-text").from_text
    assert prompt("[1, 2,3]") == [1, 2, 3]
    assert [prompt(t) for t in ("42", "[a cat]", "[]", "{}", "a.json")] == ["42", "[a cat]", "[]", "{}", "a.json"]
    assert ldmkit.get("conditioner", "semantic").from_text("7") == "7"
    assert ldmkit.get("conditioner", "image").from_text("[1].png") == "[1].png"
    assert ldmkit.get("conditioner", "label").from_text("7") == 7
    (tmp_path / "boxes.json").write_text(json.dumps([BOX]))
    assert ldmkit.get("conditioner", "layout-boxes").from_text(str(tmp_path / "boxes.json")) == [BOX]
