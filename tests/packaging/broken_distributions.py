"""Five good distributions and many broken ones, as data: what is in them, and what the doctor must say.

Every broken one has one fault. `code`, `cause` and `remedy` are what is expected of the doctor: the code exactly, the
others as regular expressions.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

SAMPLER = """
    from itertools import pairwise

    import ldmkit


    class Steady(ldmkit.Sampler):
        '''Euler's method.'''

        api = 1
        order = 1

        def steps(self, denoise, x, sigmas, noise):
            for i, (sigma, after) in enumerate(pairwise(sigmas)):
                x0 = denoise(x, sigma)
                x = x0.lerp(x, after / sigma)
                yield ldmkit.Step(i, len(sigmas) - 1, sigma, after, x, x0)
"""

MODALITY = """
    from typing import Annotated

    from pydantic import Field
    from torch import nn, tensor

    import ldmkit


    class LoudnessConfig(ldmkit.Value):
        dim: int = Field(default=8, ge=1, le=64)


    class Loudness(ldmkit.Conditioner):
        '''Loudness of three bands as one token.'''

        Config = LoudnessConfig
        Input = Annotated[list[Annotated[float, Field(ge=-1, le=1)]], Field(min_length=3, max_length=3)]
        kind = "tokens"
        examples = (ldmkit.Example({"dim": 8}, ([0.0, 0.5, 1.0], [1.0, -1.0, 0.25])),)

        def __init__(self, config=None):
            super().__init__(config)
            self.dim = self.config.dim
            self.project = nn.Linear(3, self.dim)

        def forward(self, inputs):
            rows = tensor(inputs, dtype=self.dtype, device=self.device)
            tokens = self.project(rows)[:, None]
            return ldmkit.Tokens(tokens)

        def example(self, size):
            return [0.0, 0.0, 0.0]
"""

GRID = """
    import ldmkit
    from ldmkit.run.request import check_steps


    class Even(ldmkit.Grid):
        '''The same ratio from each level to the next, and 0 at the end.'''

        api = 1

        def sigmas(self, process, steps):
            count = check_steps(steps)
            high, low = process.sigma_max, process.sigma_min
            ratio = (low / high) ** (1 / max(count - 1, 1))
            return [*(high * ratio**i for i in range(count)), 0.0]
"""

GUIDANCE = """
    from pydantic import Field

    import ldmkit


    class Gentle(ldmkit.Guidance):
        '''Classifier-free guidance, in the order of the paper.'''

        api = 1
        scale: float = Field(default=2.0, ge=0)

        def __call__(self, evaluate, x, sigma):
            with_all, without = evaluate(x, sigma, frozenset(), frozenset(evaluate.names))
            return without + self.scale * (with_all - without)

        def views(self, names):
            return 2 if names else 1
"""

HOOKS = """
    import ldmkit

    seen = []


    @ldmkit.hookimpl
    def ldmkit_step(pipeline, step):
        seen.append(step.index)
"""

RAISING = """
    import ldmkit


    @ldmkit.hookimpl
    def ldmkit_step(pipeline, step):
        raise RuntimeError("no luck")
"""


@dataclass(frozen=True)
class Distribution:
    """What is written to a site folder. `points`: group -> name -> value; `files`: module -> source."""

    name: str
    points: Mapping[str, Mapping[str, str]]
    files: Mapping[str, str] = field(default_factory=dict)
    encodings: Mapping[str, str] = field(default_factory=dict)
    requires: tuple[str, ...] = ("ldmkit>=0.1",)
    versions: tuple[str, ...] = ("1.0",)

    def write(self, site: Path) -> None:
        """Modules, and the metadata that pip would have written."""
        for path, text in (item for version in self.versions for item in self.contents(version).items()):
            (site / path).parent.mkdir(exist_ok=True)
            (site / path).write_text(text, encoding=self.encodings.get(Path(path).name, "utf-8"))

    def wheel(self, folder: Path) -> Path:
        """The same as a wheel, of the last version."""
        contents = self.contents(self.versions[-1])
        info = next(str(Path(path).parent) for path in contents if path.endswith("METADATA"))
        contents[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        contents[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*contents, f"{info}/RECORD"))
        target = folder / f"{info.removesuffix('.dist-info')}-py3-none-any.whl"
        with zipfile.ZipFile(target, "w") as file:
            for path, text in contents.items():
                file.writestr(path, text.encode(self.encodings.get(Path(path).name, "utf-8")))
        return target

    def contents(self, version: str) -> dict[str, str]:
        """Path in a site folder -> text."""
        lines = [
            line
            for group, entries in self.points.items()
            for line in (f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()))
        ]
        needs = "".join(f"Requires-Dist: {text}\n" for text in self.requires)
        info = f"{self.name.replace('-', '_')}-{version}.dist-info"
        return {
            **{f"{module}.py": dedent(source) for module, source in self.files.items()},
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {self.name}\n"
            f"Author: {'é' if self.encodings else 'e'}\nVersion: {version}\n{needs}",
            f"{info}/entry_points.txt": "\n".join(lines) + "\n",
        }


@dataclass(frozen=True)
class Broken(Distribution):
    """And what the doctor says of it.

    Args:
        status: of its part, in the listing once it was imported; None: the part is not in the listing.
        tried: the fault shows only when the part is tried with the contract kit.
    """

    code: str = "import-failed"
    status: str | None = "failed"
    cause: str = ""
    remedy: str = "LDMKIT_PLUGINS_DENY"
    tried: bool = False


WORKER = """
import threading
import time
from concurrent.futures import ThreadPoolExecutor

POOL = ThreadPoolExecutor(1)
POOL.submit(len, "")
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
threading.Thread(target=time.sleep, args=(0.1,)).start()
"""
"""Threads that end with the program, or by themselves."""

GOOD = (
    Distribution("good-sampler", {"ldmkit.samplers": {"steady": "sound_sampler:Steady"}}, {"sound_sampler": SAMPLER}),
    Distribution(
        "Good_Modality", {"ldmkit.conditioners": {"loudness": "sound_modality:Loudness"}}, {"sound_modality": MODALITY}
    ),
    Distribution("good-grid", {"ldmkit.grids": {"gleichmäßig": "sound_grid:Even"}}, {"sound_grid": GRID}),
    Distribution(
        "good-guidance", {"ldmkit.guidance": {"gentle": "sound_guidance:Gentle"}}, {"sound_guidance": GUIDANCE}
    ),
    Distribution(
        "good-worker",
        {"ldmkit.samplers": {"worker": "sound_worker:Steady"}},
        {"sound_worker": WORKER + dedent(SAMPLER)},
    ),
    Distribution("good-hooks", {"ldmkit": {"listener": "sound_hooks"}}, {"sound_hooks": HOOKS}),
)


def _sampler(name: str, source: str, **expected: object) -> Broken:
    module = f"broken_{name.replace('-', '_')}"
    points = {"ldmkit.samplers": {name: f"{module}:Steady"}}
    return Broken(f"broken-{name}", points, {module: source}, **expected)  # type: ignore[arg-type]


def _modality(name: str, old: str, new: str, cause: str) -> Broken:
    """A conditioner that works, but for one line; the kit is what finds it."""
    assert old in MODALITY
    module = f"broken_{name.replace('-', '_')}"
    source = MODALITY.replace(old, new)
    points = {"ldmkit.conditioners": {name: f"{module}:Loudness"}}
    files = {module: source}
    expected = {"code": "check-failed", "status": "ok", "cause": cause, "tried": True}
    return Broken(f"broken-{name}", points, files, **expected, remedy=r"docs/contracts\.md#")  # type: ignore[arg-type]


TOKENS = "tokens = self.project(rows)[:, None]"

BROKEN = (
    _sampler("import-error", "raise ImportError('no luck')", cause="ImportError: no luck"),
    _sampler("exit", "import sys\nsys.exit('bye')", cause="SystemExit: bye"),
    _sampler(
        "slow-import", "import time\ntime.sleep(3.2)\n" + dedent(SAMPLER), code="slow-import", status="ok",
        cause=r"its import takes \d+\.\d s; the limit is 3 s", remedy="inside the functions that use them",
    ),
    Broken(
        "broken-name-clash", {"ldmkit.samplers": {"euler": "broken_name_clash:Steady"}}, {"broken_name_clash": SAMPLER},
        code="name-clash", status="ok", cause="'euler' refers to the in-tree part",
        remedy="use 'broken-name-clash:euler'",
    ),
    Broken(
        "broken-kind", {"ldmkit.samplers": {"grid-as-sampler": "broken_kind:Even"}}, {"broken_kind": GRID},
        code="wrong-kind", cause="Even is not a subclass of ldmkit.Sampler", remedy=r"entry-point group ldmkit\.grids",
    ),
    _sampler(
        "api", SAMPLER.replace("api = 1", "api = 99"), code="incompatible", status="incompatible",
        cause="written for version 99 of the sampler contract", remedy="pip install --upgrade ldmkit",
    ),
    Broken(
        "broken-dependency", {"ldmkit.samplers": {"dependency": "broken_dependency:Steady"}},
        {"broken_dependency": "import nobody_has_this"}, requires=("nobody-has-this>=2",), code="missing-dependency",
        status="optional", cause="requires 'nobody_has_this'", remedy="pip install 'nobody-has-this>=2'",
    ),
    Broken(
        "broken-hook", {"ldmkit": {"raising": "broken_hook"}}, {"broken_hook": RAISING}, code="hook-raised",
        cause="ldmkit_step raised RuntimeError", remedy="must not raise", tried=True,
    ),
    Broken(
        "broken-config", {"ldmkit.conditioners": {"config": "broken_config:Loudness"}},
        {"broken_config": MODALITY.replace("Config = LoudnessConfig", "Config = {'dim': 8}")}, code="bad-config",
        cause=r"Loudness\.Config is \{'dim': 8\}", remedy=r"subclass of ldmkit\.Value",
    ),
    _modality("shape", TOKENS, "tokens = self.project(rows)", r"Expected the signal: 3 axes; got shape \[\(2, 8\)\]"),
    _modality("dtype", TOKENS, f"{TOKENS}.double()", "Expected outputs of torch.bfloat16; got torch.float64"),
    _modality("device", ", device=self.device", "", "conditioner-device"),
    _modality("mutation", "rows =", "inputs[0][0] = 0.0\n            rows =", "conditioner-inputs-untouched"),
    _modality("random", TOKENS, f"{TOKENS}\n            tokens = tokens * tokens.new_empty(1).uniform_()",
              "conditioner-no-global-rng"),
    _sampler(
        "missing-method", SAMPLER.replace("def steps", "def step"), code="abstract",
        cause="Steady does not implement steps", remedy="define steps",
    ),
    _sampler("no-class", "def Steady(denoise, x):\n    return x", code="not-a-class", cause="is not a class",
             remedy=r"subclass of ldmkit\.Sampler"),
    Broken(
        "broken-circle", {"ldmkit.samplers": {"circle": "broken_circle:Steady"}},
        {"broken_circle": "from broken_circle_more import helper\n" + dedent(SAMPLER),
         "broken_circle_more": "from broken_circle import Steady\ndef helper(): ..."},
        cause="ImportError: cannot import name 'Steady' from partially initialized module 'broken_circle'",
    ),
    _sampler("syntax", "def (:", cause=r"SyntaxError: .*broken_syntax\.py, line 1"),
    Broken("broken-nothing", {"ldmkit.samplers": {"nothing": "no_such_module:Steady"}},
           cause="no module named 'no_such_mod"),
    Broken(
        "broken-versions", {"ldmkit.samplers": {"versions": "broken_versions:Steady"}}, {"broken_versions": SAMPLER},
        versions=("1.0", "2.0"), code="two-versions", status="ok", cause=r"2\.0 in .* is used; also found: 1\.0 in",
        remedy="pip uninstall broken-versions until none is left",
    ),
    Broken(
        "broken-giant", {"ldmkit.samplers": {f"giant-{i}": "broken_giant:Steady" for i in range(3000)}},
        {"broken_giant": SAMPLER}, code="oversized", status=None, cause="it lists 3000 parts",
        remedy="fewer entry points in broken-giant",
    ),
    Broken(
        "broken-crowd", {"ldmkit.samplers": {f"crowd-{i}": "broken_crowd:Steady" for i in range(300)}},
        {"broken_crowd": SAMPLER}, code="crowded", status="ok", cause="it lists 300 parts",
        remedy="one part with options",
    ),
    Broken(
        "broken-unicode", {"ldmkit.samplers": {"ste\u200bady": "broken_unicode:Steady"}}, {"broken_unicode": SAMPLER},
        code="bad-name", status=None, cause=r"invisible characters: U\+200B", remedy="visible letters",
    ),
    Broken(
        "broken-lookalike", {"ldmkit.samplers": {"\u0435uler": "broken_lookalike:Steady"}},
        {"broken_lookalike": SAMPLER}, code="bad-name", status=None, cause=r"\\u0435uler.*CYRILLIC, LATIN",
        remedy="one alphabet",
    ),
    Broken(
        "broken-group", {"ldmkit.sampler": {"group": "broken_group:Steady"}}, {"broken_group": SAMPLER},
        code="unknown-group", status=None, cause=r"group 'ldmkit\.sampler'", remedy=r"did you mean 'ldmkit\.samplers'",
    ),
)  # fmt: skip

THREAD = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), name='clock'{more}).start()\n"

BROKEN += (
    _sampler("misspelt-attribute", SAMPLER.replace("class Steady", "class Stedy"),
             cause="broken_misspelt_attribute has no 'Steady'",
             remedy=r"did you mean 'broken_misspelt_attribute:Stedy'\?"),
    Broken(
        "broken-misspelt-module", {"ldmkit.samplers": {"misspelt-module": "broken_mispelt_module:Steady"}},
        {"broken_misspelt_module": SAMPLER}, cause="no module named 'broken_mispelt_module'",
        remedy=r"did you mean 'broken_misspelt_module:Steady'\?",
    ),
    _sampler("thread", THREAD.format(more="") + dedent(SAMPLER), code="never-ends", status="ok",
             cause=r"its import leaves a non-daemon thread running \(clock\)", remedy="daemon=True"),
    _sampler(
        "closing", SAMPLER.replace("yield ldmkit.Step(", "step = ldmkit.Step(") + """
                try:
                    yield step
                except BaseException:
                    continue
""", code="check-failed", status="ok", cause="sampler-closed: .*generator ignored GeneratorExit",
        remedy=r"docs/contracts\.md#", tried=True,
    ),
    Broken("broken-latin", {"ldmkit.samplers": {"latin": "broken_latin:Steady"}}, {"broken_latin": SAMPLER},
           {"METADATA": "latin-1"}, code="not-utf8", status="ok", cause="METADATA is not UTF-8",
           remedy="saved as UTF-8"),
)  # fmt: skip

DEADLY = (
    _sampler("os-exit", "import os\nos._exit(7)", code="died", cause=r"ended the whole process \(exit code 7\)"),
    _sampler("hanging", "import time\ntime.sleep(600)", code="hangs", cause="its import took more than 12 s",
             remedy="find out what it waits for"),
    _sampler("interrupt", "raise KeyboardInterrupt", cause="KeyboardInterrupt, which is not caught"),
)  # fmt: skip
"""What only the doctor survives, in its processes: a program that imports one of these ends, or waits."""

UNREADABLE = Broken("broken-latin-points", {"ldmkit.samplers": {"lätin": "broken_latin_points:Steady"}},
           {"broken_latin_points": SAMPLER}, {"entry_points.txt": "latin-1"}, code="unreadable", status=None,
           cause="entry_points.txt is not UTF-8", remedy="force-reinstall broken-latin-points")  # fmt: skip
"""Torch and pydantic cannot be imported beside it: it has a site of its own."""
