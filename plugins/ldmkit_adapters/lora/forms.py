"""The forms in which a change of one weight is stored, and the change that each stands for.

| form      | tensors                                    | change of W (outputs, inputs[, k, k])                 |
|-----------|--------------------------------------------|-------------------------------------------------------|
| low rank  | down (r,i[,k,k]), up (o,r)                 | up down (Hu et al. 2021, LoRA)                        |
|           | down (r,i), mid (r,r,k,k), up (o,r)        | sum over p, q of up[o,p] mid[p,q] down[q,i] (LoCon)   |
| Hadamard  | a1 (o,r), b1 (r,i), a2, b2                 | (a1 b1) * (a2 b2), elementwise (Hyeon-Woo 2021, LoHa) |
|           | t1, t2 (r,r,k,k), a1, a2 (r,o), b1, b2     | each factor the sum over p, q of t[p,q] a[p,o] b[q,i] |
| Kronecker | w1 or w1_a, w1_b; w2 or w2_a, w2_b[, w2_t] | kron(w1, w2) (Yeh et al. 2023, LoKr)                  |
| full      | diff                                       | diff                                                  |
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]
Shape = tuple[int, ...]

BESIDE = frozenset({"bias", "magnitude"})
"""What may stand beside the tensors of a form, or alone: a change of the bias, and DoRA's lengths."""

_FORMS: tuple[frozenset[str], ...] = (
    frozenset({"down", "up"}),
    frozenset({"down", "mid", "up"}),
    frozenset({"a1", "b1", "a2", "b2"}),
    frozenset({"a1", "b1", "t1", "a2", "b2", "t2"}),
    *(
        frozenset({*first, *second})
        for first in (("w1",), ("w1_a", "w1_b"))
        for second in (("w2",), ("w2_a", "w2_b"), ("w2_a", "w2_b", "w2_t"))
    ),
    frozenset({"diff"}),
)


def is_form(names: Collection[str]) -> bool:
    """Whether tensors of these names are one of the forms, complete; or none of them, but a change of the bias."""
    own = frozenset(names) - BESIDE
    return own in _FORMS or (not own and "bias" in names)


def rank_of(shapes: Mapping[str, Shape]) -> int | None:
    """What alpha is divided by: the rank of the factors; None where nothing is factored."""
    for name in ("down", "b1", "w2_b", "w1_b"):
        if name in shapes:
            return shapes[name][0]
    return None


def change_of(tensors: Tensors) -> Tensor:
    """The change that tensors of a form stand for, without its factor; of a weight's numbers in their order.

    Raises:
        RuntimeError, IndexError: their shapes do not fit each other.
    """
    if "diff" in tensors:
        return tensors["diff"]
    if "down" in tensors:
        return _low_rank(tensors)
    return _hadamard(tensors) if "a1" in tensors else _kronecker(tensors)


def _low_rank(t: Tensors) -> Tensor:
    up, down = t["up"].flatten(1), t["down"]
    if "mid" in t:
        return torch.einsum("op,pqkl,qi->oikl", up, t["mid"], down.flatten(1))
    return (up @ down.flatten(1)).unflatten(1, down.shape[1:])


def _hadamard(t: Tensors) -> Tensor:
    if "t1" in t:
        return _tucker(t["t1"], t["a1"], t["b1"]) * _tucker(t["t2"], t["a2"], t["b2"])
    return (t["a1"] @ t["b1"]) * (t["a2"] @ t["b2"])


def _kronecker(t: Tensors) -> Tensor:
    first = t["w1"] if "w1" in t else t["w1_a"] @ t["w1_b"]
    if "w2_t" in t:
        second = _tucker(t["w2_t"], t["w2_a"], t["w2_b"])
    else:
        second = t["w2"] if "w2" in t else t["w2_a"] @ t["w2_b"]
    return torch.kron(first[:, :, None, None] if second.ndim == 4 else first, second.contiguous())


def _tucker(core: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """core (r,r,k,k), a (r,o), b (r,i) -> (o,i,k,k)."""
    return torch.einsum("pqkl,po,qi->oikl", core, a, b)
