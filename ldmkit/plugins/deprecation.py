"""Taking something out of the public surface in two steps: it warns for a while, then it goes. Free of torch.

Every deprecation is a `Notice`, which says since when, until when, and what to use instead. The rules for the two
versions are in docs/stability.md; a test fails when something is kept past its own date.
"""

from __future__ import annotations

import functools
import inspect
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from ldmkit.contracts.value import Value

NOTICE_PERIOD = 2
"""Minor versions that warn before something goes."""

F = TypeVar("F", bound=Callable[..., Any])

_OWN = frozenset({"ldmkit", "pydantic", "pydantic_core", "torch", "typer", "click", "functools", "contextlib"})
"""Packages whose frames are not the caller's: a warning points at the line outside of them."""


class LdmkitDeprecationWarning(FutureWarning):
    """Something of ldmkit that goes in a later version is in use. Shown by default, once for each line that uses it."""


@dataclass(frozen=True)
class Notice:
    """One deprecation.

    Args:
        what: goes, as its user writes it: `ldmkit.load(raw=...)`, `--raw`, `sampler 'dpm'`.
        since: first version that warns, `major.minor`.
        removal: first version without it, `major.minor`.
        use: what to write instead.
        reason: why there is nothing to write instead; either `use` or `reason` is needed.

    Raises:
        TypeError: neither `use` nor `reason`, or both; versions that are none, or too close to each other.
    """

    what: str
    since: str
    removal: str
    use: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        if not self.what.strip():
            raise TypeError("a deprecation names what goes")
        if bool(self.use.strip()) == bool(self.reason.strip()):
            raise TypeError(f"{self.what}: either a replacement (use) or a reason why there is none, and not both")
        (since_major, since_minor), (major, minor) = version_of(self.since), version_of(self.removal)
        if (major == since_major and minor < since_minor + NOTICE_PERIOD) or major < since_major:
            what = f"{self.what}: removed in {self.removal}, which is too soon after {self.since}"
            raise TypeError(f"{what}: {NOTICE_PERIOD} minor versions, or the next major one")

    @property
    def message(self) -> str:
        """One sentence for the user."""
        instead = f"use {self.use}" if self.use else self.reason
        return f"{self.what} is deprecated since ldmkit {self.since} and goes in {self.removal}: {instead}"

    def overdue(self, version: str) -> bool:
        """Whether a version of ldmkit should no longer have it."""
        return version_of(version) >= version_of(self.removal)

    def warn(self) -> None:
        """Warn at the line that uses it; Python's filters show each such line once."""
        frame = _caller()
        place: dict[str, Any] = {"filename": "ldmkit", "lineno": 0}
        if frame is not None:
            module, registry = frame.f_globals.get("__name__"), frame.f_globals.setdefault("__warningregistry__", {})
            place = {"filename": frame.f_code.co_filename, "lineno": frame.f_lineno}
            place |= {"module": module, "registry": registry}
        warnings.warn_explicit(self.message, LdmkitDeprecationWarning, **place)


def version_of(text: str) -> tuple[int, int]:
    """(major, minor) of `1.4` or `1.4.2`, whatever follows.

    Raises:
        TypeError: it does not begin with two numbers.
    """
    numbers = text.split(".")[:2]
    if len(numbers) < 2 or not all(number.isascii() and number.isdecimal() for number in numbers):
        raise TypeError(f"{text!r} is no version: major.minor is wanted")
    return int(numbers[0]), int(numbers[1])


def deprecated(*, since: str, removal: str, use: str = "", reason: str = "", what: str = "") -> Callable[[F], F]:
    """A function, method or class that goes: calling it warns, and so does making an instance of a derived class.

    Args:
        since, removal, use, reason: see `Notice`.
        what: how the user knows it; default: its own name.
    """

    def mark(target: F) -> F:
        kind = type(target)
        if isinstance(target, (property, classmethod, staticmethod)):
            raise TypeError(f"deprecated() stands below @{kind.__name__}, next to the function")
        name = what or f"{target.__module__.partition('.')[0]}.{target.__qualname__}"
        notice = Notice(name, since, removal, use, reason)
        if inspect.isclass(target):
            return cast(F, _old_class(target, notice))
        return _warning(target, notice)

    return mark


def deprecated_parameter(name: str, *, since: str, removal: str, to: str = "", reason: str = "") -> Callable[[F], F]:
    """A keyword of a function that is called `to` from now on, or that has no effect any more (then `reason`).

    The function itself has the new parameter only.
    """

    def mark(function: F) -> F:
        called = f"{function.__module__.partition('.')[0]}.{function.__qualname__}"
        notice = Notice(f"{called}({name}=...)", since, removal, f"{to}=..." if to else "", reason)
        known = inspect.signature(function).parameters
        if name in known or (to and to not in known):
            raise TypeError(f"{called}: {name!r} must not be one of its parameters, and {to or 'the rest'!r} must")

        @functools.wraps(function)
        def renamed(*args: Any, **options: Any) -> Any:
            if name in options:
                notice.warn()
                value = options.pop(name)
                if to and to in options:
                    raise TypeError(f"{called}: {to!r} is given twice, once under its old name {name!r}")
                if to:
                    options[to] = value
            return function(*args, **options)

        return cast(F, renamed)

    return mark


def deprecated_fields(names: Mapping[str, str], *, since: str, removal: str, reason: str = "") -> Any:
    """Fields of a `Value` under older names: old -> new, or old -> "" for one that has no effect any more.

        class Config(Value):
            width: int
            _older = deprecated_fields({"channels": "width"}, since="0.2", removal="0.4")

    Recipes and saved pipelines that use the old names are read as before. Reading the old attribute is not covered:
    where that is public, add a property marked by `deprecated`.
    """
    from pydantic import model_validator

    notices = {
        old: Notice(f"field {old!r}", since, removal, f"{new!r}" if new else "", "" if new else reason)
        for old, new in names.items()
    }

    def translate(cls: type[Value], data: Any) -> Any:
        if not isinstance(data, Mapping) or not (found := [old for old in names if old in data]):
            return data
        changed = dict(data)
        for old in found:
            value, new = changed.pop(old), names[old]
            if new and new in changed:
                error = cls.refusal
                what = f"{new!r} is given twice, once under its old name {old!r}"
                raise error("field-twice", what, where=cls.__name__, fits=new)
            notices[old].warn()
            if new:
                changed[new] = value
        return changed

    return model_validator(mode="before")(classmethod(translate))  # type: ignore[arg-type]


def deprecated_names(module: str, names: Mapping[str, tuple[str, Notice]]) -> Callable[[str], Any]:
    """A module's `__getattr__` for names that went elsewhere: name -> (`package.module:name`, its notice)."""

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, notice = names[name]
        notice.warn()
        place, _, attribute = home.partition(":")
        return getattr(import_module(place), attribute)

    return find


def deprecated_flag(flag: str, *, since: str, removal: str, use: str = "", reason: str = "") -> Callable[[Any], Any]:
    """Callback of a command's hidden option: `typer.Option("--raw", hidden=True, callback=deprecated_flag(...))`."""
    notice = Notice(flag, since, removal, use, reason)

    def given(value: Any) -> Any:
        if value not in (None, False, (), []):
            notice.warn()
        return value

    return given


RENAMED_PARTS: dict[tuple[str, str], tuple[str, Notice]] = {}
"""(kind, old name) -> (new name, notice) of in-tree parts: the old name is found as long as it stands here."""


def renamed_part(kind: str, name: str) -> str | None:
    """Today's name of a part that had another one, with its warning; None where nothing was renamed."""
    if (kind, name) not in RENAMED_PARTS:
        return None
    new, notice = RENAMED_PARTS[kind, name]
    notice.warn()
    return new


def _warning(function: F, notice: Notice) -> F:
    @functools.wraps(function)
    def old(*args: Any, **options: Any) -> Any:
        notice.warn()
        return function(*args, **options)

    return cast(F, old)


def _old_class(cls: Any, notice: Notice) -> Any:
    if hasattr(cls, "model_fields"):
        return _old_value(cls, notice)
    cls.__init__ = _warning(cls.__init__, notice)
    return cls


def _old_value(cls: type[Value], notice: Notice) -> type[Value]:
    """pydantic looks at a class once, when it is made: the warning has to come with one derived from it."""
    from pydantic import model_validator

    def noticed(_: type[Value], data: Any) -> Any:
        notice.warn()
        return data

    marked = model_validator(mode="before")(classmethod(noticed))  # type: ignore[arg-type]
    body = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__, "_noticed": marked}
    metaclass: Any = type(cls)
    return cast("type[Value]", metaclass(cls.__name__, (cls,), body))


def _caller() -> FrameType | None:
    """The first frame outside of `_OWN`; None where there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] in _OWN:
        frame = frame.f_back
    return frame
