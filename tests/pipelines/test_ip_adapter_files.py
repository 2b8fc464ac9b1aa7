"""IP-Adapters: damaged files, files for others, inputs that do not fit; batches, patches, saving, replaying."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import ip_files as made
import numpy as np
import pytest
import tiny_diffusers as tiny
import torch
from ldmkit_denoisers.patched import PatchedDenoiser
from PIL import Image

import ldmkit
from ldmkit.cli import main
from ldmkit.errors import InputError, LdmkitError, SourceError, WeightsError
from ldmkit.replaying import replay, with_updates

OURS: dict[str, Any] = {"steps": 2, "guidance": 3.0, "seeds": [3], "size": 32}
TEXT = {"text": "the red house"}
NAN = float("nan")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, ldmkit.Pipeline]:
    theirs = tiny.stable_diffusion()
    folder = tiny.saved(theirs, tmp_path_factory.mktemp("base"))
    return theirs, folder, ldmkit.load(folder)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def mine(base: tuple[Any, Path, ldmkit.Pipeline], images: Path, tmp_path: Path) -> ldmkit.Pipeline:
    return base[2].with_adapter_file(
        made.saved(made.adapter(base[0].unet, "plus"), tmp_path / "ip.bin"), encoder=images
    )


def changed(halves: dict[str, Any], half: str, key: str, tensor: Any) -> dict[str, Any]:
    """A file with another tensor, or without it."""
    own = {**halves[half], key: tensor}
    return {**halves, half: {name: one for name, one in own.items() if one is not None}}


BAD: dict[str, tuple[str, tuple[str, str, Any], type[LdmkitError], str]] = {
    "another width": ("plain", ("ip_adapter", "3.to_k_ip.weight", torch.ones(320, 768)), SourceError,
                      r"other-base.*'ip_adapter\.3\.to_k_ip\.weight' has shape \[320, 768\].*takes \[64, 32\]"),
    "more attentions": ("plain", ("ip_adapter", "9.to_k_ip.weight", torch.ones(64, 32)), SourceError,
                        r"other-base.*ip_adapter\.9 is not among this pipeline's 4"),
    "a key left out": ("plain", ("ip_adapter", "5.to_v_ip.weight", None), WeightsError,
                       r"missing.*ip_adapter\.5\.to_v_ip\.weight"),
    "no norm": ("plain", ("image_proj", "norm.weight", None), WeightsError, r"missing.*image_proj\.norm\.weight"),
    "half a resampler": ("plus", ("image_proj", "layers.2.0.to_kv.weight", None), WeightsError,
                         r"missing.*layers\.2\.0\.to_kv"),
    "a key too many": ("plus", ("image_proj", "layers.1.2.weight", torch.ones(2)), WeightsError,
                       r"unexpected.*layers\.1\.2"),
    "an odd norm": ("plain", ("image_proj", "norm.weight", torch.ones(31)), WeightsError,
                    r"wrong-shape.*128 numbers, no multiple of 31"),
    "heads": ("plus", ("image_proj", "layers.0.0.to_q.weight", torch.ones(100, 24)), WeightsError,
              r"wrong-shape.*100 channels.*64"),
    "NaN": ("plain", ("image_proj", "proj.bias", torch.full((128,), NAN)), WeightsError, "not-finite.*projection"),
    "NaN among keys": ("plus", ("ip_adapter", "1.to_v_ip.weight", torch.full((64, 32), NAN)), WeightsError,
                       r"not-finite.*to_v\.0"),
    "a FaceID": ("plain", ("image_proj", "proj.2.weight", torch.ones(2, 2)), SourceError, "unsupported.*FaceID.*plus"),
    "a FaceID's LoRA": ("plain", ("ip_adapter", "1.to_q_lora.down.weight", torch.ones(2, 2)), SourceError,
                        "unsupported.*to_q_lora.*FaceID"),
    "an unknown projection": ("plain", ("image_proj", "proj.weight", None), SourceError, r"unknown-key.*image_proj"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_bad_files(
    base: tuple[Any, Path, ldmkit.Pipeline], images: Path, tmp_path: Path, name: str, suffix: str
) -> None:
    """Each names the file and the key; nothing stays attached."""
    kind, (half, key, tensor), error, words = BAD[name]
    file = made.saved(changed(made.adapter(base[0].unet, kind), half, key, tensor), tmp_path / f"ip{suffix}")
    with pytest.raises(error, match=words) as found:
        base[2].with_adapter_file(file, encoder=images)
    assert str(file) in str(found.value)
    assert not any(port.taps for port in base[2].denoiser.ports.values())


def test_of_another_base(base: tuple[Any, Path, ldmkit.Pipeline], images: Path, tmp_path: Path) -> None:
    """SDXL's file on Stable Diffusion 1 and the other way round; on a network without text; as a LoRA; as a model."""
    xl = tiny.stable_diffusion_xl()
    ours = ldmkit.load(tiny.saved(xl, tmp_path / "xl"))
    for pipe, unet in ((base[2], xl.unet), (ours, base[0].unet)):
        file = made.saved(made.adapter(unet, "plain"), tmp_path / "ip.safetensors")
        words = r"other-base.*'ip_adapter\.1\.to_k_ip\.weight' has shape \[64, (32|64)\], .*'cross\..*takes \[64, "
        with pytest.raises(SourceError, match=words):
            pipe.with_adapter_file(file, encoder=images)
        with pytest.raises(SourceError, match=r"unrecognised.*with_adapter_file"):
            pipe.with_lora(file)
        for load in (ldmkit.load, ldmkit.load_adapter):
            with pytest.raises(SourceError, match=r"IP-Adapter.*with_adapter_file"):
                load(file)


def test_bad_encoders(base: tuple[Any, Path, ldmkit.Pipeline], images: Path, tmp_path: Path) -> None:
    file = made.saved(made.adapter(base[0].unet, "plain"), tmp_path / "ip.bin")
    other = made.encoder(tmp_path / "other", projection_dim=44, hidden_size=44)
    (tmp_path / "empty").mkdir()
    for options, error, words in (
        ({"encoder": other}, SourceError, "other-encoder.*projected states 44 wide.*reads 40"),
        ({"encoder": tmp_path / "empty"}, SourceError, "no-encoder.*config.json"),
        ({"encoder": file}, SourceError, "no-encoder"),
        ({"encoder": tmp_path / "absent"}, SourceError, "not-found"),
        ({"encoder": 3}, InputError, "path-type.*encoder|encoder.*path-type"),
        ({"encoder": images, "length": 9}, LdmkitError, "one token a picture, not 9"),
        ({"encoder": images, "scales": {"middle": 0.5}}, LdmkitError, r"scales\.middle.*mid"),
        ({"encoder": images, "sclae": 0.5}, LdmkitError, "sclae.*scale"),
        ({"encoder": images, "scale": NAN}, LdmkitError, "scale"),
        ({"encoder": images, "regions": "two"}, LdmkitError, "regions"),
    ):
        with pytest.raises(error, match=words):
            base[2].with_adapter_file(file, **options)
    plus = made.saved(made.adapter(base[0].unet, "plus"), tmp_path / "plus.bin")
    with pytest.raises(SourceError, match=r"other-encoder.*penultimate states 44 wide.*reads 48"):
        base[2].with_adapter_file(plus, encoder=other)


def test_halves(base: tuple[Any, Path, ldmkit.Pipeline], tmp_path: Path) -> None:
    """One half, one of no tensors, and the names that IP-Adapter's training gives them, with its frozen U-Net."""
    halves = made.adapter(base[0].unet, "plain")
    for name in halves:
        torch.save({name: halves[name]}, tmp_path / "half.bin")
        with pytest.raises(WeightsError, match=rf"missing.*'{name}' alone"):
            base[2].with_adapter_file(tmp_path / "half.bin")
    torch.save({**halves, "ip_adapter": {"1.to_k_ip.weight": "x"}}, tmp_path / "odd.bin")
    with pytest.raises(SourceError, match=r"no-tensors.*to_k_ip.*is a str"):
        base[2].with_adapter_file(tmp_path / "odd.bin")
    names = {"image_proj": "image_proj_model", "ip_adapter": "adapter_modules"}
    trained = {f"{names[half]}.{key}": one for half, own in halves.items() for key, one in own.items()}
    torch.save({**trained, "unet.conv_in.bias": torch.ones(2)}, tmp_path / "trained.bin")
    mine = base[2].with_adapter_file(tmp_path / "trained.bin").adapters["trained"].state_dict()
    same = base[2].with_adapter_file(made.saved(halves, tmp_path / "same.bin")).adapters["same"].state_dict()
    assert all(torch.equal(mine[key], same[key]) for key in same)


@pytest.mark.parametrize("share", [0.1, 0.6, 0.99])
@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_half_a_file(
    base: tuple[Any, Path, ldmkit.Pipeline], images: Path, tmp_path: Path, share: float, suffix: str
) -> None:
    file = made.saved(made.adapter(base[0].unet, "plus"), tmp_path / f"ip{suffix}")
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(LdmkitError) as found:
        base[2].with_adapter_file(file, encoder=images)
    assert file.name in str(found.value) and "crashed" not in found.value.code


def test_bad_inputs(mine: ldmkit.Pipeline) -> None:
    picture, mask = made.picture(1), made.mask(1)
    see_through = Image.new("RGBA", (30, 30), (1, 2, 3, 100))
    for inputs, words in (
        ({"ip-image": see_through}, "picture-alpha|transparent"),
        ({"ip-image": picture.convert("CMYK")}, "CMYK"),
        ({"ip-image": Image.fromarray(np.zeros((9, 9), np.uint16))}, "8 bits"),
        ({"ip-image": []}, "picture-count"),
        ({"ip-image": [picture, "absent.png"]}, r"ip-image.*\[1\]|absent\.png"),
        ({"ip-image": 3}, "ip-image"),
        ({"ip-image": picture, "ip-region": made.mask(1, 40)}, "size-mismatch.*32x32.*40x40"),
        ({"ip-image": picture, "ip-region": [mask, mask]}, "region-count.*1 pictures and 2 regions"),
        ({"ip-image": [picture] * 2, "ip-region": mask}, "region-count.*2 pictures and 1 regions"),
        ({"ip-image": [picture] * 9, "ip-region": [mask] * 9}, "region-count.*9"),
        ({"ip-image": picture, "ip-region": picture.resize((32, 32))}, "picture-not-grey"),
        ({"ip-image": [picture] * 2, "ip-region": [mask, made.mask(2, 48)]}, "picture-sizes"),
        ({"ip-picture": picture}, "ip-image"),
    ):
        with pytest.raises(InputError, match=words):
            mine({**TEXT, **inputs}, **OURS)
    with pytest.raises(InputError, match=r"negative-alone.*'ip-image', which is not given"):
        mine(TEXT, negative={"ip-image": picture}, **OURS)
    with pytest.raises(InputError, match=r"picture-weights.*2 weights.*1 pictures"):
        mine.tuned("ip", weights=(1.0, 0.5))({**TEXT, "ip-image": picture}, **OURS)


def test_rows_of_a_batch(mine: ldmkit.Pipeline) -> None:
    """With one picture, two, none, regions and none: each row is what it is alone. 1e-5: other sizes of batches."""
    one, two, masks = made.picture(1), made.picture(2), [made.mask(1), made.mask(2)]
    rows: list[dict[str, Any]] = [
        {"ip-image": one}, {"ip-image": [one, two]}, {}, {"ip-image": [two, one], "ip-region": masks},
        {"ip-image": two, "ip-region": masks[0]},
    ]  # fmt: skip
    call = {**OURS, "seeds": [3] * len(rows)}
    batch = mine([{**TEXT, **row} for row in rows], **call).latents
    for row, got in zip(rows, batch, strict=True):
        alone = mine({**TEXT, **row}, **OURS).latents[0]
        assert float((got - alone).abs().max()) < 1e-5 * float(alone.abs().max())


def test_a_part_of_the_run_and_a_scale_of_guidance(
    mine: ldmkit.Pipeline, base: tuple[Any, Path, ldmkit.Pipeline]
) -> None:
    given, call = {**TEXT, "ip-image": made.picture(1)}, {**OURS, "steps": 4, "sampler": "euler"}
    seen: dict[str, list[torch.Tensor]] = {}
    for name, pipe in {"off": base[2], "late": mine.tuned("ip", start=0.5)}.items():
        seen[name] = []
        inputs = given if name == "late" else TEXT
        pipe(inputs, **call, on_step=lambda step, name=name: seen[name].append(step.x.clone()))
    assert torch.equal(seen["late"][1], seen["off"][1]) and not torch.equal(seen["late"][2], seen["off"][2])
    per_condition = mine(given, **{**OURS, "guidance": {"text": 3.0, "ip-image": 3.0}}).latents
    assert not torch.equal(per_condition, mine(given, **{**OURS, "guidance": {"text": 3.0, "ip-image": 1.0}}).latents)


def test_patches_see_their_part_of_a_region(mine: ldmkit.Pipeline) -> None:
    """A mask of ones is none, patch by patch too, and one of the left half leaves the right patches as they were."""
    patched = mine.with_(denoiser=PatchedDenoiser.wrap(mine.denoiser, kernel=8, stride=8))
    left = np.zeros((32, 32), np.uint8)
    left[:, :16] = 255
    call = {**OURS, "guidance": 1.0, "steps": 1}
    plain, whole, ones, half = (
        patched({**TEXT, **more}, **call).latents
        for more in (
            {}, {"ip-image": made.picture(1)}, {"ip-image": made.picture(1), "ip-region": np.full_like(left, 255)},
            {"ip-image": made.picture(1), "ip-region": left},
        )
    )  # fmt: skip
    assert float((whole - ones).abs().max()) < 1e-5 * float(whole.abs().max())
    assert float((half[..., :8] - whole[..., :8]).abs().max()) < 1e-5 * float(whole.abs().max())
    assert float((half[..., 8:] - plain[..., 8:]).abs().max()) < 1e-5 * float(plain.abs().max())
    assert not torch.allclose(half, whole)


def test_saved_and_replayed(
    base: tuple[Any, Path, ldmkit.Pipeline], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recipe has the digests of the file and of the encoder; replay refuses another encoder."""
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    for part in images.iterdir():
        (encoder / part.name).write_bytes(part.read_bytes())
    file = made.saved(made.adapter(base[0].unet, "plain"), tmp_path / "face.bin")
    for number in (1, 2):
        made.picture(number).save(tmp_path / f"{number}.png")
        made.mask(number).save(tmp_path / f"m{number}.png")
    pictures, masks = ([str(tmp_path / f"{sign}{n}.png") for n in (1, 2)] for sign in ("", "m"))
    words = [
        "sample",
        str(base[1]),
        "--text",
        "the red house",
        "--steps",
        "2",
        "--adapter",
        f"{file}:0.6,encoder={encoder}",
    ]
    words += ["--ip-image", json.dumps(pictures), "--ip-region", json.dumps(masks), "-o", str(tmp_path / "p.png")]
    assert main(words) == 0
    recipe = ldmkit.read_recipe(tmp_path / "p.png")
    (update,) = recipe["updates"]
    assert update["options"] == {"scale": 0.6} and set(update["files"]["encoder"]) == {"source", "sha256"}
    mine = base[2].with_adapter_file(file, encoder=encoder, scale=0.6)
    want = mine({**TEXT, "ip-image": pictures, "ip-region": masks}, steps=2, seeds=[0])
    assert torch.equal(replay(with_updates(base[2], recipe), recipe, trust=True).images, want.images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        back = ldmkit.load(mine.save(tmp_path / "model"))
    again = back({**TEXT, "ip-image": pictures, "ip-region": masks}, steps=2, seeds=[0])
    assert torch.equal(again.latents, want.latents)
    capsys.readouterr()
    assert main(["replay", str(tmp_path / "p.png"), "--model", str(base[1]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["largest_difference"] == 0
    made.encoder(encoder, hidden_act="quick_gelu")
    assert main(["replay", str(tmp_path / "p.png"), "--model", str(base[1])]) != 0
    assert "source.other-update" in capsys.readouterr().err


def test_a_pickle_runs_nothing(base: tuple[Any, Path, ldmkit.Pipeline], tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({**made.adapter(base[0].unet, "plain"), "x": Evil()}, tmp_path / "ip.bin")
    with pytest.raises(SourceError):
        base[2].with_adapter_file(tmp_path / "ip.bin")
    assert not (tmp_path / "ran").exists()
