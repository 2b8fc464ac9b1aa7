"""Parts of real distributions in a temporary folder: found, composed, in conflict, broken, forbidden."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
import tiny_parts
import torch

import ldmkit
from ldmkit.cli import main
from ldmkit.models.meta import on_meta
from ldmkit.plugins import catalogue, kinds

Install = Callable[..., Path]

SAMPLER = """
    from itertools import pairwise

    import ldmkit


    class Plain(ldmkit.Sampler):
        '''Euler's method.'''

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


    class SoundConfig(ldmkit.Value):
        dim: int = 8


    class Sound(ldmkit.Conditioner):
        '''Loudness of a few bands as one token.'''

        Config = SoundConfig
        Input = Annotated[list[float], Field(min_length=3, max_length=3)]
        kind = "tokens"

        def __init__(self, config=None):
            super().__init__(config)
            self.dim = self.config.dim
            self.project = nn.Linear(3, self.dim)

        def forward(self, inputs):
            return ldmkit.Tokens(self.project(tensor(inputs).to(self.project.weight))[:, None])

        def example(self, size):
            return [0.0, 0.0, 0.0]
"""

POINTS = """
    [ldmkit.samplers]
    plain = other_sampler:Plain

    [ldmkit.conditioners]
    sound = other_modality:Sound
"""


def test_a_third_party_sampler_and_modality(install: Install, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    install("other-parts", POINTS, {"other_sampler": SAMPLER, "other_modality": MODALITY})
    assert "plain" in ldmkit.components("sampler") and "sound" in ldmkit.components("conditioner")
    assert "other_sampler" not in sys.modules, "listing imports nothing"

    pipe = ldmkit.Pipeline.of(
        codec=tiny_parts.part("codec", "identity", {}),
        denoiser=tiny_parts.unet(3),
        process=ldmkit.get("process", "discrete")(),
        conditioners={"sound": tiny_parts.part("conditioner", "sound", {})},
        defaults={"size": (8, 8), "steps": 4},
    )
    loud = {"sound": [1.0, 2.0, 3.0]}
    out = pipe(loud, sampler="plain", guidance=2.0)
    torch.testing.assert_close(out.latents, pipe(loud, sampler="euler", guidance=2.0).latents, atol=1e-4, rtol=1e-4)
    assert not torch.equal(out.latents, pipe({}, sampler="plain").latents)
    assert out.recipes[0]["parts"]["conditioners.sound"] == "sound @ other-parts 1.0"
    with pytest.raises(ldmkit.InputError, match="at least 3 items"):
        pipe({"sound": [1.0]})

    folder = pipe.save(tmp_path / "model")
    assert torch.equal(ldmkit.load(folder)(loud, sampler="plain", guidance=2.0).latents, out.latents)
    draw = ["sample", str(folder), "--sound", "[1, 2, 3]", "--sampler", "plain", "--out", str(tmp_path / "o.png")]
    assert main(draw) == 0
    capsys.readouterr()
    assert main(["plugins", "show", "sound", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["input"]["maxItems"] == 3


def test_a_missing_distribution_is_named(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = install("other-parts", POINTS, {"other_sampler": SAMPLER, "other_modality": MODALITY})
    pipe = ldmkit.Pipeline.of(
        codec=tiny_parts.part("codec", "identity", {}),
        denoiser=tiny_parts.unet(3),
        process=ldmkit.get("process", "discrete")(),
        conditioners={"sound": tiny_parts.part("conditioner", "sound", {})},
    )
    folder = pipe.save(tmp_path / "model")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(site)])
    with pytest.raises(ldmkit.PluginError, match=r"not-installed.*'sound'.*other-parts 1.0.*pip install other-parts"):
        ldmkit.load(folder)


def test_two_distributions_with_one_name(install: Install, capsys: pytest.CaptureFixture) -> None:
    install("one-lib", "[ldmkit.samplers]\nplain = other_sampler:Plain\n", {"other_sampler": SAMPLER})
    install("two-lib", "[ldmkit.samplers]\nplain = third_sampler:Plain\n", {"third_sampler": SAMPLER}, version="2.5")
    with pytest.raises(ldmkit.PluginError) as caught:
        ldmkit.get("sampler", "plain")
    assert caught.value.code == "plugin.ambiguous"
    for word in ("one-lib 1.0", "two-lib 2.5", "'one-lib:plain'", "'two-lib:plain'"):
        assert word in str(caught.value)
    assert ldmkit.get("sampler", "two-lib:plain").__module__ == "third_sampler"
    assert ldmkit.components("sampler").count("plain") == 1
    main(["plugins", "--kind", "sampler", "--json"])
    rows = [row for row in json.loads(capsys.readouterr().out) if row["name"] == "plain"]
    assert [row["distribution"] for row in rows] == ["one-lib", "two-lib"]


def test_a_conflict_with_an_in_tree_part(install: Install, class_pipe: ldmkit.Pipeline) -> None:
    """No installation takes an in-tree name away; the other part goes by its qualified name."""
    install("Other_Parts", "[ldmkit.samplers]\nddim = other_sampler:Plain\n", {"other_sampler": SAMPLER})
    assert ldmkit.get("sampler", "ddim") is ldmkit.get("sampler", "ldmkit:ddim")
    other = ldmkit.get("sampler", "other-parts:ddim")
    assert other.__module__ == "other_sampler"
    recipe = class_pipe({"label": 1}, sampler=other(), steps=2).recipes[0]
    assert recipe["sampler"]["type"] == "Other_Parts:ddim", "the recipe names the one that was used"
    assert class_pipe({"label": 1}, steps=2).recipes[0]["sampler"]["type"] == "ddim"


@pytest.mark.parametrize(
    ("variable", "value", "gone"),
    [
        ("LDMKIT_PLUGINS_DENY", "other-parts", True),
        ("LDMKIT_PLUGINS_DENY", "sampler:pl*", True),
        ("LDMKIT_PLUGINS_DENY", "other-parts:plain", True),
        ("LDMKIT_PLUGINS_DENY", "conditioner:*", False),
        ("LDMKIT_PLUGINS_ALLOW", "nothing-else", True),
        ("LDMKIT_PLUGINS_ALLOW", "x, other-*", False),
        ("LDMKIT_SAFE_MODE", "1", True),
        ("LDMKIT_SAFE_MODE", "0", False),
    ],
)
def test_allow_deny_and_safe_mode(
    install: Install, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, gone: bool
) -> None:
    install("other-parts", POINTS, {"other_sampler": SAMPLER, "other_modality": MODALITY})
    monkeypatch.setenv(variable, value)
    assert ("plain" not in ldmkit.components("sampler")) is gone
    if gone:
        with pytest.raises(ldmkit.PluginError, match="disabled"):
            ldmkit.get("sampler", "plain")
        assert "other_sampler" not in sys.modules
    else:
        assert ldmkit.get("sampler", "plain").__name__ == "Plain"
    if variable != "LDMKIT_PLUGINS_DENY":
        assert ldmkit.get("sampler", "ddim"), "in-tree parts are always allowed"


BROKEN = {
    "raises": ("raise RuntimeError('no luck')", "plugin.import-failed", "failed", "no luck"),
    "exits": ("raise SystemExit(3)", "plugin.import-failed", "failed", "SystemExit"),
    "syntax": ("def (:", "plugin.import-failed", "failed", "SyntaxError"),
    "core_error": ("import ldmkit\nraise ldmkit.SpecError('x', 'own error')", "plugin.import-failed", "failed",
                   "own error"),
    "needs": ("import a_library_nobody_has", "plugin.missing-dependency", "optional", "'a_library_nobody_has'"),
    "base_exception": ("class Stop(BaseException): ...\nraise Stop('own')", "plugin.import-failed", "failed",
                       "Stop: own"),
    "unreadable": ("class Odd(Exception):\n    def __str__(self): raise OSError\nraise Odd", "plugin.import-failed",
                   "failed", "Odd"),
    "circular": ("from broken_circular import Part\nclass Part: ...", "plugin.import-failed", "failed",
                 "partially init"),
    "metaclass": ("from abc import ABCMeta\nimport ldmkit\nclass M(type(ldmkit.Sampler)):\n"
                  "    def __getattribute__(cls, name):\n        raise OSError('no luck')\n"
                  "class Part(ldmkit.Sampler, metaclass=M): ...", "plugin.import-failed", "failed", "no luck"),
    "no_api": ("import ldmkit\nclass Part(ldmkit.Sampler):\n    api = '1'\n    def steps(self, *a): ...",
               "plugin.bad-api", "failed", "api is '1'"),
    "absent_name": ("", "plugin.import-failed", "failed", "'Part'"),
    "instance": ("Part = 3", "plugin.not-a-class", "failed", "3"),
    "wrong_kind": ("import ldmkit\nclass Part(ldmkit.Grid):\n    def sigmas(self, p, s): ...", "plugin.wrong-kind",
                   "failed", "not a subclass of ldmkit.Sampler"),
    "abstract": ("import ldmkit\nclass Part(ldmkit.Sampler): ...", "plugin.abstract", "failed", "steps"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_hurts_nobody_else(install: Install, name: str, capsys: pytest.CaptureFixture) -> None:
    source, code, status, word = BROKEN[name]
    install("broken-parts", f"[ldmkit.samplers]\nbad = broken_{name}:Part\n", {f"broken_{name}": source})
    install("other-parts", POINTS, {"other_sampler": SAMPLER, "other_modality": MODALITY})
    with pytest.raises(ldmkit.PluginError) as caught:
        ldmkit.get("sampler", "bad")
    assert caught.value.code == code and word in str(caught.value) and "broken-parts 1.0" in str(caught.value)
    assert ldmkit.get("sampler", "plain") and ldmkit.get("sampler", "ddim")
    assert main(["plugins", "--load", "--kind", "sampler", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["bad"]["status"] == status and word in rows["bad"]["reason"]
    assert rows["plain"]["status"] == rows["ddim"]["status"] == "ok"


def test_an_interrupted_import_is_interrupted(install: Install) -> None:
    install("broken-parts", "[ldmkit.samplers]\nbad = broken_keys:Part\n", {"broken_keys": "raise KeyboardInterrupt"})
    with pytest.raises(KeyboardInterrupt):
        ldmkit.get("sampler", "bad")


@pytest.mark.parametrize("config", ["dict", "{}", "int", "None"])
def test_a_module_wants_a_config(install: Install, config: str) -> None:
    source = f"import ldmkit\nclass Part(ldmkit.Perceptual):\n    Config = {config}\n    def forward(self, i, r): ..."
    install("broken-parts", "[ldmkit.perceptual]\nbad = broken_config:Part\n", {"broken_config": source})
    with pytest.raises(ldmkit.PluginError, match=r"bad-config.*Part\.Config is .*a subclass of ldmkit\.Value"):
        ldmkit.get("perceptual", "bad")


HARMFUL = """
    import torch
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)
    print("hello from an import")
    from other_sampler import Plain
"""


def test_what_an_import_changes_is_put_back(install: Install, capsys: pytest.CaptureFixture) -> None:
    """torch's defaults, and standard output, which a program may be reading."""
    install("harmful", "[ldmkit.samplers]\nharm = harmful:Plain\n", {"harmful": HARMFUL, "other_sampler": SAMPLER})
    assert main(["plugins", "show", "harm", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)[0]["status"] == "ok" and "hello from an import" in shown.err
    assert "warning: harmful 1.0 changed torch's defaults when harmful:Plain was imported" in shown.err
    made = torch.ones(1)
    assert made.dtype == torch.float32 and made.device.type == "cpu" and torch.is_grad_enabled()


def test_a_module_imported_while_a_part_is_built_on_meta_has_numbers(install: Install) -> None:
    text = SAMPLER.replace("import ldmkit\n\n", "import ldmkit\n    import torch\n\n    TABLE = torch.ones(2)\n\n", 1)
    install("tabled", "[ldmkit.samplers]\ntabled = tabled:Plain\n", {"tabled": text})
    with on_meta():
        cls = ldmkit.get("sampler", "tabled")
        assert torch.ones(1).is_meta
    assert not sys.modules[cls.__module__].TABLE.is_meta


@pytest.mark.parametrize(
    ("newest", "said", "works"),
    [(1, None, True), (1, 1, True), (2, None, True), (2, 1, True), (2, 2, True), (3, 2, True), (3, 3, True),
     (1, 2, False), (2, 3, False), (3, None, False), (3, 1, False)],
)  # fmt: skip
def test_api_versions_are_negotiated(
    install: Install, monkeypatch: pytest.MonkeyPatch, newest: int, said: int | None, works: bool
) -> None:
    """This version of a kind's contract and the one before it are supported; a class that says none is of version 1."""
    monkeypatch.setitem(kinds.API, "sampler", newest)
    source = SAMPLER if said is None else SAMPLER.replace("order = 1", f"order = 1\n        api = {said}")
    install("other-parts", "[ldmkit.samplers]\nplain = other_sampler:Plain\n", {"other_sampler": source})
    if works:
        assert ldmkit.get("sampler", "plain")
        return
    assert "plain" in ldmkit.components("sampler"), "nothing is imported to find out"
    with pytest.raises(ldmkit.PluginError) as caught:
        ldmkit.get("sampler", "plain")
    said = 1 if said is None else said
    assert caught.value.code == "plugin.incompatible"
    assert f"version {said} of the sampler contract" in caught.value.what and "other-parts 1.0" in str(caught.value)
    package = "ldmkit" if said > newest else "other-parts"
    assert caught.value.fits == f"pip install --upgrade {package}"
    judged = catalogue.verdict(catalogue.catalogue()[[e.name for e in catalogue.catalogue()].index("plain")])
    assert (judged.status, judged.remedy) == ("incompatible", caught.value.fits) and "plain" not in ldmkit.components(
        "sampler"
    )


def test_a_part_inherits_the_api_version(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kinds.API, "sampler", 4)
    source = SAMPLER.replace("order = 1", "order = 1\n        api = 3") + "\n    class Mine(Plain): ..."
    install("other-parts", "[ldmkit.samplers]\nmine = other_sampler:Mine\n", {"other_sampler": source})
    assert ldmkit.get("sampler", "mine")


def test_an_absent_module_of_its_own_is_a_failure(install: Install) -> None:
    install("broken-parts", "[ldmkit.samplers]\nbad = no_such_module:Part\n")
    with pytest.raises(ldmkit.PluginError, match=r"import-failed.*no module named 'no_such_module'"):
        ldmkit.get("sampler", "bad")


def test_an_incompatible_version(install: Install, capsys: pytest.CaptureFixture) -> None:
    points = "[ldmkit.samplers]\nplain = other_sampler:Plain\nddim = other_sampler:Plain\n"
    install("other-parts", points, {"other_sampler": SAMPLER}, requires=("torch", "ldmkit>=99", "ldmkit-other>=5"))
    with pytest.raises(ldmkit.PluginError, match=r"incompatible.*requires ldmkit>=99"):
        ldmkit.get("sampler", "plain")
    assert "plain" not in ldmkit.components("sampler")
    assert ldmkit.get("sampler", "ddim").__module__.startswith("ldmkit_samplers"), (
        "no conflict with what cannot be used"
    )
    main(["plugins", "--kind", "sampler"])
    assert "incompatible" in capsys.readouterr().out


def test_a_compatible_version(install: Install) -> None:
    install("other-parts", POINTS, {"other_sampler": SAMPLER}, requires=("ldmkit>=0.1", "ldmkit-other>=5"))
    assert ldmkit.get("sampler", "plain")


@pytest.mark.parametrize("points", ["[ldmkit.samplers]\nthis line has no value\n", "= = =\n[[["])
def test_damaged_metadata_hurts_nobody_else(install: Install, points: str, capsys: pytest.CaptureFixture) -> None:
    install("damaged-parts", points)
    install("other-parts", POINTS, {"other_sampler": SAMPLER})
    assert ldmkit.get("sampler", "plain") and ldmkit.get("sampler", "ddim")
    assert main(["plugins"]) == 0
    capsys.readouterr()


def test_deleting_an_entry_point_makes_the_part_vanish(tmp_path: Path) -> None:
    dist = metadata.distribution("ldmkit")
    info = tmp_path / "ldmkit-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: ldmkit\nVersion: {dist.version}\n")
    kept = [line for line in (dist.read_text("entry_points.txt") or "").splitlines() if not line.startswith("heun =")]
    (info / "entry_points.txt").write_text("\n".join(kept))
    code = "import ldmkit; print(*ldmkit.components('sampler')); ldmkit.get('sampler', 'heun')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, cwd=tmp_path,
    )  # fmt: skip
    assert "heun" not in done.stdout.split() and "euler" in done.stdout.split()
    assert "[plugin.unknown] no sampler named 'heun'" in done.stderr


def test_unregistered_parts_are_named() -> None:
    class Mine(ldmkit.Codec):
        channels, factor = 3, 1

        def encode(self, images: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
            return images

        def decode(self, latents: torch.Tensor) -> torch.Tensor:
            return latents

    with pytest.raises(ldmkit.PluginError, match=r"unregistered.*Mine.*entry point"):
        catalogue.name_of("codec", Mine)
