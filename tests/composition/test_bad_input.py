"""Bad input: one table. Every case asserts the error's code and the words that matter, and that nothing is left."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from cases_calls import CALLS, Case, Env, L
from cases_checkpoints import CHECKPOINTS
from cases_cli import CLI, Cli
from cases_failures import FAILURES
from cases_files import FILES
from cases_strangers import STRANGERS
from cases_values import VALUES
from PIL import Image

import ldmkit
from ldmkit.cli import main

TABLE = [*CALLS, *VALUES, *FAILURES, *STRANGERS, *FILES, *CHECKPOINTS]


def test_the_table_is_long_enough() -> None:
    names = [case.name for case in TABLE]
    assert len(names) == len(set(names)) >= 450
    assert len(CLI) >= 57


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.name.replace(" ", "-"))
def test_bad_input(case: Case, env: Env) -> None:
    with pytest.raises(ldmkit.LdmkitError) as caught:
        case.act(env)
    error = caught.value
    assert error.code in ((case.code,) if isinstance(case.code, str) else case.code), str(error)
    for word in case.words:
        assert word in str(error), f"{word!r} is not in: {error}"
    assert not list(env.tmp.rglob(".*")), "a temporary file was left behind"


@pytest.mark.parametrize("cli", CLI, ids=lambda cli: cli.name.replace(" ", "-"))
def test_bad_input_at_the_command_line(cli: Cli, env: Env, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(a) for a in cli.arguments(env)]
    before = listing(env.tmp)
    code = main(arguments)
    out, err = capsys.readouterr()
    assert code == cli.exit_code, err
    assert len(err.splitlines()) == 1 and err.startswith(f"error [{cli.code}]"), err
    assert out == ""
    assert all(word in err for word in cli.words), err
    assert listing(env.tmp) == before


def listing(folder: Path) -> dict[str, int]:
    """Every file below a folder and its size."""
    return {str(path): path.stat().st_size for path in sorted(folder.rglob("*"))}


def test_exif_rotation_is_applied(class_pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    picture = Image.fromarray(levels)
    exif = picture.getexif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to look at it
    picture.save(tmp_path / "turned.png", exif=exif)
    out = class_pipe(L, steps=4, start={"image": tmp_path / "turned.png", "mask": np.zeros((10, 6), np.uint8)})
    assert np.array_equal(np.asarray(out.pil()[0]), np.rot90(levels, -1))


def test_a_picture_of_one_pixel_is_padded(kl_pipe: ldmkit.Pipeline) -> None:
    one = np.full((1, 1, 3), 77, np.uint8)
    out = kl_pipe(L, steps=2, start={"image": one, "strength": 1.0})
    assert out.images.shape == (1, 3, 1, 1) and kl_pipe.encode(one).shape == (1, 2, 1, 1)


def test_opaque_alpha_is_no_alpha(class_pipe: ldmkit.Pipeline) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    levels[..., 3] = 255
    assert torch.equal(class_pipe.encode(Image.fromarray(levels)), class_pipe.encode(levels[..., :3].copy()))


def test_empty_and_very_long_prompts(text_pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    empty = text_pipe({"text": ""}).latents
    assert torch.equal(empty, text_pipe({}).latents)  # the null of a text model is the empty prompt
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    pipe = ldmkit.load(text_pipe.save(tmp_path / "text"))
    pipe.conditioners["text"].load_assets(tmp_path)
    with pytest.warns(UserWarning, match="9 tokens, 6 fit; cut: 'g h i'"):
        cut = pipe({"text": "a b c d e f g h i"}, grid="karras").latents
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(cut, pipe({"text": "a b c d e f"}, grid="karras").latents)


def test_nothing_stays_on_meta(scene_folder: Path) -> None:
    pipe = ldmkit.load(scene_folder)
    for part in pipe.parts.items().values():
        assert not any(t.is_meta for t in (*part.parameters(), *part.buffers()))


def test_duplicate_condition_names_in_json(env: Env) -> None:
    folder = env.folder()
    text = json.dumps(json.loads((folder / "pipeline.json").read_text())["conditioners"]["label"])
    spec = (folder / "pipeline.json").read_text().replace('"conditioners": {', f'"conditioners": {{"label": {text},')
    (folder / "pipeline.json").write_text(spec)
    with pytest.raises(ldmkit.SourceError, match="duplicate key 'label'"):
        ldmkit.load(folder)


def test_a_failed_save_keeps_the_old_folder(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = env.folder()
    before = listing(env.tmp)
    full = OSError(28, "disk full")
    monkeypatch.setattr("ldmkit.models.saving.write_safetensors", lambda *_: (_ for _ in ()).throw(full))
    with pytest.raises(ldmkit.RunError, match="disk full"):
        env.kl.save(folder)
    assert listing(env.tmp) == before


def test_links_inside_the_cache_of_the_hub_are_followed(env: Env) -> None:
    snapshot = env.tmp / "models--a--b" / "snapshots" / "0123"
    snapshot.parent.mkdir(parents=True)
    folder = env.folder().rename(snapshot)
    blobs = env.tmp / "models--a--b" / "blobs"
    blobs.mkdir()
    for i, file in enumerate(sorted(p for p in folder.rglob("*") if p.is_file())):
        file.rename(blobs / str(i))
        file.symlink_to(blobs / str(i))
    assert torch.equal(ldmkit.load(folder)(L).images, env.pipe(L).images)
