"""Cases of the bad-input table: saved pipelines, weights, specs, sources, and where things are written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bad_files as bad
import tiny_parts
import torch
from cases_calls import Case, Env, L, case

import ldmkit
from ldmkit.models.weights import open_safetensors
from ldmkit.run.recipe import read_recipe

FILE = "denoiser.safetensors"
DAMAGED = ("source.truncated", "source.json-invalid", "source.safetensors-invalid", "source.unknown-dtype",
           "source.duplicate-key", "weights.missing", "weights.unexpected", "weights.wrong-shape",
           "weights.wrong-dtype", "source.digest-differs")  # fmt: skip
"""What a flipped bit in a header may look like: never a model with other numbers in it."""


def weights(name: str, code: str | tuple[str, ...], *words: str, damage: Callable[[Path], Any]) -> Case:
    """Loading a folder whose denoiser file was damaged."""

    def act(e: Env) -> Any:
        folder = e.folder()
        damage(folder / FILE)
        return ldmkit.load(folder)

    return Case(name, code, words, act)


def flipped(position: int, bit: int) -> Case:
    """One bit of the file's start flipped."""
    return weights(f"bit {bit} of byte {position} flipped", DAMAGED, damage=bad.flip_bit(position, bit))


WEIGHTS = [
    weights("weights file missing", "weights.missing", "denoiser", "'conv_in.weight'", damage=Path.unlink),
    weights("weights file empty", "source.truncated", "0 bytes", damage=lambda p: p.write_bytes(b"")),
    weights("weights file a folder", "source.not-a-file", damage=lambda p: (p.unlink(), p.mkdir())),
    weights("tensor missing", "weights.missing", "1 tensor(s)", "'conv_in.bias'",
            damage=bad.edit_tensors(lambda t: t.pop("conv_in.bias"))),
    weights("tensor unexpected", "weights.unexpected", "'conv_in.extra'",
            damage=bad.edit_tensors(lambda t: t.update({"conv_in.extra": torch.zeros(1)}))),
    weights("tensor misnamed", "weights.missing", "'conv_in.bias'",
            damage=bad.edit_tensors(lambda t: t.update({"conv_in.bais": t.pop("conv_in.bias")}))),
    weights("tensor of another shape", "weights.wrong-shape", "'conv_in.bias'", "[3]", "[8]",
            damage=bad.edit_tensors(lambda t: t.update({"conv_in.bias": torch.zeros(3)}))),
    weights("tensor transposed", "weights.wrong-shape", "'conv_in.weight'",
            damage=bad.edit_tensors(lambda t: t.update({"conv_in.weight": t["conv_in.weight"].mT[:, :, :1].clone()}))),
    weights("tensor of integers", "weights.wrong-dtype", "'conv_in.bias'", "int64",
            damage=bad.edit_tensors(lambda t: t.update({"conv_in.bias": torch.zeros(8, dtype=torch.int64)}))),
    weights("tensor of bools", "weights.wrong-dtype", "bool",
            damage=bad.edit_tensors(lambda t: t.update({"conv_in.bias": torch.zeros(8, dtype=torch.bool)}))),
    weights("tensor of 8-bit floats", "weights.wrong-dtype", "float8", "bfloat16", damage=bad.edit_tensors(
        lambda t: t.update({"conv_in.bias": torch.zeros(8).to(torch.float8_e4m3fn)}))),
    weights("header key twice", "source.duplicate-key", "'conv_in.bias'", "duplicate",
            damage=bad.edit_header('"conv_in.weight"', '"conv_in.bias"')),
    weights("header dtype unknown", "source.safetensors-invalid", "damaged", damage=bad.edit_header('"F32"', '"F31"')),
    weights("header no object", "source.safetensors-invalid", "not a JSON object",
            damage=lambda p: bad.with_header(p, "[1, 2]", b"")),
    weights("header entry incomplete", "source.safetensors-invalid", "'a'",
            damage=lambda p: bad.with_header(p, '{"a": {"dtype": "F32"}}', b"")),
    weights("header entry no object", "source.safetensors-invalid", "'a'",
            damage=lambda p: bad.with_header(p, '{"a": 3}', b"")),
    weights("header not JSON", "source.json-invalid", damage=lambda p: bad.with_header(p, "{" * 40, b"")),
    weights("header nested absurdly", "source.json-invalid",
            damage=lambda p: bad.with_header(p, '{"a":' * 100_000, b"")),
    weights("header not UTF-8", "source.json-invalid", damage=lambda p: bad.with_header(p, b"{\xff\xfe}", b"")),
    weights("header with NaN", "source.json-invalid", "NaN",
            damage=lambda p: bad.with_header(p, '{"a": NaN}', b"")),
    weights("header longer than the file", "source.truncated", "claims",
            damage=lambda p: bad.with_header(p, "{}", b"", length=10_000_000)),
    weights("header of 2^63 bytes", "source.truncated", "9223372036854775808",
            damage=lambda p: bad.with_header(p, "{}", b"", length=2**63)),
    weights("header shape of negative size", "source.safetensors-invalid",
            damage=bad.edit_header('"shape":[8]', '"shape":[-8]')),
    weights("header shape of text", "source.safetensors-invalid",
            damage=bad.edit_header('"shape":[8]', '"shape":"8"')),
    weights("header offsets inverted", "source.safetensors-invalid",
            damage=bad.edit_header('"data_offsets":[0,', '"data_offsets":[999999,')),
    weights("data truncated", "source.truncated", "according to its header",
            damage=lambda p: p.write_bytes(p.read_bytes()[:-10])),
    weights("data oversized", "source.safetensors-invalid", damage=lambda p: p.write_bytes(p.read_bytes() + b"\0" * 9)),
    weights("seven bytes", "source.truncated", "7 bytes", damage=lambda p: p.write_bytes(b"\1" * 7)),
    weights("symlink out of the folder", "source.path-escapes", FILE, damage=lambda p: _moved_out(p)),
    weights("dangling symlink", "source.path-escapes",
            damage=lambda p: (p.unlink(), p.symlink_to("../../nowhere.safetensors"))),
    *(flipped(at, bit) for at, bit in ((2, 3), (5, 1), (8, 0), (9, 5), (12, 2), (40, 0), (75, 4), (120, 1))),
]  # fmt: skip


def _moved_out(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere.safetensors"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def spec(name: str, code: str | tuple[str, ...], *words: str, change: Callable[[dict[str, Any]], Any]) -> Case:
    """Composing a changed spec. The weights are gone: whatever is wrong must be found before they are read."""

    def act(e: Env) -> Any:
        folder = bad.edit_spec(e.folder("scene"), change)
        for file in folder.rglob("*.safetensors"):
            file.unlink()
        return ldmkit.load(folder)

    return Case(name, code, words, act)


def raw_spec(name: str, code: str, *words: str, text: str | bytes) -> Case:
    """A pipeline.json with any text in it."""

    def act(e: Env) -> Any:
        folder = e.folder()
        (folder / "pipeline.json").write_bytes(text.encode() if isinstance(text, str) else text)
        return ldmkit.load(folder)

    return Case(name, code, words, act)


def _label(**config: Any) -> Callable[[dict[str, Any]], None]:
    return lambda s: s["conditioners"]["label"]["config"].update(config)


SPECS = [
    spec("spec key unknown", "spec.unknown-key", "pipeline.json.denosier", "did you mean 'denoiser'",
         change=lambda s: s.update(denosier=s.pop("denoiser"))),
    spec("spec key of a part misspelt", "spec.unknown-key", "codec.tpye", "did you mean 'type'",
         change=lambda s: s["codec"].update(tpye="x")),
    spec("spec key of a conditioner misspelt", "spec.unknown-key", "conditioners.label.slto", "did you mean 'slot'",
         change=lambda s: s["conditioners"]["label"].update(slto="context")),
    spec("spec key of defaults misspelt", "spec.unknown-key", "defaults.stesp", "did you mean 'steps'",
         change=lambda s: s["defaults"].update(stesp=3)),
    spec("spec key of a default sampler misspelt", "spec.unknown-key", "sampler.confg", "did you mean 'config'",
         change=lambda s: s["defaults"]["sampler"].update(confg={})),
    spec("config key misspelt", "spec.unknown-key", "conditioners.label.config.n_clases", "did you mean 'n_classes'",
         change=_label(n_clases=3)),
    spec("config of a denoiser misspelt", "spec.unknown-key", "denoiser.config.width", "did you mean 'widths'",
         change=lambda s: s["denoiser"]["config"].update(width=3)),
    spec("config value of another type", "spec.invalid", "conditioners.label.config.n_classes", "'many'",
         change=_label(n_classes="many")),
    spec("config value out of range", "spec.invalid", "config.n_classes", "than or equal to 1",
         change=_label(n_classes=0)),
    spec("config values that disagree", "spec.invalid", "null_class 9", change=_label(null_class=9)),
    spec("config of huge dimensions", "spec.invalid", "config.n_classes", "less than or equal to",
         change=_label(n_classes=2**62)),
    spec("required part missing", "spec.missing-key", "pipeline.json.process", change=lambda s: s.pop("process")),
    spec("part type missing", "spec.missing-key", "codec.type", change=lambda s: s["codec"].pop("type")),
    spec("part type unknown", "plugin.unknown", "codec.type", "'identiy'", "did you mean 'identity'",
         change=lambda s: s["codec"].update(type="identiy", distribution=None)),
    spec("part of an absent distribution", "plugin.not-installed", "'lidar'", "ldmkit-lidar 2.1", "pip install",
         change=lambda s: s["conditioners"]["label"].update(type="lidar", distribution="ldmkit-lidar", version="2.1")),
    spec("part of another kind", "plugin.unknown", "no codec named 'unet'",
         change=lambda s: s["codec"].update(type="unet", distribution=None)),
    spec("process unknown", "plugin.unknown", "process", "'discreet'", "did you mean 'discrete'",
         change=lambda s: s["process"].update(type="discreet", distribution=None)),
    spec("process out of range", "spec.invalid", "process.config",
         change=lambda s: s["process"]["config"].update(steps=-1)),
    spec("spec of a newer version", "spec.newer-version", "version 9", "up to 1", change=lambda s: s.update(version=9)),
    spec("spec of another format", "spec.invalid", "format", change=lambda s: s.update(format="comfy")),
    spec("conditioner name impossible", "spec.name", "'../evil'",
         change=lambda s: s["conditioners"].update({"../evil": s["conditioners"].pop("label")})),
    spec("adapter name impossible", "spec.name", "'a/b'",
         change=lambda s: s["adapters"].update({"a/b": s["codec"]})),
    spec("default steps zero", "spec.invalid", "defaults.steps", change=lambda s: s["defaults"].update(steps=0)),
    spec("default size zero", "spec.invalid", "defaults.size", change=lambda s: s["defaults"].update(size=[0, 8])),
    spec("null unknown", "spec.invalid", "conditioners.label.null",
         change=lambda s: s["conditioners"]["label"].update(null="never")),
    spec("channels do not fit", "compose.channel-mismatch", "IdentityCodec has 4", "UNet takes 3",
         change=lambda s: s["codec"]["config"].update(channels=4)),
    spec("dims do not fit", "compose.dim-mismatch", "'label'", "dim 7", "'context'", "dim 8", change=_label(dim=7)),
    spec("plane does not fit", "compose.dim-mismatch", "'semantic'", "dim 5", "dim 6",
         change=lambda s: s["denoiser"]["config"].update(in_channels=9)),
    spec("slot unknown", "compose.unknown-slot", "'label'", "'contxt'", "context (tokens, dim 8)",
         change=lambda s: s["conditioners"]["label"].update(slot="contxt")),
    spec("slot of another kind", "compose.kind-mismatch", "'label' emits tokens", "takes plane",
         change=lambda s: s["conditioners"]["label"].update(slot="plane")),
    spec("no slot of the kind", "compose.no-slot", "'label' emits vector", "context", change=_label(emit="vector")),
    spec("slot crowded", "compose.crowded-slot", "'layout'", "'label'", "takes one",
         change=lambda s: s["denoiser"]["config"].update(context_join="only")),
    spec("required slot empty", "compose.empty-slot", "plane",
         change=lambda s: s["conditioners"].pop("semantic")),
    spec("shares with nobody", "compose.unknown-share", "'label'", "'lable'",
         change=lambda s: s["conditioners"]["label"].update(shares="lable")),
    spec("heads do not divide", "spec.heads", "denoiser.config", "3 heads",
         change=lambda s: s["denoiser"]["config"].update(heads=3)),
    spec("adapter unknown", "plugin.unknown", "adapters.control.type", "'contrlnet'",
         change=lambda s: s["adapters"].update(control={"type": "contrlnet"})),
    raw_spec("spec not JSON", "source.json-invalid", "pipeline.json", text="{oops"),
    raw_spec("spec with NaN", "source.json-invalid", "NaN", text='{"version": NaN}'),
    raw_spec("spec key twice", "source.duplicate-key", "'codec'", text='{"codec": {}, "codec": {}}'),
    raw_spec("spec a list", "spec.invalid", "object", text="[]"),
    raw_spec("spec not UTF-8", "source.json-invalid", text=b"\xff\xfe\x00{"),
    raw_spec("spec nested absurdly", "source.json-invalid", text="[" * 200_000),
    raw_spec("spec empty", "source.json-invalid", text=""),
    case("spec a symlink out", "source.path-escapes", "pipeline.json", act=lambda e: _linked_spec(e)),
    case("asset a symlink out", "source.path-escapes", "vocab.txt", act=lambda e: _linked_asset(e)),
    case("conditioner name that leaves the folder", "spec.name", "'../x'",
         act=lambda e: ldmkit.Pipeline.of(codec=e.pipe.codec, denoiser=e.pipe.denoiser, process=e.pipe.process,
                                          conditioners={"../x": e.pipe.conditioners["label"]})),
    case("wiring of nobody", "compose.unknown-conditioner", "'lable'", "did you mean 'label'",
         act=lambda e: ldmkit.Pipeline.of(codec=e.pipe.codec, denoiser=e.pipe.denoiser, process=e.pipe.process,
                                          conditioners=e.pipe.conditioners, wiring={"lable": {"null": "zero"}})),
    case("negative of a kept input", "input.negative-kept", "negative.label", act=lambda e: _kept(e)),
    case("port unknown", "compose.unknown-port", "'midd'", "did you mean 'mid'",
         act=lambda e: ldmkit.attached(e.pipe.denoiser.ports, {"midd": lambda v, f: v}).__enter__()),
    case("kind unknown", "plugin.unknown-kind", "'samplr'", "did you mean 'sampler'",
         act=lambda e: ldmkit.components("samplr")),
    case("part unknown", "plugin.unknown", "'unett'", "did you mean 'unet'",
         act=lambda e: ldmkit.get("denoiser", "unett")),
]  # fmt: skip


def _linked_spec(e: Env) -> Any:
    folder = e.folder()
    (folder / "pipeline.json").rename(e.tmp / "elsewhere.json")
    (folder / "pipeline.json").symlink_to(e.tmp / "elsewhere.json")
    return ldmkit.load(folder)


def _linked_asset(e: Env) -> Any:
    folder = e.folder()
    (folder / "conditioners" / "label").mkdir()
    (folder / "conditioners" / "label" / "vocab.txt").symlink_to("/etc/hostname")
    return ldmkit.load(folder)


def _kept(e: Env) -> Any:
    parts = {"codec": e.pipe.codec, "denoiser": e.pipe.denoiser, "process": e.pipe.process}
    pipe = ldmkit.Pipeline.of(
        **parts, conditioners=e.pipe.conditioners, wiring={"label": {"null": "keep"}}, defaults={"size": (8, 8)}
    )
    return pipe(L, negative=L, steps=2)


SOURCES = [
    case("source missing", "source.not-found", "'no-such-model'", "bundled",
         act=lambda e: ldmkit.load("no-such-model")),
    case("source empty", "source.not-found", act=lambda e: ldmkit.load("")),
    case("source NUL", "source.not-found", act=lambda e: ldmkit.load("a\0b")),
    case("source endless", "source.not-found", act=lambda e: ldmkit.load("a" * 6000)),
    case("source of no user", "source.not-found", act=lambda e: ldmkit.load("~nobody-of-this-name/model")),
    case("source unrecognised", "source.unrecognised", "model_index.json", act=lambda e: ldmkit.load(e.tmp)),
    case("source a text file", "source.unrecognised", "a.txt",
         act=lambda e: ldmkit.load(bad.written(e.tmp / "a.txt", b"a"))),
    case("hub offline", "source.hub", "HF_HUB_OFFLINE", act=lambda e: ldmkit.load("hf:nobody/nothing-like-this")),
    case("hub name impossible", "source.hub", act=lambda e: ldmkit.load("hf:a/b/c/d")),
    case("hub name empty", "source.hub", act=lambda e: ldmkit.load("hf:")),
    case("config missing", "source.not-found", "config", "no.yaml",
         act=lambda e: ldmkit.load(e.class_folder, config=e.tmp / "no.yaml")),
    case("config of a native folder", "input.not-for-native", "config",
         act=lambda e: ldmkit.load(e.class_folder, config=bad.written(e.tmp / "c.yaml", b"a: 1"))),
    case("ema of a native folder", "input.not-for-native", "ema", act=lambda e: ldmkit.load(e.class_folder, ema=True)),
    case("device unknown", "input.device", "'gpu'", act=lambda e: ldmkit.load(e.class_folder, device="gpu")),
    case("device meta", "input.device", "meta", act=lambda e: ldmkit.load(e.class_folder, device="meta")),
    case("device absent", "input.device", "cuda:77", act=lambda e: ldmkit.load(e.class_folder, device="cuda:77")),
    case("device no name", "input.device", act=lambda e: ldmkit.load(e.class_folder, device=object())),
    case("dtype unknown", "input.dtype", "'flaot32'", "did you mean 'float32'",
         act=lambda e: ldmkit.load(e.class_folder, dtype="flaot32")),
    case("dtype of integers", "input.dtype", "int8", act=lambda e: ldmkit.load(e.class_folder, dtype=torch.int8)),
    case("codec of nothing", "source.unrecognised", act=lambda e: ldmkit.load_codec(e.tmp)),
    case("safetensors gone", "source.not-found", act=lambda e: open_safetensors(e.tmp / "x.safetensors")),
]  # fmt: skip


def recipe_in(name: str, code: str, *words: str, make: Callable[[Path], Any]) -> Case:
    """Reading the recipe of a file."""
    return Case(name, code, words, lambda e: read_recipe(make(e.tmp)))


TARGETS = [
    case("save onto a foreign folder", "input.folder-taken", "no pipeline.json", act=lambda e: _save_onto(e, "a.txt")),
    case("save onto a pipeline with more in it", "input.folder-taken", "'notes.txt'", "delete",
         act=lambda e: _save_beside_notes(e)),
    case("save onto a file", "input.folder-taken", "plain folder",
         act=lambda e: e.pipe.save(bad.written(e.tmp / "f", b"mine"))),
    case("save onto a symlink", "input.folder-taken", act=lambda e: _save_onto_link(e)),
    case("save into no folder", "input.no-folder", "missing", act=lambda e: e.pipe.save(e.tmp / "missing" / "model")),
    case("picture not PNG", "input.not-png", ".png", act=lambda e: e.pipe(L).save(e.tmp / "out.jpg")),
    case("picture without suffix", "input.not-png", act=lambda e: e.pipe(L).save(e.tmp / "out")),
    case("picture into no folder", "input.no-folder", "missing",
         act=lambda e: e.pipe(L).save(e.tmp / "missing" / "o.png")),
    case("picture onto a folder", "input.is-folder", act=lambda e: e.pipe(L).save(_made(e.tmp / "o.png"))),
    case("picture of endless name", "input.no-path", act=lambda e: e.pipe(L).save(e.tmp / ("a" * 300 + ".png"))),
    recipe_in("recipe of no file", "source.not-found", make=lambda t: t / "no.png"),
    recipe_in("recipe of a strange PNG", "source.no-recipe", "no recipe", make=lambda t: bad.png(t / "a.png")),
    recipe_in("recipe of a JPEG", "source.not-a-png", make=lambda t: bad.png(t / "a.jpg")),
    recipe_in("recipe of a truncated PNG", ("source.not-a-png", "source.no-recipe"),
              make=lambda t: bad.truncated(t / "a.png", 0.1)),
    recipe_in("recipe of a bomb", ("source.not-a-png", "source.no-recipe"), make=lambda t: bad.bomb(t / "a.png")),
    recipe_in("recipe not JSON", "source.json-invalid", make=lambda t: _with_recipe(t, "{oops")),
    recipe_in("recipe a list", "source.no-recipe", "object", make=lambda t: _with_recipe(t, "[]")),
    recipe_in("recipe key twice", "source.duplicate-key", "'seed'",
              make=lambda t: _with_recipe(t, '{"seed": 1, "seed": 2}')),
    recipe_in("recipe of wrong types", "source.no-recipe", "'inputs'",
              make=lambda t: _with_recipe(t, json.dumps(RECIPE | {"inputs": 3}))),
]  # fmt: skip

RECIPE = {
    "recipe": 1, "steps": 1, "seed": 1, "parts": {}, "inputs": {}, "negative": {}, "sampler": {}, "grid": {},
    "guidance": {}, "model": None, "load": {}, "start": None, "spec": "0", "size": [8, 8],
}  # fmt: skip


def _made(path: Path) -> Path:
    path.mkdir()
    return path


def _with_recipe(folder: Path, text: str) -> Path:
    from PIL import Image, PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_itxt("ldmkit", text)
    Image.new("RGB", (8, 8)).save(folder / "a.png", pnginfo=info)
    return folder / "a.png"


def _save_onto(e: Env, name: str) -> Any:
    bad.written(_made(e.tmp / "mine") / name, b"mine")
    try:
        return e.pipe.save(e.tmp / "mine")
    finally:
        assert [p.name for p in (e.tmp / "mine").iterdir()] == [name]


def _save_beside_notes(e: Env) -> Any:
    folder = e.folder()
    notes = bad.written(folder / "notes.txt", b"mine")
    try:
        return tiny_parts.class_pipeline().save(folder)
    finally:
        assert notes.read_bytes() == b"mine"


def _save_onto_link(e: Env) -> Any:
    folder = e.folder()
    (e.tmp / "link").symlink_to(folder)
    return e.pipe.save(e.tmp / "link")


FILES = [*WEIGHTS, *SPECS, *SOURCES, *TARGETS]
