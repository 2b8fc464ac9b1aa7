"""Tied weights: what is one tensor in a module is one after loading, and files whose copies differ are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ldmkit.errors import WeightsError
from ldmkit.models.meta import on_meta
from ldmkit.models.weights import LazyTensor, assign, open_safetensors, write_safetensors


class Tied(nn.Module):
    """An embedding whose table reads out too, a buffer under two names, and one layer in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.out = nn.Linear(4, 5, bias=False)
        self.out.weight = self.embed.weight
        self.register_buffer("scale", torch.full((3,), 2.0))
        self.register_buffer("factor", self.scale)
        self.register_buffer("unsaved", self.scale, persistent=False)
        self.first = self.second = nn.Linear(4, 4)
        self.free = nn.Linear(4, 5, bias=False)


def filled(state: dict[str, Tensor], **options: Any) -> Tied:
    with on_meta():
        module = Tied()
    assign(module, {key: LazyTensor.of(tensor) for key, tensor in state.items()}, "part", **options)
    return module


@pytest.mark.parametrize("options", [{}, {"mapped": False}, {"dtype": torch.float64}, {"dtype": torch.bfloat16}])
def test_what_was_one_tensor_is_one_again(options: dict[str, Any]) -> None:
    state = Tied().state_dict()
    assert {"embed.weight", "out.weight", "first.weight", "second.weight", "scale", "factor"} <= state.keys()
    module = filled(state, **options)
    assert module.out.weight is module.embed.weight and module.scale is module.factor is module.unsaved
    assert module.first is module.second and module.free.weight is not module.out.weight
    assert isinstance(module.embed.weight, nn.Parameter)
    for key, tensor in module.state_dict().items():
        assert torch.equal(tensor, state[key].to(tensor.dtype))


def test_a_step_of_an_optimiser_moves_both() -> None:
    module = filled(Tied().state_dict()).requires_grad_(True)
    optimiser = torch.optim.AdamW(module.parameters(), lr=0.1)
    module.out(module.embed(torch.tensor([1, 2]))).sum().backward()
    before = module.out.weight.detach().clone()
    optimiser.step()
    assert torch.equal(module.out.weight, module.embed.weight) and not torch.equal(module.out.weight, before)
    module.double()
    assert module.out.weight is module.embed.weight


@pytest.mark.parametrize("key", ["embed.weight", "out.weight", "factor", "second.bias"])
def test_copies_that_differ_are_refused(key: str) -> None:
    state = {name: tensor.clone() for name, tensor in Tied().state_dict().items()}
    state[key].view(-1)[1] += 0.25
    with pytest.raises(WeightsError, match=r"weights\.tied\].*are one tensor in the module, and differ by up to 0\.25"):
        filled(state)


def test_copies_that_are_equal_bit_by_bit() -> None:
    state = {name: tensor.clone() for name, tensor in Tied().state_dict().items()}
    for key in ("embed.weight", "out.weight"):
        state[key].view(-1)[0] = torch.nan
    assert torch.isnan(filled(state).out.weight.view(-1)[0])


def test_through_a_file(tmp_path: Any) -> None:
    made = Tied()
    write_safetensors(tmp_path / "a.safetensors", made.state_dict())
    with on_meta():
        module = Tied()
    assign(module, open_safetensors(tmp_path / "a.safetensors"), "part")
    assert module.out.weight is module.embed.weight and torch.equal(module.out.weight, made.out.weight)
