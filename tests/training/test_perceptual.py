"""Perceptual distances: the default without weights, and LPIPS from files in the published layouts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from ldmkit_training.stages.codec.lpips import LPIPS
from ldmkit_training.stages.codec.section import CodecObjective, CodecSection
from ldmkit_training.stages.codec.similarity import Similarity
from ldmkit_training.stages.codec.stage import CodecStage
from ldmkit_training.stages.codec.structure import NoDistance, Structure
from torch import Tensor

import ldmkit
from ldmkit.models.weights import write_safetensors

ALEX = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
"""Index among torchvision's `features` -> (channels out, in, kernel)."""
GENERATOR = torch.Generator().manual_seed(0)
A, B = (torch.rand(2, 3, 64, 64, generator=GENERATOR) * 2 - 1 for _ in range(2))


def published() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """AlexNet's file, classifier included, and the file of learned weights, under their published keys."""
    generator = torch.Generator().manual_seed(1)
    network = {"classifier.1.weight": torch.zeros(4, 4), "classifier.1.bias": torch.zeros(4)}
    lin = {}
    for k, (index, (out, inner, kernel)) in enumerate(ALEX.items()):
        weight = torch.randn(out, inner, kernel, kernel, generator=generator)
        network[f"features.{index}.weight"] = weight / (inner * kernel**2) ** 0.5
        network[f"features.{index}.bias"] = 0.1 * torch.randn(out, generator=generator)
        lin[f"lin{k}.model.1.weight"] = torch.rand(1, out, 1, 1, generator=generator)
    return network, lin


def reference(network: dict[str, Tensor], lin: dict[str, Tensor], a: Tensor, b: Tensor) -> Tensor:
    """Zhang et al. 2018, equation 1, written out for AlexNet."""
    found = torch.zeros(len(a))
    for x in (a, b):
        x.sub_(torch.tensor([-0.03, -0.088, -0.188]).view(3, 1, 1)).div_(
            torch.tensor([0.458, 0.448, 0.45]).view(3, 1, 1)
        )
    geometry = {0: (4, 2), 3: (1, 2), 6: (1, 1), 8: (1, 1), 10: (1, 1)}
    for k, (index, (stride, padding)) in enumerate(geometry.items()):
        if index in (3, 6):
            a, b = F.max_pool2d(a, 3, 2), F.max_pool2d(b, 3, 2)
        weight, bias = network[f"features.{index}.weight"], network[f"features.{index}.bias"]
        a, b = (F.conv2d(x, weight, bias, stride, padding).clamp(min=0) for x in (a, b))
        unit = [x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for x in (a, b)]
        found += ((unit[0] - unit[1]) ** 2 * lin[f"lin{k}.model.1.weight"]).sum(1).mean((1, 2))
    return found


@pytest.mark.parametrize("form", ["safetensors", "pth", "one-file"])
def test_lpips_from_published_files(tmp_path: Path, form: str) -> None:
    network, lin = published()
    if form == "one-file":
        slices = {0: 1, 3: 2, 6: 3, 8: 4, 10: 5}
        both = {f"loss.perceptual_loss.{key}": value for key, value in lin.items()}
        for index, number in slices.items():
            for name in ("weight", "bias"):
                key = f"loss.perceptual_loss.net.slice{number}.{index}.{name}"
                both[key] = network[f"features.{index}.{name}"]
        torch.save({"state_dict": both}, tmp_path / "model.ckpt")
        files = [tmp_path / "model.ckpt"]
    else:
        files = [tmp_path / f"{name}.{form}" for name in ("alexnet", "lin")]
        for path, tensors in zip(files, (network, lin), strict=True):
            torch.save(tensors, path) if form == "pth" else write_safetensors(path, tensors)
    with torch.device("meta"):
        made = LPIPS({"backbone": "alex"})
    made.load_files(files)
    with torch.no_grad():
        want = reference(network, lin, A.clone(), B.clone())
        torch.testing.assert_close(made(A, B), want, rtol=1e-5, atol=1e-6)
        assert torch.equal(made(A, A), torch.zeros(2))


def test_lpips_in_a_stage_is_frozen_and_its_files_are_named(tmp_path: Path) -> None:
    network, lin = published()
    write_safetensors(tmp_path / "alex.safetensors", network)
    write_safetensors(tmp_path / "lin.safetensors", lin)
    codec = CodecSection(config={"widths": [8], "blocks": 1, "norm_groups": 4, "mid_attention": "none"})

    def stage(*files: str) -> CodecStage:
        section = {"type": "lpips", "config": {"backbone": "alex"}, "files": files}
        return CodecStage(codec, CodecObjective.of({"perceptual": section}), tmp_path)

    made = stage("alex.safetensors", "lin.safetensors")
    assert not any(p.requires_grad for p in made.perceptual.parameters())
    assert not any("perceptual" in name for name in made.turns["codec"].state_dict())
    with pytest.raises(ldmkit.InputError, match="perceptual-files"):
        stage()
    with pytest.raises(ldmkit.WeightsError, match=r"lin\.0"):
        stage("alex.safetensors")
    with pytest.raises(ldmkit.SourceError, match="absent"):
        stage("alex.safetensors", "absent.pth")
    with pytest.raises(ldmkit.InputError, match="perceptual-files"):
        CodecStage(codec, CodecObjective.of({"perceptual": {"files": ["lin.safetensors"]}}), tmp_path)


@pytest.mark.parametrize("distance", [Structure(), Similarity()])
def test_zero_for_equal_pictures_and_blind_to_flat_shifts_only(distance: ldmkit.Perceptual) -> None:
    assert torch.equal(distance(A, A), torch.zeros(2)) and torch.equal(NoDistance()(A, B), torch.zeros(2))
    assert float(distance(A + 0.2, A).max()) < 1e-5, "means are the pixels' own term's business"
    assert float(distance(B, A).min()) > 0.1


@pytest.mark.parametrize("distance", [Structure(), Similarity()])
def test_lost_texture_costs_as_much_where_it_is_faint(distance: ldmkit.Perceptual) -> None:
    """Texture at a fifth of the contrast: an absolute difference falls to a fifth, these to more than half."""
    coarse = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    costs, plain = [], []
    for contrast in (0.5, 0.1):
        texture = contrast * coarse
        blurred = F.avg_pool2d(texture, 3, 1, 1)
        costs.append(float(distance(blurred, texture)))
        plain.append(float((blurred - texture).abs().mean()))
    assert plain[1] < 0.21 * plain[0] and costs[1] > 0.5 * costs[0]


def test_similarity_is_least_at_the_references_own_contrast() -> None:
    """Texture of which half is right: the absolute difference is least when it is faded, similarity is not."""
    generator = torch.Generator().manual_seed(4)
    right, wrong = (torch.randn(1, 3, 32, 32, generator=generator) for _ in range(2))
    rough = (right + wrong) / 2**0.5
    contrasts = (0.5, 0.7, 0.85, 1.0, 1.2)
    plain = [float((c * rough - right).abs().mean()) for c in contrasts]
    ours = [float(Similarity()(c * rough, right)) for c in contrasts]
    assert contrasts[plain.index(min(plain))] < 0.85 <= contrasts[ours.index(min(ours))]


@pytest.mark.parametrize("distance", [Structure(), Similarity()])
def test_gradients_at_any_size(distance: ldmkit.Perceptual) -> None:
    for size in ((64, 64), (5, 9), (3, 3)):
        a = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(3)).requires_grad_()
        distance(a, 0.5 * torch.randn(1, 3, *size)).sum().backward()
        assert a.grad is not None and bool(a.grad.isfinite().all()) and bool(a.grad.any())


@pytest.mark.parametrize("distance", [Structure(), Similarity()])
def test_pictures_below_every_scale_have_no_distance(distance: ldmkit.Perceptual) -> None:
    images = torch.ones(2, 3, 2, 2, requires_grad=True)
    found = distance(images, torch.zeros(2, 3, 2, 2))
    found.sum().backward()
    assert found.tolist() == [0.0, 0.0] and not bool(images.grad.any())
