"""Networks with a table of classes get the class's number, in every dtype; pictures enlarged as a plane."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tiny_parts import part, unet

import ldmkit
from ldmkit import InputError


def pipeline(classes: int = 1000) -> ldmkit.Pipeline:
    return ldmkit.Pipeline.of(
        codec=part("codec", "identity", {}),
        denoiser=unet(3, context_dim=None, vector="table", vector_dim=classes),
        process=ldmkit.get("process", "discrete")(),
        conditioners={"label": part("conditioner", "class-number", {"n_classes": classes, "names": ["tench"]})},
        defaults={"size": (8, 8), "steps": 2},
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_row_of_a_class(dtype: str) -> None:
    """bfloat16 holds no 907: the number must not pass through it."""
    pipe = pipeline().to(dtype=getattr(torch, dtype))
    prepared = pipe.prepare([{"label": 907}, {"label": "tench"}, {"label": "2"}], seeds=[0, 1, 2])
    vector = prepared.evaluate.context((frozenset(),)).projected.vector
    table = pipe.denoiser.vector_embed.table.weight
    assert torch.equal(vector, table[[907, 0, 2]])


def test_classes_that_are_not_there() -> None:
    pipe = pipeline(10)
    for wrong, code in ((10, "input.label-range"), ("trout", "input.unknown-label"), (True, "input.label-type")):
        with pytest.raises(InputError) as caught:
            pipe({"label": wrong})
        assert caught.value.code == code
    with pytest.raises(ldmkit.LdmkitError, match="label"):
        pipe({}, seeds=[0])


def test_an_enlarged_picture_is_a_plane() -> None:
    """Bilinear, as torch's interpolate has it; the size of the picture follows."""
    plane = part("conditioner", "image", {"enlarge": 4})
    small = torch.rand(1, 3, 4, 6) * 2 - 1
    assert torch.equal(plane.forward([small[0]]).value, F.interpolate(small, (16, 24), mode="bilinear"))
    assert plane.picture_size(small[0], 1) == (16, 24)
    assert torch.equal(part("conditioner", "image", {}).forward([small[0]]).value, small)
    with pytest.raises(InputError, match="align_corners"):
        part("conditioner", "image", {"method": "nearest", "align_corners": True})
