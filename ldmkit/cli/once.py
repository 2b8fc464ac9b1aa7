"""Detection of duplicate command-line options, of which a parser silently uses the last."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ldmkit.errors import InputError


def once(command: Any) -> Any:
    """Make a command's parser refuse duplicate single-value options; for a group, those of all its commands.

    Raises (when it parses):
        InputError: `option-twice`.
    """
    for inner in getattr(command, "commands", {}).values():
        once(inner)
    if not hasattr(command, "_takes_once"):
        made = command.make_parser
        command.make_parser = lambda ctx: _checked(made(ctx))
        command._takes_once = True
    return command


def _checked(parser: Any) -> Any:
    parse = parser.parse_args

    def parse_args(args: list[str]) -> tuple[Any, Any, Any]:
        values, rest, order = parse(args)
        _check(order)
        return values, rest, order

    parser.parse_args = parse_args
    return parser


def _check(order: Iterable[Any]) -> None:
    """Refuse duplicates among the options of a command line."""
    seen: set[str] = set()
    for option in order:
        if option.param_type_name != "option" or option.multiple or option.count:
            continue
        if option.is_flag and not option.secondary_opts:
            continue  # repeating a flag changes nothing
        names = " / ".join((*option.opts, *option.secondary_opts))
        if names in seen:
            raise InputError("option-twice", f"{names} is given twice", fits="one of the two")
        seen.add(names)
