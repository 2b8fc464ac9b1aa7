"""Every argument of the public functions, and which of `hostile_values` it takes; all others it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tiny_parts
import torch
from cases_calls import Env

import ldmkit
from ldmkit.files.pictures import read_label_map, read_mask, read_picture
from ldmkit.loading import pipeline_of
from ldmkit.models.reading import open_source
from ldmkit.run.recipe import read_recipe

A_FLOAT = "5|1.5|fraction|int scalar|number tensor"
SCALES = "5|1.5|-0.0|1e-320|int scalar|number tensor"
DICTS = "dict|dict of number|dict of faulty|type without repr|config without repr"
NOTHING = "list|empty array|no items tensor tensor|no rows tensor"
PICTURES = "backwards|other endian|long doubles|picture|Lab|float8 tensor|doubles tensor|with gradient tensor"

L = {"label": 1}
LEVELS = np.zeros((8, 8, 3), np.uint8)
BOX = {"label": "cat", "box": [0.1, 0.1, 0.5, 0.5]}


@dataclass(frozen=True)
class Argument:
    """`act` puts the value where the argument is; `takes`: names of the values that are fine there."""

    name: str
    takes: frozenset[str]
    act: Callable[[Env, Any], Any]


def argument(name: str, takes: str, act: Callable[[Env, Any], Any]) -> Argument:
    """`takes` is written with | between the names."""
    return Argument(name, frozenset(takes.split("|")) - {""}, act)


def option(name: str, takes: str) -> Argument:
    """An option of a call."""
    return argument(name, takes, lambda e, v: e.pipe(L, **{"steps": 2, name: v}))


def started(name: str, takes: str) -> Argument:
    """A field of a start."""
    return argument(f"start.{name}", takes, lambda e, v: e.pipe(L, steps=2, start={"image": LEVELS, name: v}))


def boxed(name: str, takes: str) -> Argument:
    """A field of a box."""
    return argument(f"box.{name}", takes, lambda e, v: e.scene({"layout": [{**BOX, name: v}]}, steps=2))


def strategy(kind: str, name: str, field: str, takes: str, **others: Any) -> Argument:
    """A field of a sampler, grid or guidance in a call."""
    steps = {} if kind == "grid" else {"steps": 2}
    return argument(f"{kind}.{name}.{field}", takes,
                    lambda e, v: e.pipe(L, **steps, **{kind: {"type": name, **others, field: v}}))  # fmt: skip


def composed(field: str, takes: str) -> Argument:
    """An argument of `Pipeline.of`."""

    def act(e: Env, v: Any) -> Any:
        good = {"codec": e.pipe.codec, "denoiser": e.pipe.denoiser, "process": e.pipe.process}
        return ldmkit.Pipeline.of(**{**good, "conditioners": e.pipe.conditioners, field: v})

    return argument(f"of.{field}", takes, act)


def loaded(name: str, field: str, takes: str) -> Argument:
    """An argument of one of the loading functions; `source` is the first."""

    def act(e: Env, v: Any) -> Any:
        load = getattr(ldmkit, name)
        return load(v) if field == "source" else load(e.class_folder, **{field: v})

    return argument(f"{name}.{field}", takes, act)


CALLS = [
    argument("inputs", "dict", lambda e, v: e.pipe(v, steps=2)),
    argument("inputs.label", "digits|int scalar", lambda e, v: e.pipe({"label": v}, steps=2)),
    argument("negative.label", "digits|int scalar", lambda e, v: e.pipe(L, steps=2, negative={"label": v})),
    argument("seeds[]", "5|int scalar", lambda e, v: e.pipe(L, steps=2, seeds=[v])),
    argument("size[]", "5|int scalar", lambda e, v: e.pipe(L, steps=2, size=(8, v))),
    argument("scale of a condition", SCALES, lambda e, v: e.pipe(L, steps=2, guidance={"label": v})),
    option("negative", "None|dict"),
    option("seeds", "5|range|int scalar"),
    option("size", "None|5|range|int scalar"),
    option("steps", "None|5|int scalar"),
    option("start", f"None|{PICTURES}"),
    option("sampler", "None"),
    option("grid", "None"),
    option("guidance", f"None|{SCALES}"),
    option("propose", "True"),
    option("allow_large", "True"),
    option("on_step", "None|function"),
    started("image", PICTURES),
    started("strength", "number tensor"),
    started("mask", "None|bools|picture|list of None"),
    argument("stream", "dict", lambda e, v: list(e.pipe.stream(v, steps=2))),
    argument("prepare", "dict", lambda e, v: e.pipe.prepare(v, steps=2)),
    argument("run", "", lambda e, v: e.pipe.run(v)),
    argument("run.on_step", "None|function", lambda e, v: e.pipe.run(e.pipe.prepare(L, steps=2), v)),
    argument("finish.prepared", "", lambda e, v: e.pipe.finish(v, v)),
    argument("finish.last", "", lambda e, v: e.pipe.finish(e.pipe.prepare(L, steps=2), v)),
]

STRATEGIES = [
    strategy("sampler", "ddim", "eta", "-0.0|1e-320|fraction|number tensor"),
    strategy("sampler", "ddim", "config", "dict"),
    strategy("sampler", "euler", "type", ""),
    strategy("sampler", "churn", "churn", f"{SCALES}|1e308|2**70|fraction"),
    strategy("grid", "explicit", "values", "list of numbers|deque|range"),
    strategy("grid", "karras", "rho", A_FLOAT),
    strategy("grid", "karras", "smallest", f"None|{A_FLOAT}"),
    strategy("grid", "karras", "largest", f"None|{A_FLOAT}"),
    strategy("guidance", "cfg", "scale", f"{SCALES}|fraction"),
    strategy("guidance", "cfg", "interval", "None", scale=2.0),
    strategy("guidance", "per-condition", "scales", f"dict|{NOTHING}"),
    argument("grid[0]", A_FLOAT, lambda e, v: e.pipe(L, grid=[v, 0])),
    argument("grid[1]", "1.5|-0.0|fraction|number tensor", lambda e, v: e.pipe(L, grid=[2.0, v])),
]

CONDITIONS = [
    argument("layout", "dict|list", lambda e, v: e.scene({"layout": v}, steps=2)),
    argument("layout[]", "", lambda e, v: e.scene({"layout": [v]}, steps=2)),
    argument("semantic", "32 bits", lambda e, v: e.scene({"semantic": v}, steps=2)),
    argument("semantic[][]", "int scalar", lambda e, v: e.scene({"semantic": [[v, 1], [1, 1]]}, steps=2, size=(2, 2))),
    argument("text", "empty", lambda e, v: e.text({"text": v}, steps=2)),
    argument("text[]", "5|int scalar", lambda e, v: e.text({"text": [v]}, steps=2)),
    argument(
        "box[3]",
        "fraction|number tensor",
        lambda e, v: e.scene({"layout": [{**BOX, "box": [0.1, 0.1, 0.5, v]}]}, steps=2),
    ),
    boxed("label", "digits|int scalar"),
    boxed("box", ""),
    boxed("format", ""),
    boxed("normalised", "True|truth tensor"),
    boxed("size", "None"),
    argument("conditioning.inputs", "dict", lambda e, v: e.pipe.conditioning(v, size=(8, 8))),
    argument("conditioning.size", "5|range|int scalar", lambda e, v: e.pipe.conditioning(L, size=v)),
    argument("conditioning.negative", "None|dict", lambda e, v: e.pipe.conditioning(L, size=(8, 8), negative=v)),
    argument("conditioning.grad", "True", lambda e, v: e.pipe.conditioning(L, size=(8, 8), grad=v)),
    argument("view", NOTHING, lambda e, v: _conditions(e).view(v)),
    argument("batch", "", lambda e, v: _conditions(e).batch(v)),
    argument("batch[]", NOTHING, lambda e, v: _conditions(e).batch([v])),
    argument("dropout", "None|dict", lambda e, v: _conditions(e).dropout(v, lambda _: torch.rand(1))),
    argument(
        "dropout.rate",
        "-0.0|1e-320|number tensor",
        lambda e, v: _conditions(e).dropout({"label": v}, lambda _: torch.rand(1)),
    ),
    argument("dropout.uniform()", "", lambda e, v: _conditions(e).dropout({"label": 0.5}, lambda _: v)),
]

PARTS = [
    argument("decode", "", lambda e, v: e.kl.decode(v)),
    argument("decode.size", "None|5|range|int scalar", lambda e, v: e.kl.decode(torch.zeros(1, 2, 4, 4), v)),
    argument("encode", PICTURES, lambda e, v: e.kl.encode(v)),
    argument("encode[]", PICTURES, lambda e, v: e.kl.encode([v])),
    argument("encode.allow_large", "True", lambda e, v: e.kl.encode(torch.zeros(1, 3, 16, 16), allow_large=v)),
    argument("decode.allow_large", "True", lambda e, v: e.kl.decode(torch.zeros(1, 2, 4, 4), allow_large=v)),
    argument("encode.noise", "None|large tensor", lambda e, v: e.kl.encode(torch.zeros(1, 3, 16, 16), v)),
    argument("to", "None", lambda _, v: tiny_parts.class_pipeline().to(v)),
    argument("to.dtype", "None", lambda _, v: tiny_parts.class_pipeline().to("cpu", v)),
    argument("planned", "", lambda e, v: e.pipe.planned(v)),
    argument("tuned", "", lambda e, v: e.pipe.tuned(v)),
    argument("with_adapter.name", "", lambda e, v: e.pipe.with_adapter(v, v, {})),
    argument("with_adapter.conditioners", "", lambda e, v: e.pipe.with_adapter("a", v, v)),
    argument("attached.ports", f"None|{DICTS}", lambda _, v: ldmkit.attached(v, {}).__enter__()),
    argument("attached.taps", "None|dict", lambda e, v: ldmkit.attached(e.pipe.denoiser.ports, v).__enter__()),
    argument("noise.seeds", "range", lambda _, v: ldmkit.Noise(v, (3, 8, 8))(0)),
    argument("noise.shape", "list|range|empty array|no items tensor tensor", lambda _, v: ldmkit.Noise([0], v)(0)),
    argument("noise.device", "None|no device tensor", lambda _, v: ldmkit.Noise([0], (3, 8, 8), v)(0)),
    argument("noise()", "-1|5|2**70|10**400|int scalar", lambda _, v: ldmkit.Noise([0], (3, 8, 8))(v)),
    argument(
        "noise(purpose)",
        "empty|NUL|word|digits|arabic digit|surrogate|escape|long|device tensor",
        lambda _, v: ldmkit.Noise([0], (3, 8, 8))(0, v),
    ),
    composed("codec", ""),
    composed("denoiser", ""),
    composed("process", ""),
    composed("conditioners", ""),
    composed("adapters", "None|dict"),
    composed("wiring", "None|dict"),
    composed("defaults", "None|dict"),
    argument("of.conditioners.label", "", lambda e, v: _of(e, conditioners={"label": v})),
    argument(
        "of.wiring.label", "None|dict", lambda e, v: _of(e, conditioners=e.pipe.conditioners, wiring={"label": v})
    ),
    argument("of.defaults.steps", "", lambda e, v: _of(e, defaults={"steps": v})),
    argument("of.defaults.size", "", lambda e, v: _of(e, defaults={"size": v})),
]

FILES = [
    loaded("load", "source", ""),
    loaded("load", "config", "None"),
    loaded("load", "device", "None"),
    loaded("load", "dtype", "None"),
    loaded("load", "ema", "None"),
    loaded("load", "variant", "None"),
    loaded("load", "verify", ""),
    loaded("load", "mapped", "True"),
    loaded("load_codec", "source", ""),
    loaded("load_codec", "scale", "None"),
    loaded("load_codec", "shift", "None"),
    loaded("load_codec", "device", "None"),
    loaded("load_adapter", "source", ""),
    loaded("load_adapter", "name", ""),
    loaded("load_classifier", "source", ""),
    argument("save", "word|digits|arabic digit|escape|device tensor", lambda e, v: e.pipe.save(v)),
    argument("save.store", "None", lambda e, v: e.pipe.save("stored", store=v)),
    argument("Output.save", "", lambda e, v: e.pipe(L, steps=1).save(v)),
    argument("Output.save.overwrite", "True", lambda e, v: e.pipe(L, steps=1).save("out.png", overwrite=v)),
    argument("read_recipe", "", lambda _, v: read_recipe(v)),
    argument("read_picture", PICTURES, lambda _, v: read_picture(v)),
    argument("read_mask", "bools|picture", lambda _, v: read_mask(v)),
    argument("read_label_map", "32 bits", lambda _, v: read_label_map(v)),
    argument("open_source", "", lambda _, v: open_source(v)),
    argument("pipeline_of", "", lambda _, v: pipeline_of(v)),
    argument("get.kind", "", lambda _, v: ldmkit.get(v, "ddim")),
    argument("get.name", "", lambda _, v: ldmkit.get("sampler", v)),
    argument("components", "", lambda _, v: ldmkit.components(v)),
    argument("PipelineSpec", "", lambda _, v: ldmkit.PipelineSpec.of(v)),
    argument("PartSpec", "", lambda _, v: ldmkit.PartSpec.of(v)),
    argument("PartSpec.config", DICTS, lambda _, v: ldmkit.PartSpec(type="a", config=v)),
]

ARGUMENTS = [*CALLS, *STRATEGIES, *CONDITIONS, *PARTS, *FILES]


def _conditions(e: Env) -> ldmkit.Conditioning:
    return e.pipe.conditioning(L, size=(8, 8))


def _of(e: Env, **more: Any) -> ldmkit.Pipeline:
    return ldmkit.Pipeline.of(**{"codec": e.pipe.codec, "denoiser": e.pipe.denoiser, "process": e.pipe.process, **more})
