"""Cases of the bad-input table: values that look like what is wanted, and are taken for it elsewhere."""

from __future__ import annotations

import os
from collections import UserDict, deque
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import tiny_parts
import torch
from cases_calls import NAN, Case, Env, L, boxed, called, case, pictured, started
from hostile_values import FaultyList, FaultyMapping, FaultyRepr

import ldmkit

MASKED = np.ma.masked_array(np.zeros((8, 8, 3), np.uint8), mask=True)


def made(name: str, code: str, *words: str, kind: str, part: str, **config: Any) -> Case:
    """A sampler, grid or guidance built from values of other types."""
    return case(name, code, *words, act=lambda e: ldmkit.get(kind, part)(**config))


def conditions(e: Env) -> ldmkit.Conditioning:
    return e.pipe.conditioning(L, size=(8, 8))


def composed(e: Env, **more: Any) -> ldmkit.Pipeline:
    given = {"codec": e.pipe.codec, "denoiser": e.pipe.denoiser, "process": e.pipe.process}
    return ldmkit.Pipeline.of(**given, conditioners=e.pipe.conditioners, **more)


def saved_here(e: Env) -> Any:
    before = Path.cwd()
    (e.tmp / "here" / "below").mkdir(parents=True)
    os.chdir(e.tmp / "here" / "below")
    try:
        return e.pipe.save(e.tmp / "here")
    finally:
        os.chdir(before)


EXACT = [
    boxed("box of digits", "input.invalid", "layout[1].box[0]", "'0.1'", box=["0.1", "0.1", "0.5", "0.5"]),
    boxed("box with True", "input.invalid", "box[3]", "valid number", "True", box=[0, 0, 0.5, True]),
    boxed("box as a set", "input.invalid", "no order", box={0.1, 0.2, 0.5, 0.6}),
    boxed("box as a mapping", "input.invalid", "no order", box={0.1: 1, 0.2: 1, 0.5: 1, 0.6: 1}),
    boxed("box with a Decimal's NaN", "input.box-not-finite", "nan", box=[0.1, 0.1, Decimal("NaN"), 0.5]),
    boxed("box switch as a number", "input.invalid", "occluded", "valid boolean", occluded=1),
    boxed("box switch as a word", "input.invalid", "group_of", "'no'", group_of="no"),
    boxed("box size as text", "input.invalid", "size[0]", normalised=False, size=["100", "100"], box=[1, 1, 9, 9]),
    boxed("box size in fractions", "input.invalid", "size[0]", normalised=False, size=[100.5, 100], box=[1, 1, 9, 9]),
    boxed("box of no height", "input.box-empty", "no area", box=[0.2, 0.2, 0.6, 0.2]),
    boxed("box label of bytes", "input.label-type", "bytes", label=b"cat"),
    called("layout as a set of names", "input.invalid", "layout", inputs={"layout": {"cat"}}, pipe="scene"),
    called("null class by number", "input.null-class", "class 5", "0 to 4", "leave the input out", inputs={"label": 5}),
    called("null class by digits", "input.null-class", "class 5", inputs={"label": "5"}),
    called("null class as a negative", "input.null-class", "negative.label", negative={"label": 5}),
    called("null class in a batch", "input.null-class", "inputs[1].label", inputs=[L, {"label": 5}], seeds=0),
    called("label in digits of another script", "input.unknown-label", inputs={"label": "\u0663"}),
    called("label of bytes", "input.label-type", "bytes", inputs={"label": b"1"}),
    called("map with True among the labels", "input.picture-dtype", "True or False", pipe="scene", size=(2, 2),
           inputs={"semantic": [[True, 1], [1, 1]]}),
    called("token ids with True", "input.prompt-type", "values other than integers", pipe="text",
           inputs={"text": [True, 5]}),
    made("eta of True", "spec.invalid", "DDIM.eta", "True", kind="sampler", part="ddim", eta=True),
    made("eta of digits", "spec.invalid", "DDIM.eta", "'0.5'", kind="sampler", part="ddim", eta="0.5"),
    made("rounds in fractions", "spec.invalid", "Restart.rounds", kind="sampler", part="restart", rounds=2.0),
    made("grid as a set", "spec.invalid", "Explicit.values", "no order", kind="grid", part="explicit",
         values={2.0, 0.0}),
    made("grid of digits", "spec.invalid", "values[0]", kind="grid", part="explicit", values=["2", "0"]),
    made("guidance scale of digits", "spec.invalid", "CFG.scale", kind="guidance", part="cfg", scale="7.5"),
    made("interval as a set", "spec.invalid", "CFG.interval", kind="guidance", part="cfg", interval={0.1, 2.0}),
    called("grid of a deque with text", "spec.invalid", "values[0]", grid={"type": "explicit", "values": deque("ab")}),
    case("default steps of True", "spec.invalid", "defaults.steps", "True",
         act=lambda e: composed(e, defaults={"steps": True})),
    case("spec name of bytes", "spec.invalid", "PartSpec.type", "b'kl'", act=lambda e: ldmkit.PartSpec(type=b"kl")),
]  # fmt: skip

UNREADABLE = [
    called("inputs that fail when read", "input.unreadable", "inputs", "no item", inputs=FaultyMapping()),
    called("inputs whose list fails", "input.unreadable", "inputs", "no iteration", inputs=FaultyList([L])),
    called("seeds that fail when read", "input.unreadable", "seeds", "RuntimeError", seeds=FaultyList([1])),
    called("size that fails when read", "input.unreadable", "size", size=FaultyList([8, 8])),
    called("start that fails when read", "input.unreadable", "start", start=FaultyMapping()),
    called("sampler that fails when read", "input.unreadable", "sampler", sampler=FaultyMapping()),
    called("layout that fails when read", "input.unreadable", "layout", pipe="scene",
           inputs={"layout": FaultyList([1])}),
    called("label without a repr", "input.label-type", "FaultyRepr", inputs={"label": FaultyRepr()}),
    called("inputs named by what has no repr", "input.unknown-input", "FaultyRepr", inputs={FaultyRepr(): 1}),
    case("wiring that fails when read", "input.unreadable", "wiring",
         act=lambda e: composed(e, wiring=FaultyMapping())),
    case("defaults that fail when read", "spec.unreadable", "defaults",
         act=lambda e: composed(e, defaults=FaultyMapping())),
    case("scale that fails when read", "input.scale-type", "scale", "a list",
         act=lambda e: ldmkit.load_codec(e.class_folder, scale=FaultyMapping())),
]  # fmt: skip

FUNCTIONS = [
    case("view of a name", "input.names-type", "drop", "'label'", act=lambda e: conditions(e).view("label")),
    case("view of a mapping", "input.names-type", "drop", act=lambda e: conditions(e).view({"label": False})),
    case("view of numbers", "input.names-type", "[1]", act=lambda e: conditions(e).view([1])),
    case("view of a stranger", "compose.unknown-condition", "did you mean 'label'",
         act=lambda e: conditions(e).view(["lable"])),
    case("no views at all", "input.no-views", "one view or more", act=lambda e: conditions(e).batch([])),
    case("dropout beyond one", "input.rate-range", "rates.label", "[0, 1]",
         act=lambda e: conditions(e).dropout({"label": 1.5}, lambda _: torch.rand(1))),
    case("dropout of True", "input.rate-range", "True",
         act=lambda e: conditions(e).dropout({"label": True}, lambda _: torch.rand(1))),
    case("dropout of NaN", "input.rate-range", "nan",
         act=lambda e: conditions(e).dropout({"label": NAN}, lambda _: torch.rand(1))),
    case("dropout with one draw for all", "input.draws", "shape ()", "(1,)",
         act=lambda e: conditions(e).dropout({"label": 0.5}, lambda _: torch.rand(()))),
    case("dropout without a function", "input.callback-type", "uniform",
         act=lambda e: conditions(e).dropout({"label": 0.5}, 0.5)),
    case("noise at half an index", "input.noise-index", "0.5", "an integer",
         act=lambda _: ldmkit.Noise([0], (3,))(0.5)),
    case("noise of no purpose", "input.noise-index", "None", act=lambda _: ldmkit.Noise([0], (3,))(0, None)),
    case("noise of a text's shape", "input.noise-shape", "b'\\x03'", act=lambda _: ldmkit.Noise([0], b"\x03")),
    case("noise beyond all memory", "input.noise-shape", act=lambda _: ldmkit.Noise([0], (2**40, 2**40))),
    case("noise on no device", "input.device", "'gpu'", act=lambda _: ldmkit.Noise([0], (3,), "gpu")),
    case("taps as a list", "input.not-a-mapping", "taps", "port name -> tap",
         act=lambda e: ldmkit.attached(e.pipe.denoiser.ports, ["mid"]).__enter__()),
    case("overwrite as a word", "input.wrong-kind", "overwrite", "'no'",
         act=lambda e: e.pipe(L, steps=1).save(e.tmp / "a.png", overwrite="no")),
    case("wiring of another part", "compose.other-part", "type is 'image'", "'label'",
         act=lambda e: composed(e, wiring={"label": {"type": "image"}})),
    case("wiring that changes a config", "compose.other-part", "config", "slot, null, input",
         act=lambda e: composed(e, wiring={"label": {"config": {"dim": 9}}})),
    case("verify as a list", "input.verify", "fast, full, off",
         act=lambda e: ldmkit.load(e.class_folder, verify=["fast"])),
    case("mapped as a number", "input.wrong-kind", "mapped", "1", act=lambda e: ldmkit.load(e.class_folder, mapped=1)),
    case("path of nothing", "input.no-path", "the path is empty", act=lambda e: e.pipe.save("")),
    case("home of nobody", "input.no-path", "home directory", act=lambda e: e.pipe.save("~nobody-of-that-name/model")),
    case("save over the current folder", "input.folder-taken", "the current working directory", act=saved_here),
    pictured("picture array masked", "input.picture-masked", "192 of 192", "filled", make=lambda _: MASKED),
    started("mask array masked", "input.picture-masked", "start.mask", mask=lambda _: MASKED[..., 0]),
    called("inputs from a mapping of another kind", "input.unknown-input", "did you mean 'label'",
           inputs=UserDict(lable=1)),
    case("decode of a list", "input.latent-shape", "list", act=lambda e: e.kl.decode([[0.0]])),
    case("adapter under a number", "input.name-type", "5",
         act=lambda e: e.pipe.with_adapter(5, tiny_parts.unet(3), {})),
]  # fmt: skip

VALUES = [*EXACT, *UNREADABLE, *FUNCTIONS]
