"""Options that stand twice on a command line, of which a parser takes the last without a word."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ldmkit.errors import InputError


def once(command: Any) -> Any:
    """The command, whose parser refuses options that are given twice and keep one value; of a group, all of it.

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
    """Refuse a second mention of an option, among those of a line in their order."""
    seen: set[str] = set()
    for option in order:
        if option.param_type_name != "option" or option.multiple or option.count:
            continue
        if option.is_flag and not option.secondary_opts:
            continue  # said twice, it says the same
        names = " / ".join((*option.opts, *option.secondary_opts))
        if names in seen:
            raise InputError("option-twice", f"{names} is given twice", fits="one of the two")
        seen.add(names)
