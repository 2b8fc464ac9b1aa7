"""What was done to a part's modules since they were made: tensors that do not go together, hooks that no file holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from ldmkit.errors import LdmkitError, RunError, warn
from ldmkit.models.residence import is_fetching

_RAW = (RuntimeError, AttributeError, TypeError, NotImplementedError, ValueError)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


@contextmanager
def told_of_tensors(parts: Mapping[str, nn.Module]) -> Iterator[None]:
    """Name the parts whose tensors are the reason where torch fails inside. Nothing is looked at unless it does.

    Raises:
        RunError: `mixed-tensors`: a part holds several floating dtypes or devices, or was quantised.
    """
    try:
        yield
    except LdmkitError:
        raise
    except _RAW as error:
        found = [f"{path}: {said}" for path, part in parts.items() if (said := odd_tensors(part))]
        if not found:
            raise
        what = f"{'; '.join(found)} (torch says: {str(error).splitlines()[0] if str(error) else type(error).__name__})"
        fits = "part.to(dtype=...) of whole parts; a quantised one stays outside of a pipeline"
        raise RunError("mixed-tensors", what, fits=fits) from error


def odd_tensors(part: nn.Module) -> str:
    """What in a part's tensors does not go together; empty where it does."""
    quantised = sorted({type(module).__name__ for module in part.modules() if _quantised(module)})
    tensors = dict(_named(part))
    dtypes = _first({name: str(t.dtype) for name, t in tensors.items() if t.is_floating_point()})
    devices = _first({name: str(t.device) for name, t in tensors.items()})
    said = [f"quantised layers ({', '.join(quantised)})"] if quantised else []
    said += [", ".join(f"{kind.removeprefix('torch.')} in {name!r}" for kind, name in dtypes.items())] * (
        len(dtypes) > 1
    )
    said += [", ".join(f"{kind} has {name!r}" for kind, name in devices.items())] * (len(devices) > 1)
    return "; ".join(said)


def remark_unsaved(parts: Mapping[str, nn.Module]) -> None:
    """Warn of what acts in a part and is not in its tensors, so that no file holds it: hooks, exchanged methods."""
    for path, part in parts.items():
        found = [(name, how) for name, module in part.named_modules() for how in _added(module)]
        if found:
            first, how = found[0]
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            where = f"{path}.{first}" if first else path
            warn(f"{how} of {where}{more} is not saved: what is loaded again computes without it")


def _added(module: nn.Module) -> Iterator[str]:
    if "forward" in vars(module):
        yield "an exchanged `forward`"
    if any(not is_fetching(hook) for name in _HOOKS for hook in getattr(module, name).values()):
        yield "a forward hook"


def _quantised(module: nn.Module) -> bool:
    return type(module).__module__.startswith(("torch.ao.", "torch.nn.quantized", "torchao."))


def _named(part: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from part.named_parameters()
    yield from part.named_buffers()


def _first(kinds: Mapping[str, str]) -> dict[str, str]:
    """Each kind, with the first name that has it."""
    found: dict[str, str] = {}
    for name, kind in kinds.items():
        found.setdefault(kind, name)
    return found
