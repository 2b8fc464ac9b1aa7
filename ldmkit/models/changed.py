"""Detection of modified parts: mixed dtypes or devices, quantised layers, and hooks that are not saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import BuiltinFunctionType, FunctionType
from typing import Any

from torch import Tensor, nn

from ldmkit.contracts.conditioner_abilities import SharesWeights
from ldmkit.contracts.part import Part
from ldmkit.contracts.ports import Port
from ldmkit.errors import LdmkitError, RunError, shown, warn
from ldmkit.models.meta import on_meta
from ldmkit.models.residence import is_fetching

_RAW = (RuntimeError, AttributeError, TypeError, NotImplementedError, ValueError)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


@contextmanager
def explain_mixed_tensors(parts: Mapping[str, nn.Module]) -> Iterator[None]:
    """If torch fails inside the block, raise an error that names the parts whose tensors are the cause. Parts are only
    inspected after a failure.

    Raises:
        RunError: `mixed-tensors`: a part has several floating-point dtypes or devices, or was quantised.
    """
    try:
        yield
    except LdmkitError:
        raise
    except _RAW as error:
        found = [f"{path}: {mixed}" for path, part in parts.items() if (mixed := mixed_tensors(part))]
        if not found:
            raise
        what = f"{'; '.join(found)} (torch says: {str(error).splitlines()[0] if str(error) else type(error).__name__})"
        fits = "part.to(dtype=...) on whole parts; quantised parts are not supported in a pipeline"
        raise RunError("mixed-tensors", what, fits=fits) from error


def mixed_tensors(part: nn.Module) -> str:
    """A description of quantised layers and of mixed dtypes and devices in a part; "" if there are none."""
    quantised = sorted({type(module).__name__ for module in part.modules() if _quantised(module)})
    tensors = dict(_named(part))
    dtypes = _first({name: str(t.dtype) for name, t in tensors.items() if t.is_floating_point()})
    devices = _first({name: str(t.device) for name, t in tensors.items()})
    problems = [f"quantised layers ({', '.join(quantised)})"] if quantised else []
    if len(dtypes) > 1:
        problems.append(", ".join(f"{kind.removeprefix('torch.')} in {name!r}" for kind, name in dtypes.items()))
    if len(devices) > 1:
        problems.append(", ".join(f"{name!r} on {kind}" for kind, name in devices.items()))
    return "; ".join(problems)


def remark_unsaved(parts: Mapping[str, nn.Module]) -> None:
    """Warn about changes of a part that are not in its tensors and so are not saved: hooks, replaced methods, modules
    of other classes than its config makes, or with other settings (`GroupNorm.eps`)."""
    for path, part in parts.items():
        found = [(name, how) for name, module in part.named_modules() for how in _added(module)]
        found += list(_exchanged(part))
        if found:
            first, how = found[0]
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            where = f"{path}.{first}" if first else path
            warn(f"{how} of {where}{more} is not saved; the loaded model will work without it")


def _added(module: nn.Module) -> Iterator[str]:
    if "forward" in vars(module):
        yield "a replaced `forward`"
    if any(not is_fetching(hook) for name in _HOOKS for hook in getattr(module, name).values()):
        yield "a forward hook"


def _exchanged(part: nn.Module) -> Iterator[tuple[str, str]]:
    """(name of a module, what is other) where a part is not what its class makes of its config."""
    if not isinstance(part, Part) or _adopted(part):
        return
    try:
        with on_meta():
            made = type(part)(part.config)
    except Exception:  # a class that is not made of its config alone: nothing to compare with
        return
    own, fresh = dict(part.named_modules()), dict(made.named_modules())
    shares = isinstance(part, SharesWeights)  # and may have given up its own modules for another's
    for name in [*own, *(name for name in fresh if name not in own and not shares)]:
        if name not in fresh:
            yield name, "an added module"
        elif name not in own:
            yield name, "the absence"
        elif type(own[name]) is not type(fresh[name]):
            yield name, f"the class {_class(own[name])} (the config makes {_class(fresh[name])})"
        else:
            now, before = settings(own[name]), settings(fresh[name])
            # what is None at first may be read from other files than those of tensors
            for key in [key for key, value in before.items() if value is not None and now.get(key) != value]:
                yield name, f"{key}={shown(now.get(key))} (the config makes {shown(before[key])})"


def _adopted(part: Part) -> bool:
    """Whether it reads another conditioner's weights, and so has not what its class makes."""
    return isinstance(part, SharesWeights) and next(part.parameters(), None) is None


def _class(module: nn.Module) -> str:
    kind = type(module)
    return kind.__name__ if not _quantised(module) else f"{kind.__module__}.{kind.__name__}"


def settings(module: nn.Module) -> dict[str, Any]:
    """What a module computes with beside tensors and modules: its public attributes that are numbers, text, tuples of
    these or functions."""
    if isinstance(module, Port):  # taps belong to the adapters of pipelines, which are saved
        return {}
    own = {
        name: value for name, value in vars(module).items() if name[0] != "_" and name not in ("training", "forward")
    }
    return {name: _comparable(value) for name, value in own.items() if _is_setting(value)}


def _is_setting(value: object) -> bool:
    if isinstance(value, tuple):
        return all(_is_setting(item) for item in value)
    return isinstance(value, (bool, int, float, str, type(None), FunctionType, BuiltinFunctionType))


def _comparable(value: Any) -> Any:
    """A function by its name: one that a class makes for each of its instances is another object in each."""
    if isinstance(value, (FunctionType, BuiltinFunctionType)):
        return f"{value.__module__}.{value.__qualname__}"
    return value


def _quantised(module: nn.Module) -> bool:
    return type(module).__module__.startswith(("torch.ao.", "torch.nn.quantized", "torchao."))


def _named(part: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from part.named_parameters()
    yield from part.named_buffers()


def _first(kinds: Mapping[str, str]) -> dict[str, str]:
    """Each kind -> the first name that has it."""
    found: dict[str, str] = {}
    for name, kind in kinds.items():
        found.setdefault(kind, name)
    return found
