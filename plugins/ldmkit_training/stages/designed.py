"""Which parameters of a part are trained: all that its author did not freeze at construction."""

from __future__ import annotations

from ldmkit import Part
from ldmkit.models.meta import on_meta


def learn(part: Part) -> list[str]:
    """Unfreeze a part and put it in training mode, except where its author froze it.

    Loading leaves every part frozen and in eval mode; therefore the author's `requires_grad_(False)` and `eval()` are
    read from a newly built part of the same config.

    Returns:
        Names of the parameters that stay frozen.
    """
    with on_meta():
        fresh = type(part)(part.config)
    frozen = {name for name, parameter in fresh.named_parameters() if not parameter.requires_grad}
    for name, parameter in part.named_parameters():
        parameter.requires_grad_(name not in frozen)
    part.kept_in_eval = frozenset(name for name, module in fresh.named_modules() if not module.training)
    part.train()
    return [name for name, _ in part.named_parameters() if name in frozen]


def learns(part: Part) -> bool:
    """Whether any parameter of a part is trained."""
    return any(parameter.requires_grad for parameter in part.parameters())


def frozen_note(path: str, names: list[str]) -> str:
    """Of what `learn` returned, for a plan: the children of the part that its author froze."""
    children = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
    return f"{path}: {children} ({len(names)} tensors) stay as they are: frozen by its author"
