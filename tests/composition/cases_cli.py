"""Cases of the bad-input table at the command line: exit code, one line on stderr, nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bad_files as bad
import numpy as np
import torch
from cases_calls import Env
from PIL import Image
from safetensors.torch import save_file


@dataclass(frozen=True)
class Cli:
    """`arguments` builds the command; files it makes exist before the folder is listed."""

    name: str
    exit_code: int
    code: str
    words: tuple[str, ...]
    arguments: Callable[[Env], list[Any]]


def sample(name: str, exit_code: int, code: str, *words: str, extra: Callable[[Path], list[Any]]) -> Cli:
    """`ldmkit sample` of the class-conditional model."""
    return Cli(name, exit_code, code, words,
               lambda e: ["sample", e.class_folder, "--out", e.tmp / "o.png", *extra(e.tmp)])  # fmt: skip


def command(name: str, exit_code: int, code: str, *words: str, arguments: Callable[[Env], list[Any]]) -> Cli:
    return Cli(name, exit_code, code, words, arguments)


def damaged(e: Env, damage: Callable[[Path], Any], file: str = "denoiser.safetensors") -> Path:
    """A copy of the class-conditional model with one file damaged."""
    folder = e.folder()
    damage(folder / file)
    return folder


def boxes(e: Env, text: str) -> list[Any]:
    (e.tmp / "boxes.json").write_text(text)
    return ["sample", e.scene_folder, "--layout", e.tmp / "boxes.json", "--out", e.tmp / "o.png"]


def latents(e: Env, tensors: dict[str, torch.Tensor], **metadata: str) -> list[Any]:
    save_file(tensors, e.tmp / "z.safetensors", metadata)
    return ["decode", e.class_folder, e.tmp / "z.safetensors", "--out", e.tmp / "o.png"]


def colour(path: Path) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return path


CLI = [
    command("model missing", 3, "source.not-found", "'nowhere'", arguments=lambda e: ["sample", "nowhere"]),
    command("model unrecognised", 3, "source.unrecognised", arguments=lambda e: ["sample", e.tmp]),
    command("model damaged", 3, "source.truncated",
            arguments=lambda e: ["sample", damaged(e, lambda p: p.write_bytes(b"x"))]),
    command("weights missing", 3, "weights.missing", "conv_in",
            arguments=lambda e: ["sample", damaged(e, Path.unlink)]),
    command("spec misspelt", 3, "spec.unknown-key", "did you mean",
            arguments=lambda e: ["check", bad.edit_spec(e.folder(), lambda s: s.update(denosier=1))]),
    command("spec not there", 3, "source.not-found", arguments=lambda e: ["check", e.tmp / "no.json"]),
    command("spec that does not fit", 3, "compose.dim-mismatch", "'label'", "dim 9", arguments=lambda e: [
        "check", bad.edit_spec(e.folder(), lambda s: s["conditioners"]["label"]["config"].update(dim=9))]),
    command("part not installed", 4, "plugin.unknown", "'nope'", arguments=lambda e: [
        "check", bad.edit_spec(e.folder(), lambda s: s["codec"].update(type="nope", distribution=None))]),
    command("malicious checkpoint", 3, "source.pickle-global", "eval", arguments=lambda e: [
        "sample", bad.ckpt(e.tmp / "m.ckpt", {"a": bad.Calls(eval, "1")})]),
    command("import onto a foreign folder", 2, "input.folder-taken",
            arguments=lambda e: ["import", e.class_folder, "--out", bad.png(e.tmp / "a.png").parent]),
    command("import into no folder", 2, "input.no-folder",
            arguments=lambda e: ["import", e.class_folder, "--out", e.tmp / "no" / "m"]),
    command("import of damaged weights", 3, "weights.missing",
            arguments=lambda e: ["import", damaged(e, Path.unlink), "--out", e.tmp / "new"]),
    sample("steps", 2, "input.steps-range", "0 steps", extra=lambda t: ["--steps", 0]),
    sample("seed", 2, "input.seed-range", "-1", extra=lambda t: ["--seed", -1]),
    sample("size", 2, "input.size-type", "8by8", extra=lambda t: ["--size", "8by8"]),
    sample("size zero", 2, "input.size-range", extra=lambda t: ["--size", "0x8"]),
    sample("sampler", 4, "plugin.unknown", "did you mean 'euler'", extra=lambda t: ["--sampler", "eulr"]),
    sample("guidance name", 4, "plugin.unknown", "'lots'", extra=lambda t: ["--guidance", "lots"]),
    sample("guidance NaN", 2, "input.guidance-range", extra=lambda t: ["--guidance", "nan"]),
    sample("guidance infinite", 2, "input.guidance-range", extra=lambda t: ["--guidance", "inf"]),
    sample("two guidances", 2, "input.option-conflict", "--set",
           extra=lambda t: ["--guidance", 2, "--set", "label=3"]),
    sample("scale no number", 2, "input.scale-type", "'label=much'", extra=lambda t: ["--set", "label=much"]),
    sample("scale twice", 2, "input.option-twice", "'label'", extra=lambda t: ["--set", "label=1", "label=2"]),
    sample("scale unknown", 3, "compose.unknown-condition", "'text'", extra=lambda t: ["--set", "text=1"]),
    sample("stray word", 2, "input.scale-type", "'hello'", extra=lambda t: ["hello"]),
    sample("option unknown", 2, "input.unknown-option", "--lable", "did you mean 'label'",
           extra=lambda t: ["--lable", 3]),
    sample("option twice", 2, "input.option-twice", "--label", extra=lambda t: ["--label", 3, "--label=4"]),
    sample("option without value", 2, "input.option-empty", "--label", extra=lambda t: ["--label"]),
    sample("label", 2, "input.label-range", "class 99", extra=lambda t: ["--label", 99]),
    sample("negative unknown", 2, "input.unknown-option", "--text", extra=lambda t: ["--negative", "text=bad"]),
    sample("json argument damaged", 2, "input.json-invalid", extra=lambda t: ["--label", "[1"]),
    sample("json file missing", 2, "input.not-found", "no.json", extra=lambda t: ["--label", t / "no.json"]),
    sample("strength", 2, "input.invalid", "start.strength",
           extra=lambda t: ["--start", colour(t / "a.png"), "--strength", 0]),
    sample("strength NaN", 2, "input.invalid", "start.strength",
           extra=lambda t: ["--start", colour(t / "a.png"), "--strength", "nan"]),
    sample("start missing", 2, "input.picture-missing", "no.png", extra=lambda t: ["--start", t / "no.png"]),
    sample("start bomb", 2, "input.picture-too-large", extra=lambda t: ["--start", bad.bomb(t / "a.png")]),
    sample("start truncated", 2, "input.picture-truncated", extra=lambda t: ["--start", bad.truncated(t / "a.png")]),
    sample("mask coloured", 2, "input.picture-not-grey",
           extra=lambda t: ["--start", colour(t / "a.png"), "--mask", t / "a.png"]),
    sample("device", 2, "input.device", "'gpu'", extra=lambda t: ["--device", "gpu"]),
    sample("dtype", 2, "input.dtype", "'int8'", extra=lambda t: ["--dtype", "int8"]),
    sample("config missing", 3, "source.not-found", "no.yaml", extra=lambda t: ["--config", t / "no.yaml"]),
    sample("raw weights of a native folder", 2, "input.not-for-native", extra=lambda t: ["--raw"]),
    command("out not PNG", 2, "input.not-png",
            arguments=lambda e: ["sample", e.class_folder, "--out", e.tmp / "o.jpg"]),
    command("out into no folder", 2, "input.no-folder",
            arguments=lambda e: ["sample", e.class_folder, "--out", e.tmp / "no" / "o.png"]),
    command("boxes key twice", 2, "input.duplicate-key", "'label'",
            arguments=lambda e: boxes(e, '[{"label": 0, "label": 1, "box": [0, 0, 1, 1]}]')),
    command("boxes inverted", 2, "input.box-inverted", "layout[0].box",
            arguments=lambda e: boxes(e, json.dumps([{"label": 0, "box": [0.9, 0, 0.1, 1]}]))),
    command("boxes not JSON", 2, "input.json-invalid", "boxes.json", arguments=lambda e: boxes(e, "cat 0 0 1 1")),
    command("boxes NaN", 2, "input.json-invalid", "NaN",
            arguments=lambda e: boxes(e, '[{"label": 0, "box": [NaN, 0, 1, 1]}]')),
    command("plugin unknown", 4, "plugin.unknown", "'unett'", arguments=lambda e: ["plugins", "show", "unett"]),
    command("plugin kind unknown", 4, "plugin.unknown-kind", "'samplers'",
            arguments=lambda e: ["plugins", "--kind", "samplers"]),
    command("replay without recipe", 3, "source.no-recipe", arguments=lambda e: ["replay", bad.png(e.tmp / "a.png")]),
    command("replay of no file", 3, "source.not-found", arguments=lambda e: ["replay", e.tmp / "no.png"]),
    command("encode of no picture", 2, "input.picture-missing",
            arguments=lambda e: ["encode", e.class_folder, e.tmp / "no.png", "--out", e.tmp / "z.safetensors"]),
    command("encode into no folder", 2, "input.no-folder",
            arguments=lambda e: ["encode", e.class_folder, bad.png(e.tmp / "a.png"), "--out", e.tmp / "no" / "z"]),
    command("decode without latents", 3, "source.no-latents", arguments=lambda e: latents(e, {"x": torch.ones(1)})),
    command("decode of a bad size", 3, "source.no-latents", "'-3'",
            arguments=lambda e: latents(e, {"latents": torch.ones(1, 3, 8, 8)}, height="-3", width="8")),
    sample("steps in words", 2, "input.usage", "'--steps'", "ldmkit sample --help", extra=lambda t: ["--steps", "ten"]),
    sample("strength in words", 2, "input.usage", "--strength", extra=lambda t: ["--strength", "half"]),
    sample("guidance in another script", 4, "plugin.unknown", "\u0663", extra=lambda t: ["--guidance", "\u0663"]),
    sample("guidance with a gap", 4, "plugin.unknown", "'1_000'", extra=lambda t: ["--guidance", "1_000"]),
    sample("guidance beyond all floats", 2, "input.guidance-range", "inf", extra=lambda t: ["--guidance", "1e400"]),
    sample("scale of nothing", 2, "input.scale-type", "'label='", extra=lambda t: ["--set", "label="]),
    sample("scale with blanks", 2, "input.scale-type", "name=scale", extra=lambda t: ["--set", "label= 3"]),
    sample("name that steers the terminal", 2, "input.unknown-option", r"\x1b[31m", extra=lambda t: ["--\x1b[31m", 1]),
    sample("start of endless name", 2, "input.no-path", "too long", extra=lambda t: ["--start", "x" * 5000]),
    sample("start a FIFO", 2, "input.picture-unreadable", "FIFO", extra=lambda t: ["--start", bad.fifo(t / "p.png")]),
    sample("start from an endless device", 2, "input.picture-unreadable", "device",
           extra=lambda t: ["--start", "/dev/zero"]),
    sample("null class", 2, "input.null-class", "class 5", extra=lambda t: ["--label", 5]),
    sample("label in halves", 2, "input.unknown-label", "'1.5'", "0 to 4", extra=lambda t: ["--label", 1.5]),
    sample("verify otherwise", 2, "input.usage", "'fast', 'full', 'off'", extra=lambda t: ["--verify", "slow"]),
    command("option nearly right", 2, "input.usage", "--stepz", "--steps",
            arguments=lambda e: ["demo", "--model", e.class_folder, "--stepz", 3]),
    command("command nearly right", 2, "input.usage", "'smaple'", "'sample'", arguments=lambda e: ["smaple"]),
    command("argument missing", 2, "input.usage", "picture", "ldmkit replay --help", arguments=lambda e: ["replay"]),
    command("number too large", 2, "input.usage", "16", "ldmkit compare --help",
            arguments=lambda e: ["compare", "--model", e.class_folder, "-n", 99]),
    command("model of no name", 3, "source.not-found", "''", arguments=lambda e: ["demo", "--model", ""]),
    command("comparison over a file", 2, "input.compare-out", "a folder", arguments=lambda e: [
        "compare", "--model", e.class_folder, "--out", bad.png(e.tmp / "a.png").rename(e.tmp / "a")]),
    command("decode of other channels", 2, "input.latent-shape",
            arguments=lambda e: latents(e, {"latents": torch.ones(1, 5, 8, 8)})),
]  # fmt: skip
