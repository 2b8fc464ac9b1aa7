"""Prompts that are rewritten before a run: the texts of a call, and what recipes hold of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from ldmkit.contracts.conditioner import Conditioner
from ldmkit.contracts.rewriter import Rewriter
from ldmkit.errors import InputError, LdmkitError, RunError, raised, shown
from ldmkit.models.compose import part_spec
from ldmkit.run.extraction import digests_of
from ldmkit.run.guards import part_name
from ldmkit.run.prompting import text_options
from ldmkit.run.request import Request, Strategy, strategy

TEXT = "text"


@dataclass(frozen=True)
class Revision:
    """A prompt that was rewritten: as it was given, as it is drawn, and by what."""

    prompt: str
    revised: str
    rewriter: Rewriter

    def written(self) -> dict[str, Any]:
        """As recipes hold it, beside the inputs, which hold the text that is drawn."""
        spec = part_spec("rewriter", self.rewriter).model_dump(mode="json", exclude_none=True)
        data = {"prompt": self.prompt, "rewriter": spec}
        return {**data, "sha256": digests} if (digests := digests_of(self.rewriter)) else data


Revisions: TypeAlias = tuple[Mapping[str, Revision], ...]
"""For each picture of a call, the inputs of which the prompt was rewritten, by name."""


def with_rewriting(request: Request, readers: Mapping[str, Conditioner], given: Strategy) -> Request:
    """A request whose prompts are rewritten; negatives stay as they are.

    Args:
        readers: input name -> the conditioner that reads it.
        given: the `rewrite` argument; None: nothing is rewritten.

    Raises:
        InputError: `nothing-to-rewrite`; `rewrite-parts`: a prompt in several parts; what the rewriter raises.
        PluginError, SpecError: no such rewriter.
        RunError: `rewriter-failed`, `bad-return`.
    """
    if given is None:
        return request
    rewriter: Rewriter = strategy("rewriter", given, None, Rewriter)
    known: dict[str, str] = {}
    names = [name for name, part in readers.items() if name == TEXT or text_options(part)]
    rows, revised = [], []
    for number, row in enumerate(request.inputs):
        where = "inputs" if len(request.inputs) == 1 else f"inputs[{number}]"
        found = {name: _prompt(row[name], f"{where}.{name}") for name in names if row.get(name) is not None}
        if not found:
            what = "there is no text to rewrite"
            raise InputError("nothing-to-rewrite", what, where=where, fits=f"an input {' or '.join(names) or TEXT!r}")
        for prompt in found.values():
            if prompt not in known:
                known[prompt] = _rewritten(rewriter, prompt, where)
        revisions = {name: Revision(prompt, known[prompt], rewriter) for name, prompt in found.items()}
        rows.append({**row, **{name: _replaced(row[name], one.revised) for name, one in revisions.items()}})
        revised.append(revisions)
    return replace(request, inputs=tuple(rows), rewritten=tuple(revised))


def _prompt(value: Any, where: str) -> str:
    text = value.get("text") if isinstance(value, Mapping) else value
    if not isinstance(text, str):
        what = f"a prompt that is no single text: {shown(value)}"
        raise InputError("rewrite-parts", what, where=where, fits="one text; or no `rewrite`")
    return text


def _replaced(value: Any, text: str) -> Any:
    return {**value, "text": text} if isinstance(value, Mapping) else text


def _rewritten(rewriter: Rewriter, prompt: str, where: str) -> str:
    name = part_name("rewriter", rewriter)
    try:
        found = rewriter.rewrite(prompt)
    except LdmkitError as problem:
        problem.where = f"{where}: {problem.where}" if problem.where else where
        raise
    except Exception as problem:
        raise RunError("rewriter-failed", f"{name} failed: {raised(problem)}") from problem
    if not isinstance(found, str) or not any(map(str.isalnum, found)):
        what = f"{name} breaks its contract: rewrite returned {shown(found)}"
        raise RunError("bad-return", what, fits="a text with words in it")
    return found
