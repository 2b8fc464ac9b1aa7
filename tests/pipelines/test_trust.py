"""A recipe in a picture is a stranger's word: replay reads nothing elsewhere and does no endless work, unless asked."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, PngImagePlugin

import ldmkit
from ldmkit import loading
from ldmkit.cli import main
from ldmkit.files.reading import only_within
from ldmkit.models import reading
from ldmkit.replaying import replay
from ldmkit.run.recipe import read_recipe


@pytest.fixture
def drawn(class_folder: Path, tmp_path: Path) -> Path:
    """A picture with its model in its own folder."""
    model = Path(shutil.copytree(class_folder, tmp_path / "shared" / "model"))
    (path,) = ldmkit.load(model)({"label": 1}, steps=2).save(tmp_path / "shared" / "a.png")
    return path


def changed(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    with Image.open(path) as opened:
        picture, recipe = opened.copy(), json.loads(opened.text["ldmkit"])
    change(recipe)
    info = PngImagePlugin.PngInfo()
    info.add_itxt("ldmkit", json.dumps(recipe))
    picture.save(path, pnginfo=info)
    return path


def test_what_lies_beside_the_picture_is_used(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(drawn), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["largest_difference"] == 0


def start(path: str, mask: str | None = None) -> Callable[[dict[str, Any]], Any]:
    return lambda recipe: recipe.update(start={"image": path, "strength": 0.5, "mask": mask})


ASKED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a model elsewhere": (lambda r: r.update(model="/opt/models/x"), "/opt/models/x"),
    "a model on the hub": (lambda r: r.update(model="hf:someone/something"), "on the hub"),
    "a way up": (lambda r: r.update(model=str(Path(r["model"]) / ".." / ".." / "other")), "other"),
    "a config": (lambda r: r["load"].update(config="/etc/passwd"), "/etc/passwd"),
    "a start picture": (start("/dev/zero"), "/dev/zero"),
    "a mask": (start("data:image/png;base64,", "/proc/self/environ"), "environ"),
    "steps": (lambda r: r.update(steps=10**7), "10000000 steps"),
    "a size": (lambda r: r.update(size=[2**20, 2**20]), "pixels"),
}


@pytest.mark.parametrize("asked", ASKED)
def test_what_is_asked_for_is_said_and_not_done(
    asked: str, drawn: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    change, word = ASKED[asked]
    monkeypatch.setattr(loading, "load", lambda *_, **__: pytest.fail("it was loaded"))
    assert main(["replay", str(changed(drawn, change))]) == 3
    said = capsys.readouterr().err
    assert said.startswith("error [source.recipe-needs]") and word in said and "--trust" in said


def test_a_link_out_of_the_folder_is_followed_and_refused(drawn: Path, tmp_path: Path, class_folder: Path) -> None:
    link = drawn.parent / "link"
    link.symlink_to(class_folder)
    assert main(["replay", str(changed(drawn, lambda r: r.update(model=str(link))))]) == 3
    assert main(["replay", str(drawn), "--trust"]) == 0
    assert main(["replay", str(drawn), "--model", str(class_folder)]) == 0


def test_a_path_in_a_field_of_any_name_reaches_no_file(image_pipe_recipe: tuple[ldmkit.Pipeline, Any]) -> None:
    pipe, recipe = image_pipe_recipe
    with pytest.raises(ldmkit.LdmkitError) as caught:
        replay(pipe, recipe)
    assert caught.value.code in ("source.recipe-needs", "input.picture-unreadable", "input.not-trusted")


@pytest.fixture
def image_pipe_recipe(class_folder: Path, tmp_path: Path) -> tuple[ldmkit.Pipeline, Any]:
    pipe = ldmkit.load(class_folder)
    recipe = dict(pipe({"label": 1}, steps=2).recipes[0])
    Image.new("RGB", (8, 8)).save(tmp_path / "other.png")
    recipe["start"] = str(tmp_path / "other.png")
    return pipe, recipe


def test_python_asks_as_well(class_folder: Path, tmp_path: Path) -> None:
    pipe = ldmkit.load(class_folder)
    Image.new("RGB", (8, 8)).save(tmp_path / "start.png")
    recipe = dict(pipe({"label": 1}, steps=2).recipes[0])
    recipe["start"] = {"image": str(tmp_path / "start.png"), "strength": 0.5, "mask": None}
    with pytest.raises(ldmkit.SourceError, match=r"start\.png") as caught:
        replay(pipe, recipe)
    assert caught.value.code == "source.recipe-needs"
    assert replay(pipe, recipe, folder=tmp_path).images.shape == replay(pipe, recipe, trust=True).images.shape


def classifier(model: str, depth: int = 0) -> Callable[[dict[str, Any]], Any]:
    guidance: dict[str, Any] = {"type": "classifier", "config": {"model": model, "labels": [1], "scale": 1.0}}
    for _ in range(depth):
        guidance = {"type": "classifier", "config": {"model": "miniworld", "labels": [1], "base": guidance}}
    return lambda recipe: recipe.update(guidance=guidance)


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("model", ["hf:someone/judge", "/dev/zero", "~/judge", "../../judge", "/etc"])
def test_a_classifier_of_the_recipe_is_a_file_like_others(
    model: str, depth: int, drawn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(changed(drawn, classifier(model, depth)))]) == 3
    said = capsys.readouterr().err
    assert "source.recipe-needs" in said and model in said


def test_a_recipe_that_lacks_something_is_damaged(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = drawn.read_bytes()
    keys = set(read_recipe(drawn)) - {"ldmkit", "torch", "plan"}
    assert {"model", "start", "parts", "load", "seed", "guidance"} <= keys
    for key in sorted(keys):
        drawn.write_bytes(original)
        changed(drawn, lambda recipe, key=key: recipe.pop(key))  # type: ignore[misc]
        assert main(["replay", str(drawn)]) == 3
        said = capsys.readouterr().err
        assert "source.no-recipe" in said and repr(key) in said
        with pytest.raises(ldmkit.SourceError, match="no-recipe"):
            replay(ldmkit.load("miniworld"), recipe_of(drawn))
    with pytest.raises(ldmkit.InputError, match="not-a-mapping"):
        replay(ldmkit.load("miniworld"), 5)  # type: ignore[arg-type]


def recipe_of(path: Path) -> dict[str, Any]:
    with Image.open(path) as opened:
        found: dict[str, Any] = json.loads(opened.text["ldmkit"])  # type: ignore[attr-defined]
    return found


def test_no_hub_is_asked_whoever_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("the hub was asked"))
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_, **__: pytest.fail("the hub was asked"))
    with only_within(tmp_path), pytest.raises(ldmkit.SourceError, match="not-trusted"):
        ldmkit.load("hf:someone/something")


def test_no_reader_opens_anything_outside(tmp_path: Path, class_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (inside := tmp_path / "inside").mkdir()
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "a.ckpt")
    shutil.copy(class_folder / "denoiser.safetensors", tmp_path / "a.safetensors")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model_index.json").write_text("{}")
    opened = Path.open
    monkeypatch.setattr(
        Path,
        "open",
        lambda self, *a, **k: (
            pytest.fail(f"{self} was opened") if self.is_relative_to(tmp_path) else opened(self, *a, **k)
        ),
    )
    for source in (tmp_path / "a.ckpt", tmp_path / "a.safetensors", tmp_path / "folder", class_folder):
        with only_within(inside), pytest.raises(ldmkit.SourceError, match="not-trusted"):
            ldmkit.load(source)


def test_a_model_beside_the_picture_reads_nothing_elsewhere(
    drawn: Path, class_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder of diffusers may consist of links, as the hub's cache does; a stranger's may not lead out."""
    model = drawn.parent / "model"
    (model / "denoiser.safetensors").unlink()
    (model / "denoiser.safetensors").symlink_to(class_folder / "denoiser.safetensors")
    assert main(["replay", str(drawn)]) == 3
    assert "path-escapes" in capsys.readouterr().err


ODD = [
    *("", "~", "~/x", "$HOME/x", "%USERPROFILE%", "file:///etc/passwd", "FILE:/etc/passwd", "http://x/y.png", "HF:x/y"),
    *("//etc/passwd", "/ETC/passwd", "./../../x", "x" * 5000, "a\0b", "\x1b]0;title\x07", "\u202etxt.exe"),
    *("C:\\x", "\\\\h\\s"),
    *("/proc/self/environ", "/dev/stdin", "/dev/tty", "pipe:", "-", "--trust"),
]  # fmt: skip


@pytest.mark.parametrize("place", ["model", "load.config", "start.image", "start.mask", "guidance.config.model"])
def test_odd_names_in_every_place(
    place: str, drawn: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "locate", lambda *_: pytest.fail("it was looked for"))
    original = drawn.read_bytes()
    for odd in ODD:
        drawn.write_bytes(original)

        def change(recipe: dict[str, Any], odd: str = odd) -> None:
            if place.startswith("start"):
                recipe["start"] = {"image": "data:image/png;base64,", "strength": 0.5, "mask": None}
            if place.startswith("guidance"):
                classifier("x")(recipe)
            at = recipe
            *above, last = place.split(".")
            for key in above:
                at = at[key]
            at[last] = odd

        code = main(["replay", str(changed(drawn, change))])
        said = capsys.readouterr().err
        assert code == 3 and "source.recipe-needs" in said, (odd, said)
        assert all(line.isprintable() for line in said.splitlines()) and len(said) < 2000
