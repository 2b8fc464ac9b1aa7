"""For each check of guidance, guidance that breaks its promise, each in one way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ldmkit import Example, Guidance
from ldmkit.contracts.guidance import Evaluate, View

NOTHING: frozenset[str] = frozenset()


class Plain(Guidance):
    """A correct one: classifier-free guidance by a field `scale`."""

    scale: float = 3.0

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        without, conditional = evaluate(x, sigma, frozenset(evaluate.names), NOTHING)
        return without + self.scale * (conditional - without)

    def views(self, names: Sequence[str]) -> int:
        return 2 if names else 1


class TextOnly(Guidance):
    """Another correct one: it scales the condition called text and keeps the others."""

    examples: ClassVar[tuple[Example, ...]] = (Example({}, ("text",)),)
    strength: float = 2.0

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        without, conditional = evaluate(x, sigma, frozenset({"text"}), NOTHING)
        return torch.lerp(without, conditional, self.strength)

    def plain(self, scale: float) -> Guidance:
        return TextOnly(strength=scale)

    def views(self, names: Sequence[str]) -> int:
        return 2 if "text" in names else 1


class Uphill(Guidance):
    """A third: the network's own gradient, which it declares."""

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        with torch.enable_grad():
            free = x.detach().clone().requires_grad_()
            x0 = evaluate(free, sigma, NOTHING)[0]
            (slope,) = torch.autograd.grad(x0.square().sum(), free)
        return x0.detach() + 0.01 * slope

    @property
    def differentiates(self) -> bool:
        return True


class PapersScale(Plain):
    """Scale 0 is the conditional estimate, as w in the paper."""

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        without, conditional = evaluate(x, sigma, frozenset(evaluate.names), NOTHING)
        return conditional + self.scale * (conditional - without)


class KeepsOne(Plain):
    """Leaves the first condition in the view that should have none."""

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        without, conditional = evaluate(x, sigma, frozenset(evaluate.names[1:]), NOTHING)
        return without + self.scale * (conditional - without)


class Squares(Plain):
    """Right at 0 and at 1."""

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        without, conditional = evaluate(x, sigma, frozenset(evaluate.names), NOTHING)
        return without + self.scale**2 * (conditional - without)


class SaysOne(Plain):
    """Evaluates two views and declares one."""

    def views(self, names: Sequence[str]) -> int:
        return 1


class SaysThree(Plain):
    """Evaluates two views and declares three."""

    def views(self, names: Sequence[str]) -> int:
        return 3 if names else 1


class AlwaysTwo(Plain):
    """Declares two views where there is no condition."""

    def views(self, names: Sequence[str]) -> int:
        return 2


class TwoCalls(Plain):
    """Two batches."""

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        (without,) = evaluate(x, sigma, frozenset(evaluate.names))
        (conditional,) = evaluate(x, sigma, NOTHING)
        return without + self.scale * (conditional - without)


class UnknownName(Plain):
    """Drops a condition that the model does not have."""

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        without, conditional = evaluate(x, sigma, frozenset({*evaluate.names, "caption"}), NOTHING)
        return without + self.scale * (conditional - without)


class InPlace(Plain):
    """Works in the network's estimate."""

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        without, conditional = evaluate(x, sigma, frozenset(evaluate.names), NOTHING)
        return without.lerp_(conditional, self.scale)


class SpoilsTheState(Plain):
    """Works in the state."""

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        found = super().__call__(evaluate, x, sigma)
        x.clamp_(-1, 1)
        return found


class SecretGradient(Uphill):
    """Does not say that it differentiates."""

    @property
    def differentiates(self) -> bool:
        return False


class LeavesGradients(Uphill):
    """Its result drags the network's graph along."""

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        with torch.enable_grad():
            return evaluate(x.clone().requires_grad_(), sigma, NOTHING)[0]


class SwitchesOff(Plain):
    """Leaves gradients switched off."""

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        torch.set_grad_enabled(False)
        return super().__call__(evaluate, x, sigma)


class BatchSpread(Plain):
    """Takes the standard deviation over the whole batch."""

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        found = super().__call__(evaluate, x, sigma)
        return found / found.std()


class SinglePrecision(Plain):
    """float32, whatever it is given."""

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        return super().__call__(evaluate, x, sigma).float()


class PicturesOnly(Plain):
    """Unpacks four axes."""

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        found = super().__call__(evaluate, x, sigma)
        return found.reshape(found.shape[0], found.shape[1], found.shape[2], -1)


class MapsOnly(Plain):
    """Names the axes of maps, and those of videos."""

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        found = super().__call__(evaluate, x, sigma)
        return found - 0.0 * found.mean((2, 3) if found.ndim == 4 else (2, 3, 4), keepdim=True)


class Divides(Plain):
    """NaN where the state is symmetric."""

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        found = super().__call__(evaluate, x, sigma)
        return found / (sigma < 10)


class Wanders(Plain):
    """Adds noise of its own."""

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        return super().__call__(evaluate, x, sigma) + 1e-3 * torch.randn_like(x)


_BEFORE: list[Tensor] = []


class Momentum(Plain):
    """Adds a little of the last step's difference."""

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        without, conditional = evaluate(x, sigma, frozenset(evaluate.names), NOTHING)
        change = conditional - without
        if _BEFORE:
            change = change + 0.1 * _BEFORE[-1]
        _BEFORE.append(conditional - without)
        return without + self.scale * change


class LooksAtTheState(Plain):
    """Guides only where the estimate is large."""

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        without, conditional = evaluate(x, sigma, frozenset(evaluate.names), NOTHING)
        if float((conditional - without).abs().max()) < 1e-9:
            return conditional
        return without + self.scale * (conditional - without)


class HostScale(Plain):
    """Multiplies by a tensor that it makes on the host."""

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        return super().__call__(evaluate, x, sigma) * torch.ones(1, 1, 1, 1, dtype=x.dtype)


class ToldWeights(Plain):
    """A correct one that tells its weights."""

    def weights(self, names: Sequence[str], sigma: float) -> Mapping[View, float]:
        return {frozenset(names): 1 - self.scale, NOTHING: self.scale}


class OneSide(ToldWeights):
    """Tells the conditional view alone."""

    def weights(self, names: Sequence[str], sigma: float) -> Mapping[View, float]:
        return {NOTHING: 1.0}


class PapersWeights(ToldWeights):
    """Tells the scale in the paper's convention."""

    def weights(self, names: Sequence[str], sigma: float) -> Mapping[View, float]:
        return {frozenset(names): -self.scale, NOTHING: self.scale}


class RescalesAnyway(Plain):
    """An option changes the conditional estimate even at scale 1."""

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        return super().__call__(evaluate, x, sigma) * 0.99


class IgnoresItsInterval(Plain):
    """Has the field and guides everywhere."""

    interval: tuple[float, float] | None = None


_MEMORIES: list[dict[Any, Any]] = []


class OneMemory(Plain):
    """Keeps the memory of the first run that it saw for all others."""

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        _MEMORIES.append(evaluate.memory)
        before = _MEMORIES[0].get(self, 0.0)
        found = super().__call__(evaluate, x, sigma) + 0.1 * before
        _MEMORIES[0][self] = found
        return found


BROKEN: dict[str, list[type[Guidance]]] = {
    "conditional": [PapersScale],
    "unconditional": [PapersScale, KeepsOne],
    "single": [PapersScale, Squares],
    "neutral": [PapersScale, RescalesAnyway],
    "agreement": [RescalesAnyway],
    "interval": [IgnoresItsInterval],
    "memory": [OneMemory, Momentum],
    "views": [SaysOne, SaysThree, AlwaysTwo],
    "weights": [OneSide, PapersWeights],
    "one-batch": [TwoCalls, UnknownName],
    "untouched": [InPlace, SpoilsTheState],
    "gradients": [SecretGradient, LeavesGradients, SwitchesOff],
    "rows": [BatchSpread],
    "shape": [SinglePrecision, PicturesOnly, MapsOnly, Divides],
    "pure": [Wanders, Momentum],
    "host-scalars": [LooksAtTheState],
    "device": [HostScale],
}
"""Name of a check -> what it must catch."""
