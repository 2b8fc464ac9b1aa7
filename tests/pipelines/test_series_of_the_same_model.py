"""A series goes on only with the model that drew what is there: the same weights, however read, placed and planned."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny_diffusers as tiny
import tiny_parts
import torch
from safetensors.torch import load_file, save_file

from ldmkit.cli import main
from ldmkit.models.digests import PAGE, _tensor_sums, weights_digest


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A native folder, a copy, one of other weights; a folder of diffusers."""
    base = tmp_path_factory.mktemp("models")
    pipe = tiny_parts.class_pipeline()
    found = {"own": pipe.save(base / "own"), "diffusers": tiny.saved(tiny.stable_diffusion(), base / "diffusers")}
    found["copy"] = Path(shutil.copytree(base / "own", base / "copy"))
    with torch.no_grad():
        next(p for p in pipe.denoiser.parameters() if p.ndim > 1).view(-1)[-1] += 1e-3
    found["retrained"] = pipe.save(base / "retrained")
    return found


def sample(model: Path, out: Path, *words: str) -> int:
    given = ["--label", "1"] if (model / "pipeline.json").exists() else ["--text", "a"]
    return main(["sample", str(model), *given, "--steps", "1", "-n", "2", "--out", str(out), "--json", *words])


@pytest.mark.parametrize(("second", "words", "what"), [
    ("own", [], None), ("copy", [], None), ("own", ["--batch", "1"], None),
    ("retrained", [], "weights"), ("own", ["--dtype", "bfloat16"], "load"),
    ("own", ["--place", "denoiser:streamed"], None), ("own", ["--place", "denoiser:bfloat16"], "placed"),
])  # fmt: skip
def test_the_same_or_refused(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], second: str, words: list[str],
    what: str | None,
) -> None:  # fmt: skip
    assert sample(models["own"], tmp_path / "o") == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "o").iterdir()}
    capsys.readouterr()
    code = sample(models[second], tmp_path / "o", *words)
    said = json.loads(capsys.readouterr().out)
    assert {path.name: path.read_bytes() for path in (tmp_path / "o").iterdir()} == before
    if what is None:
        assert code == 0 and said["present"] == 2 and not said["failed"]
    else:
        assert code == 2 and [one["code"] for one in said["failed"]] == ["input.other-output"] * 2
        assert all(one["what"].endswith(f"other {what}") for one in said["failed"])


def test_a_folder_of_diffusers_with_one_number_changed(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path(shutil.copytree(models["diffusers"], tmp_path / "m"))
    assert sample(model, tmp_path / "o") == 0 and sample(model, tmp_path / "o") == 0
    file = next((model / "unet").glob("*.safetensors"))
    tensors = load_file(str(file))
    tensors["conv_in.weight"][0, 0, 0, 0] += 1e-3
    file.unlink()
    save_file(tensors, str(file), {"format": "pt"})
    capsys.readouterr()
    assert sample(model, tmp_path / "o") == 2
    assert "other weights" in json.loads(capsys.readouterr().out)["failed"][0]["what"]
    assert sample(model, tmp_path / "o", "--overwrite") == 0 and sample(model, tmp_path / "o") == 0


def test_pictures_that_do_not_say(models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that a call of its own wrote under the name may be of any weights."""
    (tmp_path / "o").mkdir()
    words = ["--label", "1", "--steps", "1", "--out", str(tmp_path / "o" / "000000.png")]
    assert main(["sample", str(models["own"]), *words]) == 0
    capsys.readouterr()
    assert sample(models["own"], tmp_path / "o") == 2
    assert [one["index"] for one in json.loads(capsys.readouterr().out)["failed"]] == [0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.uint8, torch.float8_e4m3fn])
@pytest.mark.parametrize("size", [0, 1, 7, PAGE // 4, PAGE + 13])
def test_the_sums(dtype: torch.dtype, size: int) -> None:
    raw = torch.arange((size + 1) * dtype.itemsize, dtype=torch.int64).mul_(37).remainder_(2)
    tensor = raw.to(torch.uint8).view(dtype)[1:]  # its bytes begin off a word
    data = bytes(tensor.contiguous().view(torch.uint8).numpy())
    data += bytes(PAGE - len(data) % PAGE)
    words = [int.from_bytes(data[i : i + 8], "little") for i in range(0, len(data), 8)]
    want = [sum(words[i : i + PAGE // 8]) % 2**64 for i in range(0, len(words), PAGE // 8)]
    assert [int(one) % 2**64 for one in _tensor_sums(tensor)] == want


def test_names_shapes_and_dtypes_count() -> None:
    def made(**tensors: torch.Tensor) -> torch.nn.Module:
        module = torch.nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor)
        return module

    zero = torch.zeros(4)
    every = [made(a=zero), made(b=zero), made(a=zero.view(2, 2)), made(a=zero.int()), made(a=zero, b=zero), made()]
    assert len({weights_digest({"p": module}) for module in every}) == len(every)
    assert weights_digest({"p": made(a=zero)}) == weights_digest({"p": made(a=zero.clone())})
