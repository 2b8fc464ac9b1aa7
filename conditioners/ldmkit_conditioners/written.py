"""A prompt with the way in which it is to be read: weights, chunks, clip skip; and its rows of token ids."""

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
        clip_skip: how many more of the encoder's last layers are left out, as diffusers counts them; 1 is A1111's 2.
        long: whether text beyond one chunk is read in further ones, or cut; None: as the syntax has it, `plain` is cut.
    """

    refusal: ClassVar[type[LdmkitError]] = InputError

    text: Prompt
    syntax: Literal["plain", "a1111"] = "plain"
    clip_skip: int = Field(default=0, ge=0, le=1000)
    long: bool | None = None

    @property
    def is_long(self) -> bool:
        """Whether it may have several chunks."""
        return self.syntax != "plain" if self.long is None else self.long

    def fragments(self) -> list[Fragment] | None:
        """The text as its syntax has it; None: a plain one that is cut, and token ids.

        Raises:
            InputError: what `read_emphasis` raises; `prompt-type`: token ids, which have no syntax.
        """
        if isinstance(self.text, list) and (self.syntax != "plain" or self.is_long):
            what = "token ids cannot have a syntax, nor more than one chunk"
            raise InputError("prompt-type", what, fits="text, or plain ids")
        if isinstance(self.text, list) or (self.syntax == "plain" and not self.is_long):
            return None
        return [Fragment(self.text)] if self.syntax == "plain" else read_emphasis(self.text)


def as_plain(value: Any) -> Any:
    """The words of a `WrittenPrompt` without its syntax, for readers of texts; anything else as it is."""
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
    """As recipes hold it; fields that say nothing are left out."""
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
            "description": "text, the complete sequence of token ids, or a text with the way in which it is read",
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

    A mean that is 0 but for rounding, as behind a LayerNorm that was never trained, stays so by itself.

    Raises:
        InputError: `prompt-weight`: the weights leave a row a mean of 0.
    """
    changed = (weights != 1).any(dim=1)
    if not bool(changed.any()):
        return states
    wide = states[changed].to(torch.promote_types(states.dtype, torch.float32))
    scaled = wide * weights[changed].to(wide)[..., None]
    before, after, size = (one.mean(dim=(1, 2), keepdim=True) for one in (wide, scaled, wide.abs()))
    empty = before.abs() <= ROUNDING * size
    if bool((~empty & (after.abs() <= ROUNDING * size)).any()):
        raise InputError("prompt-weight", "the weights of the prompt leave a mean of 0", fits="weights about 1")
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
        chunks.pop()  # nothing behind the last BREAK
    if len(chunks) > MOST_CHUNKS:
        what, fits = f"the prompt has {len(chunks)} chunks of {room} tokens", f"at most {MOST_CHUNKS}"
        raise InputError("prompt-too-long", what, fits=fits)
    return chunks


def cut(chunks: list[Chunk], room: int) -> list[Chunk]:
    """The first chunk, with a warning of those that are left out."""
    if len(chunks) > 1:
        count = sum(len(chunk.ids) for chunk in chunks)
        what = f"the prompt has {count} tokens, {room} fit; {len(chunks) - 1} of its {len(chunks)} chunks are cut"
        warnings.warn(what, TruncationWarning, stacklevel=4)
    return chunks[:1]
