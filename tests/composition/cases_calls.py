"""Cases of the bad-input table: arguments and inputs of a call, pictures, recipes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bad_files as bad
import numpy as np
import tiny_parts
import torch
from PIL import Image

import ldmkit

L = {"label": 1}
INF, NAN = math.inf, math.nan


@dataclass(frozen=True)
class Env:
    """What a case may use. Pipelines are shared: a case that poisons one builds its own."""

    tmp: Path
    pipe: ldmkit.Pipeline
    kl: ldmkit.Pipeline
    scene: ldmkit.Pipeline
    text: ldmkit.Pipeline
    class_folder: Path
    scene_folder: Path

    def folder(self, name: str = "class") -> Path:
        """A copy of a saved pipeline."""
        return bad.copied(self.class_folder if name == "class" else self.scene_folder, self.tmp)


@dataclass(frozen=True)
class Case:
    """`act` must raise an error of this code (one of them) whose one-line message holds all the words."""

    name: str
    code: str | tuple[str, ...]
    words: tuple[str, ...]
    act: Callable[[Env], Any]


def case(name: str, code: str | tuple[str, ...], *words: str, act: Callable[[Env], Any]) -> Case:
    return Case(name, code, words, act)


def called(name: str, code: str, *words: str, inputs: Any = L, pipe: str = "pipe", **options: Any) -> Case:
    """A call of a shared pipeline."""
    return Case(name, code, words, lambda e: getattr(e, pipe)(inputs, **{"steps": 2, **options}))


def started(name: str, code: str, *words: str, **start: Any) -> Case:
    """A call with a start; values may be functions of the folder."""

    def act(e: Env) -> Any:
        made = {key: value(e.tmp) if callable(value) else value for key, value in start.items()}
        return e.pipe(L, steps=4, start={"image": np.zeros((8, 8, 3), np.uint8), **made})

    return Case(name, code, words, act)


def boxed(name: str, code: str, *words: str, **box: Any) -> Case:
    """A layout of one good box and one bad one."""
    good = {"label": "cat", "box": [0.1, 0.1, 0.5, 0.5]}
    return called(name, code, *words, inputs={"layout": [good, {**good, **box}]}, pipe="scene")


ARGUMENTS = [
    called("steps zero", "input.steps-range", "0 steps", "1 <= steps", steps=0),
    called("steps negative", "input.steps-range", "-3 steps", steps=-3),
    called("steps huge", "input.steps-range", "10000", steps=10**12),
    called("steps bool", "input.steps-type", "True", steps=True),
    called("steps float", "input.steps-type", "2.0", steps=2.0),
    called("steps text", "input.steps-type", "'20'", steps="20"),
    called("steps beyond the table", "input.too-many-steps", "1001", "1000", steps=1001),
    called("seed negative", "input.seed-range", "seeds[0]", "2**64", seeds=-1),
    called("seed too large", "input.seed-range", "seeds[1]", "64 bits", seeds=[0, 2**64]),
    called("seed bool", "input.seed-type", "True", seeds=[True]),
    called("seed float", "input.seed-type", "1.5", seeds=[1.5]),
    called("seeds float", "input.seed-type", "seeds", seeds=1.5),
    called("seeds text", "input.seed-type", "'12'", seeds="12"),
    called("seeds None", "input.seed-type", "None", seeds=None),
    called("seeds none", "input.empty-batch", "seeds", seeds=[]),
    called("inputs none", "input.empty-batch", "inputs", inputs=[]),
    called("inputs None", "input.not-a-mapping", "NoneType", "inputs", inputs=None),
    called("inputs text", "input.not-a-mapping", "str", inputs="a house"),
    called("inputs of text", "input.not-a-mapping", "inputs[1]", inputs=[L, "label"]),
    called("batch mismatch", "input.batch-mismatch", "2 inputs", "3 seeds", inputs=[L, L], seeds=[1, 2, 3]),
    called("unknown input", "input.unknown-input", "'lable'", "did you mean 'label'", inputs={"lable": 1}),
    called("unknown input in a batch", "input.unknown-input", "inputs[1]", inputs=[L, {"text": "a"}], seeds=0),
    called("input name no text", "input.unknown-input", "5", inputs={5: 1}),
    called("negative unknown", "input.unknown-input", "negative", "'text'", negative={"text": "bad"}),
    called("negative list of words", "input.not-a-mapping", "negative[0]", "str", negative=["label"]),
    called("negatives too many", "input.batch-mismatch", "2 negatives for 3", negative=[L, L], seeds=[0, 1, 2]),
    called("negative value", "input.label-range", "negative.label", "class 9", negative={"label": 9}),
    called("size zero", "input.size-range", "size", "(0, 8)", size=(0, 8)),
    called("size negative", "input.size-range", "-8", size=-8),
    called("size huge", "input.size-range", "16384", size=(8, 10**10)),
    called("size beyond the machine", "input.too-much-work", "8x1000000000", size=(8, 10**9)),
    called("size absurd", "input.too-much-work", "16384x16384", "allow_large", size=16384),
    called("steps absurd", "input.too-much-work", "10000 steps", steps=10**9),
    called("seeds absurd", "input.too-much-work", "10000000 pictures", seeds=range(10**7)),
    called("seeds without end", "input.too-much-work", "4096", seeds=range(10**30)),
    called("large by a number", "input.wrong-kind", "allow_large", allow_large=1),
    called("size float", "input.size-type", "8.0", size=(8.0, 8)),
    called("size bool", "input.size-type", "True", size=True),
    called("size of three", "input.size-type", "(8, 8, 3)", size=(8, 8, 3)),
    called("size text", "input.size-type", "'8x8'", size="8x8"),
    called("sampler unknown", "plugin.unknown", "'eulr'", "did you mean 'euler'", sampler="eulr"),
    called("grid unknown", "plugin.unknown", "'karas'", "did you mean 'karras'", grid="karas"),
    called("guidance unknown", "plugin.unknown", "guidance", "'cgf'", guidance="cgf"),
    called("sampler of another kind", "input.strategy-type", "sampler", "ddim",
           sampler=ldmkit.get("guidance", "cfg")()),
    called("sampler number", "input.strategy-type", "sampler", "3", sampler=3),
    called("sampler option misspelt", "spec.unknown-key", "sampler.config.etta", "did you mean 'eta'",
           sampler={"type": "ddim", "config": {"etta": 1}}),
    called("sampler key misspelt", "spec.unknown-key", "sampler.config.confg", "known: eta",
           sampler={"type": "ddim", "confg": {}}),
    called("eta out of range", "spec.invalid", "sampler.config.eta", sampler={"type": "ddim", "config": {"eta": 2}}),
    called("eta NaN", "spec.invalid", "eta", "finite", sampler={"type": "ddim", "config": {"eta": NAN}}),
    called("grid without values", "spec.missing-key", "grid.config.values", grid="explicit"),
    called("grid rises", "input.grid-order", "decrease", grid={"type": "explicit", "config": {"values": [1, 2, 0]}}),
    called("grid of another length", "input.grid-length", "2 steps", steps=3,
           grid={"type": "explicit", "config": {"values": [2, 1, 0]}}),
    called("guidance NaN", "input.guidance-range", "nan", "finite", guidance=NAN),
    called("guidance infinite", "input.guidance-range", "inf", guidance=INF),
    called("guidance negative", "input.guidance-range", "-1", ">= 0", guidance=-1),
    called("guidance bool", "input.strategy-type", "True", guidance=True),
    called("guidance config NaN", "spec.invalid", "guidance.config.scale",
           guidance={"type": "cfg", "config": {"scale": NAN}}),
    called("guidance config negative", "spec.invalid", "guidance.config.scale", "greater than or equal to 0",
           guidance={"type": "cfg", "config": {"scale": -1}}),
    called("guidance config infinite", "spec.invalid", "scale", guidance={"type": "cfg", "config": {"scale": INF}}),
    called("scale a condition NaN", "input.guidance-range", "guidance.label", guidance={"label": NAN}),
    called("scale a condition negative", "input.guidance-range", "guidance.label", guidance={"label": -2.0}),
    called("scale a condition text", "input.strategy-type", "guidance", guidance={"label": "3"}),
    called("scale of no condition", "compose.unknown-condition", "'lable'", "did you mean 'label'",
           guidance={"lable": 3.0}),
    case("value with NaN", "spec.invalid", "CFG.scale", act=lambda e: ldmkit.get("guidance", "cfg")(scale=NAN)),
    case("value misspelt", "spec.unknown-key", "CFG.scael", "did you mean 'scale'",
         act=lambda e: ldmkit.get("guidance", "cfg")(scael=2)),
    started("strength zero", "input.invalid", "start.strength", "greater than 0", strength=0.0),
    started("strength above one", "input.invalid", "start.strength", strength=1.5),
    started("strength negative", "input.invalid", "start.strength", strength=-0.5),
    started("strength NaN", "input.invalid", "start.strength", strength=NAN),
    started("strength infinite", "input.invalid", "start.strength", strength=INF),
    started("strength bool", "input.invalid", "start.strength", strength=True),
    started("strength text", "input.invalid", "start.strength", strength="0.5"),
    started("strength too small to run", "input.strength-too-small", "start.strength", "0.25", strength=0.1),
    started("start misspelt", "input.unknown-key", "start.strenght", "did you mean 'strength'", strenght=0.5),
    case("start alone NaN", "input.invalid", "Start.strength",
         act=lambda e: ldmkit.Start(image=np.zeros((8, 8, 3), np.uint8), strength=NAN)),
    case("start without picture", "input.missing-key", "start.image", act=lambda e: e.pipe(L, start={"strength": 0.5})),
    started("mask of another size", "input.size-mismatch", "start.mask", "8x9", "8x8", mask=np.zeros((8, 9), np.uint8)),
    started("mask coloured", "input.picture-not-grey", "m.png", mask=lambda t: bad.png(t / "m.png")),
    started("mask NaN", "input.picture-not-finite", "start.mask", mask=np.full((8, 8), NAN, np.float32)),
    started("mask of levels 0 and 1", "input.picture-range", "start.mask", "1 of 255", mask=np.eye(8, dtype=np.uint8)),
    started("mask file of levels 0 and 1", "input.picture-range", "m.png", "1 of 255",
            mask=lambda t: _saved(t / "m.png")),
    started("mask out of range", "input.picture-range", "0", "2", mask=np.full((8, 8), 2.0, np.float32)),
    case("start of another size", "input.size-mismatch", "8x8", "16x16",
         act=lambda e: e.pipe(L, size=16, start={"image": np.zeros((8, 8, 3), np.uint8)})),
    case("no size anywhere", "input.size-missing", "size=(height, width)", act=lambda e: _sizeless()(L)),
    case("latents of other channels", "input.latent-shape", "[1, 3, 4, 4]", "(B, 2, h, w)",
         act=lambda e: e.kl.decode(torch.zeros(1, 3, 4, 4))),
    case("latents no tensor", "input.latent-shape", "list", act=lambda e: e.kl.decode([[0.0]])),
    case("crop beyond the picture", "input.size-mismatch", "16x16", "99",
         act=lambda e: e.kl.decode(torch.zeros(1, 2, 4, 4), (99, 16))),
    case("encode nothing", "input.picture-sizes", "none", act=lambda e: e.kl.encode([])),
    case("encode sizes differ", "input.picture-sizes", "8x8", "8x9",
         act=lambda e: e.kl.encode([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)])),
    case("codec size", "input.size-multiple", "15", "nearest",
         act=lambda e: e.kl.codec.encode(torch.zeros(1, 3, 15, 16))),
    case("wrong size alone", "compose.unknown-condition", "'text'",
         act=lambda e: e.pipe.conditioning(L, size=(8, 8)).view({"text"})),
]  # fmt: skip

INPUTS = [
    called("label too large", "input.label-range", "inputs.label", "class 6", "0 to 4", inputs={"label": 6}),
    called("label negative", "input.label-range", "class -1", inputs={"label": -1}),
    called("label bool", "input.label-type", "inputs.label", "bool", inputs={"label": True}),
    called("label float", "input.label-type", "float", inputs={"label": 1.5}),
    called("label name", "input.unknown-label", "'cat'", "0 to 4", inputs={"label": "cat"}),
    called("label in a batch", "input.label-range", "inputs[1].label", inputs=[L, {"label": 77}]),
    called("label None", "input.label-type", "NoneType", inputs={"label": None}),
    boxed("box inverted", "input.box-inverted", "inputs.layout[1].box", "x0 < x1", box=[0.5, 0.1, 0.2, 0.5]),
    boxed("box empty", "input.box-empty", "no area", box=[0.2, 0.2, 0.2, 0.5]),
    boxed("box out of range", "input.box-range", "[0, 1]", box=[0.5, 0.5, 1.2, 0.9]),
    boxed("box below zero", "input.box-range", "-0.1", box=[-0.1, 0.5, 0.2, 0.9]),
    boxed("box in pixels", "input.box-range", "normalised=false", box=[10, 20, 50, 60]),
    boxed("box NaN", "input.box-not-finite", "finite", box=[NAN, 0.1, 0.5, 0.5]),
    boxed("box infinite", "input.box-not-finite", "inf", box=[0.1, 0.1, INF, 0.5]),
    boxed("box of three", "input.missing-key", "inputs.layout[1].box[3]", box=[0.1, 0.1, 0.5]),
    boxed("box text", "input.invalid", "inputs.layout[1].box", box="everywhere"),
    boxed("box negative width", "input.box-inverted", "negative size", box=[0.1, 0.1, -0.2, 0.5], format="xywh"),
    boxed("box format", "input.invalid", "format", "yolo", format="yolo"),
    boxed("box pixels without size", "input.box-size", "size=[height, width]", normalised=False),
    boxed("box size zero", "input.box-size", "(0, 8)", normalised=False, size=[0, 8]),
    boxed("box label unknown", "input.unknown-label", "[1].label", "'dgo'", "did you mean 'dog'", label="dgo"),
    boxed("box label out of range", "input.label-range", "class 4", label=4),
    boxed("box key misspelt", "input.unknown-key", "'lable'", "did you mean 'label'", lable="cat"),
    called("box without label", "input.missing-key", "inputs.layout[0].label", pipe="scene",
           inputs={"layout": [{"box": [0, 0, 1, 1]}]}),
    called("too many boxes", "input.too-many-boxes", "4 objects", "at most 3", pipe="scene",
           inputs={"layout": [{"label": 0, "box": [0, 0, 1, 1]}] * 4}),
    called("layout text", "input.invalid", "inputs.layout", pipe="scene", inputs={"layout": "a cat"}),
    called("layout crop", "input.layout-crop", "crop", pipe="scene",
           inputs={"layout": {"objects": [], "crop": [0, 0, 0.5, 0.5]}}),
    called("map label out of range", "input.label-range", "label 9", "64 pixels", "0 to 4", pipe="scene",
           inputs={"semantic": np.full((8, 8), 9)}),
    called("map negative", "input.picture-range", "-1", pipe="scene", inputs={"semantic": np.full((8, 8), -1)}),
    called("map of floats", "input.picture-dtype", "float64", pipe="scene", inputs={"semantic": np.zeros((8, 8))}),
    called("map of three axes", "input.picture-shape", "(8, 8, 3)", pipe="scene",
           inputs={"semantic": np.zeros((8, 8, 3), np.int64)}),
    called("map ragged", ("input.picture-shape", "input.picture-dtype"), pipe="scene",
           inputs={"semantic": [[0, 1], [0]]}),
    called("map and size disagree", "input.size-mismatch", "8x8", "16x16", pipe="scene", size=16,
           inputs={"semantic": np.zeros((8, 8), np.int64)}),
    called("maps of two sizes", "input.picture-sizes", "8 x 8", "8 x 9", pipe="scene",
           inputs=[{"semantic": np.zeros((8, 8), np.int64)}, {"semantic": np.zeros((8, 9), np.int64)}]),
    case("map coloured", "input.picture-not-labels", "RGB", "map.png",
         act=lambda e: e.scene({"semantic": bad.png(e.tmp / "map.png")})),
    called("prompt NUL", "input.prompt-nul", "inputs.text", "character 1", pipe="text", inputs={"text": "a\0b"}),
    called("prompt absurdly long", "input.prompt-too-long", "1000001", pipe="text", inputs={"text": "a" * 1_000_001}),
    called("prompt surrogate", "input.prompt-unicode", "surrogate", pipe="text", inputs={"text": "a\ud800"}),
    called("prompt number", "input.prompt-type", "int", pipe="text", inputs={"text": 7}),
    called("prompt None", "input.prompt-type", "NoneType", pipe="text", inputs={"text": None}),
    called("token ids none", "input.token-count", "0 token ids", pipe="text", inputs={"text": []}),
    called("token ids too many", "input.token-count", "9 token ids", "1 to 8", pipe="text", inputs={"text": [1] * 9}),
    called("token id unknown", "input.token-range", "token id 99", pipe="text", inputs={"text": [1, 99]}),
    called("token id negative", "input.token-range", "-1", pipe="text", inputs={"text": [-1]}),
]  # fmt: skip


def _saved(path: Path) -> Path:
    """A grey file whose levels are 0 and 1."""
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(path)
    return path


def _sizeless() -> ldmkit.Pipeline:
    pipe = tiny_parts.class_pipeline()
    parts = {"codec": pipe.codec, "denoiser": pipe.denoiser, "process": pipe.process}
    return ldmkit.Pipeline.of(**parts, conditioners=pipe.conditioners)


def pictured(name: str, code: str, *words: str, make: Callable[[Path], Any]) -> Case:
    """A start picture that cannot be used."""
    return Case(name, code, words, lambda e: e.pipe(L, steps=2, start={"image": make(e.tmp)}))


PICTURES = [
    pictured("picture missing", "input.picture-missing", "no.png", make=lambda t: t / "no.png"),
    pictured("picture folder", "input.picture-unreadable", make=lambda t: t),
    pictured("picture alpha", "input.picture-alpha", "a.png", "composite", make=lambda t: bad.png(t / "a.png", "RGBA")),
    pictured("picture grey alpha", "input.picture-alpha", make=lambda t: bad.png(t / "a.png", "LA")),
    pictured("picture CMYK", "input.picture-cmyk", "CMYK", "RGB", make=lambda t: bad.png(t / "a.jpg", "CMYK")),
    pictured("picture 16 bit", "input.picture-depth", "8 bits", make=lambda t: bad.grey16(t / "a.png")),
    pictured("picture bomb", "input.picture-too-large", "pixels", make=lambda t: bad.bomb(t / "a.png")),
    pictured("picture truncated", "input.picture-truncated", "a.png", make=lambda t: bad.truncated(t / "a.png")),
    pictured("picture empty file", "input.picture-unreadable", make=lambda t: _written(t / "a.png", b"")),
    pictured("picture text file", "input.picture-unreadable", "PNG", make=lambda t: _written(t / "a.png", b"hello")),
    pictured("picture SVG", "input.picture-unreadable", make=lambda t: _written(t / "a.svg", b"<svg/>")),
    pictured("picture NUL path", "input.picture-unreadable", make=lambda t: "a\0.png"),
    pictured("picture endless path", "input.picture-unreadable", make=lambda t: "a" * 5000),
    pictured("picture number", "input.picture-type", "int", make=lambda t: 3),
    pictured("picture NaN", "input.picture-not-finite", "start.image", make=lambda t: torch.full((3, 8, 8), NAN)),
    pictured("picture out of range", "input.picture-range", "[-1, 1]", make=lambda t: torch.full((3, 8, 8), 2.0)),
    pictured("picture of levels 0 and 1", "input.picture-range", "start.image", "1 of 255",
             make=lambda t: np.stack([np.eye(8, dtype=np.uint8)] * 3, axis=-1)),
    pictured("picture integer tensor", "input.picture-dtype", "int64",
             make=lambda t: torch.zeros(3, 8, 8, dtype=torch.long)),
    pictured("picture of two axes", "input.picture-shape", "(8, 8)", make=lambda t: torch.zeros(8, 8)),
    pictured("picture of no pixels", "input.picture-shape", make=lambda t: torch.zeros(3, 0, 8)),
    pictured("picture animated", "input.picture-animated", "2 frames", make=lambda t: _animated(t / "a.gif")),
    pictured("picture bad data URI", "input.picture-uri", "base64", make=lambda t: "data:image/png;base64,@@@"),
    pictured("picture URI without base64", "input.picture-uri", make=lambda t: "data:text/plain,hello"),
]  # fmt: skip


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _animated(path: Path) -> Path:
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path


def recipe_case(name: str, code: str, *words: str, change: Callable[[dict[str, Any]], Any]) -> Case:
    """Replay of a recipe that was tampered with."""
    from ldmkit.replaying import replay
    from ldmkit.run.recipe import check_recipe

    def act(e: Env) -> Any:
        recipe = json.loads(json.dumps(e.pipe(L, steps=2).recipes[0]))
        change(recipe)
        return replay(e.pipe, check_recipe(recipe, "a.png"))

    return Case(name, code, words, act)


def _by_picture(e: Env) -> Any:
    from ldmkit.replaying import replay

    towards = ldmkit.get("guidance", "image")(target=torch.zeros(1, 3, 8, 8))
    return replay(e.pipe, e.pipe(L, steps=2, guidance=towards).recipes[0])


RECIPES = [
    recipe_case("recipe of another model", "source.other-model", "recipe.spec", "0123",
                change=lambda r: r.update(spec="0123")),
    recipe_case("recipe without seed", "source.no-recipe", "'seed'", change=lambda r: r.pop("seed")),
    recipe_case("recipe of a newer version", "source.newer-version", "version 99",
                change=lambda r: r.update(recipe=99)),
    recipe_case("recipe with a bad seed", "input.seed-range", "-4", change=lambda r: r.update(seed=-4)),
    recipe_case("recipe with bad steps", "input.steps-range", change=lambda r: r.update(steps=0)),
    recipe_case("recipe with a bad size", "input.size-type", change=lambda r: r.update(size=["8", 8])),
    recipe_case("recipe with a lost sampler", "source.not-replayable", "sampler",
                change=lambda r: r["sampler"].update(config=None)),
    case("recipe of a guidance by a picture", "source.not-replayable", "guidance", act=lambda e: _by_picture(e)),
    recipe_case("recipe with an unknown sampler", "plugin.unknown", "'magic'",
                change=lambda r: r["sampler"].update(type="magic")),
    recipe_case("recipe with unknown inputs", "input.unknown-input", "'text'",
                change=lambda r: r["inputs"].update(text="a")),
]  # fmt: skip

CALLS = [*ARGUMENTS, *INPUTS, *PICTURES, *RECIPES]
