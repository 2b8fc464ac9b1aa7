"""Prompts with options (weights, chunks, clip skip), and their rows of token ids."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeAlias

import torch
from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema
from torch import Tensor

from ldmkit import InputError, LdmkitError, Value
from ldmkit_conditioners.emphasis import Fragment, read_emphasis
from ldmkit_conditioners.prompts import Prompt, read_prompt
from ldmkit_conditioners.vocabulary import TruncationWarning, Vocabulary

MOST_CHUNKS = 64
"""Rows of a prompt, 4800 tokens of CLIP's: more is no prompt, and attention to it takes memory."""


ROUNDING = 1e-5
"""Means below this share of the numbers' size are rounding; those of trained encoders are above 1e-2."""


class WrittenPrompt(Value):
    """A prompt, and how it is read.

    Args:
        text: the prompt, or its token ids.
        syntax: `plain`: every character is text. `a1111`: `(word)`, `(word:1.2)`, `[word]` are weights, `BREAK` begins
            a new chunk.
        clip_skip: number of additional last layers that are skipped, as diffusers counts them; 1 is A1111's 2.
        long: whether longer texts are read in several chunks instead of being cut; None: depends on the syntax; `plain`
            is cut.
    """

    refusal: ClassVar[type[LdmkitError]] = InputError

    text: Prompt
    syntax: Literal["plain", "a1111"] = "plain"
    clip_skip: int = Field(default=0, ge=0, le=1000)
    long: bool | None = None

    @property
    def is_long(self) -> bool:
        """Whether there may be several chunks."""
        return self.syntax != "plain" if self.long is None else self.long

    def fragments(self) -> list[Fragment] | None:
        """The fragments of the text according to its syntax; None for plain texts that are cut, and for token ids.

        Raises:
            InputError: what `read_emphasis` raises; `prompt-type`: token ids, which have no syntax.
        """
        if isinstance(self.text, list) and (self.syntax != "plain" or self.is_long):
            what = "token ids cannot have a syntax or more than one chunk"
            raise InputError("prompt-type", what, fits="text, or plain ids")
        if isinstance(self.text, list) or (self.syntax == "plain" and not self.is_long):
            return None
        return [Fragment(self.text)] if self.syntax == "plain" else read_emphasis(self.text)


def as_plain(value: Any) -> Any:
    """The text of a `WrittenPrompt` without its syntax; anything else unchanged."""
    if not isinstance(value, WrittenPrompt):
        return value
    fragments = value.fragments()
    return value.text if fragments is None else " ".join((text for text, _ in fragments if text is not None))


def read_written(raw: Any) -> str | list[int] | WrittenPrompt:
    """A prompt as text, token ids, or an object of `WrittenPrompt`'s fields.

    Raises:
        InputError: as `read_prompt`; an unknown or wrong field.
    """
    if isinstance(raw, Mapping | WrittenPrompt):
        return WrittenPrompt.of(dict(raw) if isinstance(raw, Mapping) else raw)
    return read_prompt(raw)


def _plain(value: Any) -> Any:
    """As stored in recipes, without fields that have no effect."""
    if not isinstance(value, WrittenPrompt):
        return value
    return {"text": value.text, **value.model_dump(mode="json", exclude={"text"}, exclude_defaults=True)}


_TEXT = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "integer", "minimum": 0}}]}

AnyPrompt: TypeAlias = Annotated[
    str | list[int] | WrittenPrompt,
    PlainValidator(read_written),
    PlainSerializer(_plain),
    WithJsonSchema(
        {
            "anyOf": [
                *_TEXT["anyOf"],
                {
                    "type": "object",
                    "properties": {
                        "text": _TEXT,
                        "syntax": {"enum": ["plain", "a1111"], "default": "plain"},
                        "clip_skip": {"type": "integer", "minimum": 0, "maximum": 1000, "default": 0},
                        "long": {"anyOf": [{"type": "boolean"}, {"type": "null"}], "default": None},
                    },
                    "required": ["text"],
                    "additionalProperties": False,
                },
            ],
            "title": "Prompt",
            "description": "text, the complete sequence of token ids, or text with options",
        }
    ),
]
"""Pydantic type of a prompt that may say how it is read."""


class Chunk(NamedTuple):
    """One row of an encoder, without start, end and padding; a weight for each id."""

    ids: list[int]
    weights: list[float]


def emphasised(states: Tensor, weights: Tensor) -> Tensor:
    """States (k, L, D) times weights (k, L), and as much for each row that its mean stays what it was (A1111).

    If the mean is 0 up to rounding, as after an untrained LayerNorm, nothing has to be corrected.

    Raises:
        InputError: `prompt-weight`: the weighted mean of a row is 0.
    """
    changed = (weights != 1).any(dim=1)
    if not bool(changed.any()):
        return states
    wide = states[changed].to(torch.promote_types(states.dtype, torch.float32))
    scaled = wide * weights[changed].to(wide)[..., None]
    before, after, size = (one.mean(dim=(1, 2), keepdim=True) for one in (wide, scaled, wide.abs()))
    empty = before.abs() <= ROUNDING * size
    if bool((~empty & (after.abs() <= ROUNDING * size)).any()):
        raise InputError("prompt-weight", "the weighted mean of the prompt's states is 0", fits="weights about 1")
    ratio = torch.where(empty, torch.ones_like(before), before / after)
    result = states.clone()
    result[changed] = (scaled * ratio).to(states.dtype)
    return result


def chunks_of(fragments: Iterable[Fragment], vocabulary: Vocabulary, room: int) -> list[Chunk]:
    """A prompt's tokens in rows of `room`, at least one; the vectors of a learnt word stay together.

    Each fragment is split into tokens by itself, as A1111 does it.

    Raises:
        InputError: `prompt-too-long`.
    """
    chunks = [Chunk([], [])]
    for text, weight in fragments:
        if text is None:
            chunks.append(Chunk([], []))
            continue
        for ids in vocabulary.pieces(text):
            if len(chunks[-1].ids) + len(ids) > room:
                chunks.append(Chunk([], []))
            chunks[-1].ids.extend(ids)
            chunks[-1].weights.extend([weight] * len(ids))
    if len(chunks) > 1 and not chunks[-1].ids:
        chunks.pop()  # nothing after the last BREAK
    if len(chunks) > MOST_CHUNKS:
        what, fits = f"the prompt has {len(chunks)} chunks of {room} tokens", f"at most {MOST_CHUNKS}"
        raise InputError("prompt-too-long", what, fits=fits)
    return chunks


def cut(chunks: list[Chunk], room: int) -> list[Chunk]:
    """The first chunk, with a warning about the others."""
    if len(chunks) > 1:
        count = sum(len(chunk.ids) for chunk in chunks)
        what = f"the prompt has {count} tokens, {room} fit; {len(chunks) - 1} of its {len(chunks)} chunks are cut"
        warnings.warn(what, TruncationWarning, stacklevel=4)
    return chunks[:1]
