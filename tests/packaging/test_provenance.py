"""A saved pipeline says where its parts come from; loading it elsewhere says what is missing or differs."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import tiny_parts
import torch
from broken_distributions import GRID, GUIDANCE, MODALITY, SAMPLER

import ldmkit
from ldmkit.cli import main
from ldmkit.models.provenance import STRATEGIES
from ldmkit.models.source import SPEC_FILE
from ldmkit.plugins import catalogue
from ldmkit.replaying import replay

Install = Callable[..., Path]

SOUND = "[ldmkit.conditioners]\nloudness = sound_parts:Loudness\n"
STEPS = """
[ldmkit.samplers]
steady = step_parts:Steady
[ldmkit.grids]
even = step_grids:Even
[ldmkit.guidance]
gentle = step_guidance:Gentle
"""
STEP_FILES = {"step_parts": SAMPLER, "step_grids": GRID, "step_guidance": GUIDANCE}


def sound_pipeline(**defaults: Any) -> ldmkit.Pipeline:
    return ldmkit.Pipeline.of(
        codec=tiny_parts.part("codec", "identity", {}),
        denoiser=tiny_parts.unet(3),
        process=ldmkit.get("process", "discrete")(),
        conditioners={"sound": tiny_parts.part("conditioner", "loudness", {})},
        defaults={"size": (8, 8), "steps": 4} | defaults,
    )


@pytest.fixture
def saved(install: Install, tmp_path: Path) -> Path:
    """A pipeline of parts of two distributions, saved with version 1.0 of both."""
    install("sound-parts", SOUND, {"sound_parts": MODALITY})
    install("step-parts", STEPS, STEP_FILES)
    pipe = sound_pipeline(sampler={"type": "steady"}, grid={"type": "even"}, guidance={"type": "gentle"})
    return pipe.save(tmp_path / "model")


def reinstall(site: Path, name: str, version: str, source: tuple[str, str] | None = None) -> None:
    """Another version of an installed distribution, or none (version "")."""
    (folder,) = site.glob(f"{name.replace('-', '_')}-*.dist-info")
    if not version:
        shutil.rmtree(folder)
    else:
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        folder.rename(folder.with_name(f"{name.replace('-', '_')}-{version}.dist-info"))
    if source is not None:
        module, text = source
        exec(compile(text, module, "exec"), vars(__import__(module)))
    catalogue.refresh()


def site_of(install: Install) -> Path:
    return install("unrelated", "")


def test_every_part_names_distribution_and_version(saved: Path) -> None:
    spec = json.loads((saved / SPEC_FILE).read_text())
    version = ldmkit.__version__
    named = {path: (part["distribution"], part["version"]) for path, part in parts_of(spec).items()}
    assert named == {
        "codec": ("ldmkit", version),
        "denoiser": ("ldmkit", version),
        "process": ("ldmkit", version),
        "conditioners.sound": ("sound-parts", "1.0"),
        **{f"defaults.{kind}": ("step-parts", "1.0") for kind in STRATEGIES},
    }
    assert named == {
        path: (part["distribution"], part["version"])
        for path, part in parts_of(ldmkit.load(saved).spec.to_json()).items()
    }


def parts_of(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = {kind: spec[kind] for kind in ("codec", "denoiser", "process")}
    found |= {f"conditioners.{name}": part for name, part in spec["conditioners"].items()}
    found |= {f"adapters.{name}": part for name, part in spec.get("adapters", {}).items()}
    return found | {f"defaults.{kind}": spec["defaults"][kind] for kind in STRATEGIES}


def test_adapters_and_parts_in_parts_are_named_too(tmp_path: Path) -> None:
    tiled = tiny_parts.part("codec", "tiled", {"inner": {"type": "identity", "config": {}}})
    pipe = ldmkit.Pipeline.of(codec=tiled, denoiser=tiny_parts.unet(3, None), process=ldmkit.get("process", "edm")())
    spec = json.loads((pipe.save(tmp_path / "model") / SPEC_FILE).read_text())
    assert spec["codec"]["config"]["inner"] == {
        "type": "identity", "config": spec["codec"]["config"]["inner"]["config"], "distribution": "ldmkit",
        "version": ldmkit.__version__,
    }  # fmt: skip
    assert ldmkit.load(tmp_path / "model").spec == pipe.spec
    spec["codec"]["config"]["inner"] |= {"type": "spiral", "distribution": "spiral-codec", "version": "3.1"}
    del spec["digest"]
    (tmp_path / "model" / SPEC_FILE).write_text(json.dumps(spec))
    with pytest.raises(ldmkit.PluginError, match=r"not-installed.*codec\.inner.*pip install spiral-codec==3\.1"):
        ldmkit.load(tmp_path / "model")


def test_a_spec_is_compared_without_its_weights(
    install: Install, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reinstall(site_of(install), "sound-parts", "2.0")
    assert main(["check", str(saved), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["differences"] == [
        "saved with sound-parts 1.0, loaded with 2.0 (conditioners.sound)"
    ]
    assert main(["check", str(saved)]) == 0
    assert capsys.readouterr().out.endswith("  saved with sound-parts 1.0, loaded with 2.0 (conditioners.sound)\n")


def test_the_same_versions_are_not_mentioned(saved: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ldmkit.load(saved)
        ldmkit.load("miniworld")


def test_what_to_install_is_said(install: Install, saved: Path) -> None:
    site = site_of(install)
    reinstall(site, "sound-parts", "")
    with pytest.raises(ldmkit.PluginError) as caught:
        ldmkit.load(saved)
    assert caught.value.code == "plugin.not-installed" and caught.value.fits == "pip install sound-parts==1.0"
    assert caught.value.what == "conditioners.sound requires 'loudness' from sound-parts 1.0"


def test_all_that_is_missing_is_said_at_once(install: Install, saved: Path) -> None:
    spec = json.loads((saved / SPEC_FILE).read_text())
    spec["codec"] |= {"type": "spiral", "distribution": "spiral-codec", "version": "3.1"}
    del spec["digest"]
    (saved / SPEC_FILE).write_text(json.dumps(spec))
    reinstall(site_of(install), "sound-parts", "")
    with pytest.raises(ldmkit.PluginError) as caught:
        ldmkit.load(saved)
    assert caught.value.fits == "pip install spiral-codec==3.1 sound-parts==1.0"


def test_a_missing_default_sampler_is_said_and_can_be_replaced(install: Install, saved: Path) -> None:
    reinstall(site_of(install), "step-parts", "")
    with pytest.warns(UserWarning, match=r"defaults\.sampler requires 'steady'.*pip install step-parts==1\.0") as seen:
        pipe = ldmkit.load(saved)
    assert len(seen) == 1 and "another sampler" in str(seen[0].message)
    assert pipe({"sound": [0.0, 0.5, 1.0]}, sampler="euler", grid="karras", guidance=2.0).images.shape == (1, 3, 8, 8)
    with pytest.raises(ldmkit.PluginError, match=r"not-installed.*pip install step-parts==1\.0"):
        pipe({}, grid="karras", guidance=2.0)


def test_a_recipe_says_what_its_sampler_needs(install: Install, saved: Path) -> None:
    pipe = ldmkit.load(saved)
    recipe = pipe({"sound": [0.0, 0.5, 1.0]}).recipes[0]
    assert {recipe[kind]["distribution"] for kind in STRATEGIES} == {"step-parts"}
    assert torch.equal(replay(pipe, recipe).latents, pipe({"sound": [0.0, 0.5, 1.0]}).latents)
    reinstall(site_of(install), "step-parts", "")
    with pytest.raises(ldmkit.PluginError, match=r"not-installed.*pip install step-parts==1\.0"):
        replay(pipe, recipe)


def test_another_version_is_one_warning(install: Install, saved: Path) -> None:
    site, loud = site_of(install), {"sound": [0.0, 0.5, 1.0]}
    before = ldmkit.load(saved)(loud).latents
    field = "dim: int = Field(default=8, ge=1, le=64)"
    newer = MODALITY.replace(field, f"{field}\n        gain: float = 1.0")
    reinstall(site, "sound-parts", "2.0", ("sound_parts", dedent(newer)))
    reinstall(site, "step-parts", "1.1")
    with pytest.warns(UserWarning) as seen:
        pipe = ldmkit.load(saved)
    assert [str(one.message) for one in seen] == [
        f"{saved}: saved with sound-parts 1.0, loaded with 2.0 (conditioners.sound: new fields at their defaults: "
        "gain = 1.0); saved with step-parts 1.0, loaded with 1.1 "
        "(defaults.sampler, defaults.grid, defaults.guidance)"
    ]
    assert torch.equal(pipe(loud).latents, before)
    assert pipe.spec.conditioners["sound"].version == "2.0"


@pytest.mark.parametrize(
    ("old", "new", "error", "what"),
    [
        ("dim: int = Field(default=8, ge=1, le=64)", "width: int = 8", ldmkit.SpecError, "unknown key 'dim'"),
        ("self.project =", "self.linear = self.project =", ldmkit.WeightsError, "missing: 'linear.weight'"),
        ("3, self.dim)", "3, self.dim, bias=False)", ldmkit.WeightsError, "unexpected tensor(s): 'project.bias'"),
        ("nn.Linear(3, self.dim)", "nn.Linear(4, self.dim)", ldmkit.WeightsError, "has shape"),
    ],
    ids=["config", "missing", "unexpected", "shape"],
)  # fmt: skip
def test_a_version_that_does_not_load_is_named(
    install: Install, saved: Path, old: str, new: str, error: type[ldmkit.LdmkitError], what: str
) -> None:
    """What does not fit is an error as ever, which says which version wrote it and how to get that."""
    reinstall(site_of(install), "sound-parts", "2.0", ("sound_parts", dedent(MODALITY.replace(old, new))))
    with pytest.raises(error) as caught:
        ldmkit.load(saved)
    assert what in caught.value.what
    assert str(caught.value.fits).endswith(
        "written by sound-parts 1.0, but 2.0 is installed: pip install sound-parts==1.0"
    )


def test_a_version_without_the_part(install: Install, saved: Path) -> None:
    site = site_of(install)
    reinstall(site, "sound-parts", "2.0")
    (site / "sound_parts-2.0.dist-info" / "entry_points.txt").write_text("")
    catalogue.refresh()
    with pytest.raises(ldmkit.PluginError) as caught:
        ldmkit.load(saved)
    assert "the installed sound-parts 2.0 has no conditioner of that name" in caught.value.what
    assert caught.value.fits == "pip install sound-parts==1.0"


def test_the_recorded_distribution_decides(install: Install, saved: Path) -> None:
    """Of several distributions with one name; where it is gone and another has the name, that is said."""
    install("loud-parts", "[ldmkit.conditioners]\nloudness = loud_parts:Loudness\n", {"loud_parts": MODALITY})
    with pytest.raises(ldmkit.PluginError, match="ambiguous"):
        ldmkit.get("conditioner", "loudness")
    assert type(ldmkit.load(saved).conditioners["sound"]).__module__ == "sound_parts"
    reinstall(site_of(install), "sound-parts", "")
    with pytest.warns(
        UserWarning, match=r"saved with sound-parts 1\.0, loaded with loud-parts 1\.0 \(conditioners\.sound"
    ):
        assert type(ldmkit.load(saved).conditioners["sound"]).__module__ == "loud_parts"


def test_a_codec_alone_is_compared_too(install: Install, saved: Path) -> None:
    spec = json.loads((saved / SPEC_FILE).read_text())
    spec["codec"]["version"] = "0.0.9"
    del spec["digest"]
    (saved / SPEC_FILE).write_text(json.dumps(spec))
    with pytest.warns(UserWarning, match=rf"saved with ldmkit 0\.0\.9, loaded with {ldmkit.__version__} \(codec\)"):
        ldmkit.load_codec(saved)
