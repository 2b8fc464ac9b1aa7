"""Classifiers of guided-diffusion, loaded from files and flags, against a reference that shares no code."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from adm_reference import Forward, Net, classifier_shapes, filled, saved

import ldmkit
from ldmkit import InputError, SourceError, WeightsError

NET = Net(width=64, mult=(1, 2, 3, 4), blocks=1, factors=(2, 4, 8), outputs=7, head_dim=64, updown=True)
FLAGS = "--image_size 64 --classifier_width 64 --classifier_depth 1 --noise_schedule cosine"


def test_logits_and_gradient(tmp_path: Path) -> None:
    """1e-6 of logits of order 1, which are float32, on the scale and at the time that the scripts call it with."""
    tensors = filled(classifier_shapes(NET, 8))
    classifier = ldmkit.load_classifier(saved(tmp_path, "c", tensors, FLAGS), dtype="float64")
    draws = torch.Generator().manual_seed(3)
    z, process = torch.randn(2, 3, 64, 64, generator=draws, dtype=torch.float64).requires_grad_(), classifier.process
    assert process is not None
    levels = [process.sigma_of_time(t) for t in (12, 800)]
    alphas = torch.tensor([process.alpha(s) for s in levels], dtype=torch.float64).view(-1, 1, 1, 1)
    x = (z.detach() / alphas).requires_grad_()
    got, want = classifier(x, levels), Forward(NET, tensors).classifier(z, torch.tensor([12.0, 800.0]))
    assert want.std() > 0.1
    assert (got.double() - want).abs().max() < 1e-6
    slopes = [torch.autograd.grad(out.double().log_softmax(1)[:, 2].sum(), at)[0] for out, at in ((got, x), (want, z))]
    assert (slopes[0] - alphas * slopes[1]).abs().max() < 1e-6 * slopes[1].abs().max()
    with pytest.raises(InputError, match="8x8"):
        classifier(torch.randn(1, 3, 32, 32).double(), [1.0])


PUBLISHED = {
    "64x64_classifier": Net(128, (1, 2, 3, 4), 4, (2, 4, 8), 3, 1000, head_dim=64, updown=True),
    "256x256_classifier": Net(128, (1, 1, 2, 2, 4, 4), 2, (8, 16, 32), 3, 1000, head_dim=64, updown=True),
    "512x512_classifier": Net(128, (0.5, 1, 1, 2, 2, 4, 4), 2, (16, 32, 64), 3, 1000, head_dim=64, updown=True),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    """All keys and shapes; 256: 54 M parameters, as the guided 608 M of the LDM paper less the diffusion's 554 M."""
    from ldmkit_checkpoints.compvis.guided_classifier import GuidedClassifier
    from ldmkit_denoisers.classifier import UNetClassifier

    net = PUBLISHED[name]
    shapes = classifier_shapes(net, 8)
    counted = sum(math.prod(shape) for shape in shapes.values())
    assert name != "256x256_classifier" or round(counted / 1e6) == 54
    lazy = {key: ldmkit.LazyTensor(shape, torch.float32, lambda copy: torch.empty(0)) for key, shape in shapes.items()}
    source = GuidedClassifier(lazy, name, name, name)
    with torch.device("meta"):
        made = UNetClassifier(source.config)
    taken = source.tensors("classifier")
    assert {key: tuple(t.shape) for key, t in made.state_dict().items()} == {k: t.shape for k, t in taken.items()}


def test_refused_by_name(tmp_path: Path) -> None:
    tensors = filled(classifier_shapes(NET, 8), dtype=torch.float32)
    path = saved(tmp_path, "c", tensors)
    with pytest.raises(SourceError, match="is a classifier of guided") as caught:
        ldmkit.load_classifier(path)
    assert caught.value.code == "source.config-needed"
    for flags, code in (
        (f"{FLAGS} --classifier_pool spatial", "source.unsupported"),
        (f"{FLAGS} --classifier_pool adaptive", "source.flag-mismatch"),
        (f"{FLAGS.replace('64 --c', '48 --c')}", "source.unsupported"),
    ):
        with pytest.raises(SourceError) as caught:
            ldmkit.load_classifier(saved(tmp_path, "c", tensors, flags))
        assert caught.value.code == code
    with pytest.warns(UserWarning, match="noise_schedule linear"):
        ldmkit.load_classifier(saved(tmp_path, "c", tensors, FLAGS.replace("--noise_schedule cosine", "")))
    for flags in (FLAGS.replace("depth 1", "depth 2"), FLAGS.replace("width 64", "width 128")):
        with pytest.raises(WeightsError):
            ldmkit.load_classifier(saved(tmp_path, "c", tensors, flags))
    with pytest.raises(SourceError, match="only a classifier") as caught:
        ldmkit.load(saved(tmp_path, "c", tensors, FLAGS))
    assert caught.value.code == "source.classifier-only"
    path.with_suffix(".yaml").write_text("model: {target: x}\n")
    with pytest.raises(SourceError, match="no 'guided_diffusion'"):
        ldmkit.load_classifier(path)
