"""How parts must handle hostile inputs: refuse them with a clear error, or work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ldmkit.errors import InputError, LdmkitError
from ldmkit.testing.checks import fail, place
from ldmkit.testing.conditioner.subject import quiet
from ldmkit.testing.hostile import hostile

SECONDS = 20.0
"""Time limit for a single input, however odd."""

LONGEST = 1000
"""Maximum number of characters of an error message."""

_TEXTS = (
    "",
    " ",
    "[",
    "{",
    "[1,",
    "null",
    "NaN",
    "1e999",
    "9" * 5000,
    "-",
    "no-such-file.json",
    "\ud800",
    "a\0b",
    "山",
)


def check_refusals(
    schema: Mapping[str, Any],
    good: Sequence[Any],
    parse: Callable[[Any], Any],
    use: Callable[[Any], str],
    wanted: str,
) -> None:
    """Pass hostile inputs, generated from a schema and valid JSON inputs, to `parse`, and what it accepts to `use`.

    Args:
        use: uses a parsed input, and says what is wrong with the result; "" if nothing is.
        wanted: description of the result for an accepted input.

    Raises:
        Failed: some are neither refused with an `InputError` nor handled correctly.
    """
    problems: list[str] = []
    count = 0
    for what, raw in hostile(schema, list(good)):
        count += 1
        problem = _within(lambda raw=raw: _attempt(raw, parse, use))  # type: ignore[misc]
        if problem:
            problems.append(f"{what}: {problem}")
        if problem == _LATE:
            break  # if it hangs once, it may hang every time
    if problems and problems[-1].endswith(_LATE):
        fail(f"an answer within {SECONDS:g} seconds for every input", problems[-1])
    if problems:
        shown = "\n          ".join(problems[:5])
        more = f"\n          and {len(problems) - 5} more" if len(problems) > 5 else ""
        came = f"something else for {len(problems)} of {count} inputs:\n          {shown}{more}"
        fail(f"an InputError that says what is wrong, or {wanted}", came)


def check_texts(from_text: Callable[[str], Any]) -> None:
    """Pass odd command-line arguments to `from_text`, which must convert each or raise an `InputError`."""
    for text in _TEXTS:
        try:
            from_text(text)
        except InputError:
            continue
        except Exception as error:
            fail(f"from_text({text[:20]!r}) to be an input or an InputError", f"{type(error).__name__}: {error!s:.300}")


def _attempt(raw: Any, parse: Callable[[Any], Any], use: Callable[[Any], str]) -> str:
    """What is wrong with the handling of one input; "" if nothing is."""
    try:
        with quiet():
            value = parse(raw)
    except InputError as error:
        return _refusal(error) or ("" if error.where else f"an error without a location (`where`): {error}")
    except (Exception, SystemExit) as error:
        return _surprise(error)
    try:
        return use(value)
    except InputError as error:
        return _refusal(error)
    except (Exception, SystemExit) as error:
        return _surprise(error)


def _refusal(error: InputError) -> str:
    return "" if len(str(error)) <= LONGEST else f"an error of {len(str(error))} characters: {str(error)[:100]}..."


def _surprise(error: BaseException) -> str:
    if isinstance(error, LdmkitError):
        return f"a {type(error).__name__}, not an InputError: {str(error)[:300]}"
    return f"{place(error)}{type(error).__name__}: {str(error)[:300]}"


_LATE = "no answer"


def _within(call: Callable[[], str]) -> str:
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(call()), daemon=True)
    thread.start()
    thread.join(SECONDS)
    return found[0] if found else _LATE
