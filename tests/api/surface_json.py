"""What commands print with --json: keys and types, not values, of small real runs."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from ldmkit.cli import main
from ldmkit.plugins.catalogue import refresh

TESTS = Path(__file__).parents[1]
TYPES = {type(None): "null", bool: "boolean", int: "integer", float: "number", str: "string"}


class Case(NamedTuple):
    """A command and what of its output is data rather than shape.

    Args:
        name: how it is called in the snapshot.
        arguments: `{name}` stands for a file or folder of `made`.
        keyed: paths of objects whose keys are data; they are shown as `*`.
        whole: paths whose content is not ours to say (JSON schemas, configs of parts).
        code: exit code.
    """

    name: str
    arguments: str
    keyed: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    code: int = 0


RECIPE = ("recipe.parts", "recipe.inputs", "recipe.negative")
CONFIGS = ("recipe.sampler.config", "recipe.grid.config", "recipe.guidance.config")
CASES = [
    Case("plugins", "plugins --json"),
    Case("plugins check", "plugins check grid:karras --json"),
    Case("plugins show (a sampler)", "plugins show sampler:ddim --json", whole=("[].config",)),
    Case("plugins show (a conditioner)", "plugins show conditioner:label --json", whole=("[].config", "[].input")),
    Case("check", "check {classes} --json", keyed=("parameters", "slots")),
    Case("check (an error)", "check {nothing} --json", code=3),
    Case("sample", "sample {classes} --label 1 --steps 2 -o {tmp}/a.png --json", keyed=RECIPE, whole=CONFIGS),
    Case("sample --inputs", "sample {classes} --inputs", keyed=("",), whole=("*",)),
    Case("replay", "replay {tmp}/a.png --json", keyed=("changed_parts",)),
    Case("extract", "extract canny {photo} {tmp}/hint.png --json", whole=("extractor",)),
    Case("data caption", "data caption miniworld:count=2 --captioner miniworld -o {tmp}/captions.jsonl --json"),
    Case("encode", "encode {kl} {photo} -o {tmp}/a.safetensors --json"),
    Case("decode", "decode {kl} {tmp}/a.safetensors -o {tmp}/b.png --json"),
    Case("import", "import {classes} -o {tmp}/again --json", keyed=("used", "ignored")),
    Case("export", "export {kl} -o {tmp}/exported --part codec --json"),
    Case("train --dry-run", "train {recipe} --dry-run --json", keyed=("shapes", "used", "memory")),
    Case("train --check", "train {recipe} --check --json"),
    Case("train", "train {recipe} --json"),
    Case("eval miniworld", "eval miniworld {world} --count 2 --references 2 --steps 1 --conditions label --json"),
    Case("demo", "demo --model {world} --steps 1 --number 2 --plan eager -o {tmp}/demo.png --json", keyed=("parts",)),
    Case("new", "new sampler halving -o {tmp} --json"),
    Case(
        "compare",
        "compare --model {classes} --label 1 --samplers euler,heun --steps 2,3 --reference 10 -n 1 --plan eager "
        "-o {tmp}/compare.html --json",
    ),
    Case("plugins doctor", "plugins doctor {broken} --no-run --json", code=4),
]


def outputs() -> list[str]:
    """One line a key."""
    before = list(sys.path)
    try:
        with tempfile.TemporaryDirectory() as folder:
            made = {name: make(Path(folder)) for name, make in _MAKERS.items()}
            return [line for case in CASES for line in _case(case, made)]
    finally:
        sys.path[:] = before
        refresh()


def _case(case: Case, made: Mapping[str, str]) -> Iterator[str]:
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(io.StringIO()):
        code = main([word.format(**made) for word in case.arguments.split()])
    printed = text.getvalue()
    assert code == case.code, f"{case.arguments}: exit code {code}\n{printed}"
    found: dict[str, set[str]] = {}
    _shape(json.loads(printed), "", case, found)
    for path, kinds in found.items():
        yield f"{case.name}: {path or 'all of it'}: {' | '.join(sorted(kinds))}"


def _shape(data: Any, path: str, case: Case, found: dict[str, set[str]]) -> None:
    """Types by path; items of a list, and the values of a keyed object, count as one."""
    kinds = found.setdefault(path, set())
    if path in case.whole:
        kinds.add("object, see the part" if isinstance(data, dict) else "any")
    elif isinstance(data, dict):
        kinds.add("object")
        for key, value in data.items():
            _shape(value, f"{path}.{'*' if path in case.keyed else key}".lstrip("."), case, found)
    elif isinstance(data, list):
        kinds.add("array")
        for value in data:
            _shape(value, f"{path}[]", case, found)
    else:
        kinds.add(TYPES[type(data)])


def _helper(folder: str, module: str) -> Any:
    """A module of another folder of the tests: this one is also run as a command, without pytest's paths."""
    if (path := str(TESTS / folder)) not in sys.path:
        sys.path.append(path)
    return import_module(module)


def _photo(folder: Path) -> str:
    path = folder / "photo.png"
    Image.new("RGB", (16, 16), (200, 100, 50)).save(path)
    return str(path)


def _recipe(folder: Path) -> str:
    tiny = _helper("training", "tiny")
    return str(tiny.write(tiny.denoiser_data(folder / "run", "steps=2", "validation=null"), folder / "recipe.yaml"))


def _saved(name: str, make: Callable[[], Any]) -> Callable[[Path], str]:
    return lambda folder: str(make().save(folder / name))


def _broken(folder: Path) -> str:
    """A distribution that cannot be imported, installed for as long as the folder is on the path."""
    info = folder / "site" / "broken_parts-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-parts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ldmkit.grids]\nbroken = no_such_module:Grid\n")
    sys.path.append(str(folder / "site"))
    refresh()
    return "broken-parts"


_MAKERS: dict[str, Callable[[Path], str]] = {
    "tmp": str,
    "nothing": lambda folder: str(folder / "nothing"),
    "photo": _photo,
    "broken": _broken,
    "recipe": _recipe,
    "classes": _saved("classes", lambda: _helper(".", "tiny_parts").class_pipeline()),
    "kl": _saved("kl", lambda: _helper(".", "tiny_parts").class_pipeline("kl")),
    "world": _saved("world", lambda: _helper("miniworld", "world_models").world_model()),
}
