"""Learnt words (textual inversion): a file of vectors becomes tokens of the text encoders of a pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ldmkit.contracts.learns_tokens import LearnsTokens
from ldmkit.errors import InputError, LdmkitError, SourceError, WeightsError, shown, warn
from ldmkit.models.compose import Parts
from ldmkit.models.fusing import twins
from ldmkit.models.locate import locate
from ldmkit.models.routing import input_name
from ldmkit.models.source import Learnt
from ldmkit.models.spec import ConditionerSpec
from ldmkit.models.updates import digest_of
from ldmkit.plugins.hooks import manager

EMBEDDING = "embedding"
"""`kind` in `Composed.updates` of what `Pipeline.with_embedding` read."""

TOWERS = ("clip_l", "clip_g")
"""Keys of files for several text encoders, in the order in which pipelines have these."""


_NO_WORDS = ("embeddings", "embedding", "learned_embeds", "learned_embeds-steps", "pytorch_model", "model", "ti_emb")
"""Names that programs give to files of embeddings, whatever the word is."""


class Words(NamedTuple):
    """What a file teaches: token -> tower -> vectors; and where it was read, for recipes and errors."""

    tokens: dict[str, dict[str, Learnt]]
    source: str
    record: dict[str, Any]


def read_words(source: str | Path, token: str | None) -> Words:
    """The words of a file of textual inversion.

    Args:
        token: the word for its vectors; None: as the file names it, or else the name of the file.

    Raises:
        InputError: `path-type`, `token`; `several-tokens`: one name for several words.
        SourceError: not found, no such file.
    """
    if not isinstance(source, str | Path):
        raise InputError("path-type", f"got {shown(source)}", where="source", fits="a path, or a name on the hub")
    if token is not None and not isinstance(token, str):
        raise InputError("token", f"got {shown(token)}", where="token", fits="a word such as <cat>, or None")
    path, origin = locate(source, None)
    found: Sequence[Learnt] | None = manager().hook.ldmkit_identify_embedding(path=path)
    if not found:
        what = "it holds no learnt vectors of a token (textual inversion) in a known layout"
        fits = "Pipeline.with_lora for a LoRA, ldmkit.load for a model"
        raise SourceError("unrecognised", what, where=origin, fits=fits)
    named = {one.token for one in found}
    if token is not None and len(named) > 1:
        what = f"the file has {len(named)} tokens, {', '.join(map(repr, sorted(map(str, named))[:10]))}"
        raise InputError("several-tokens", what, where="token", fits="no token: each keeps the name that it has")
    tokens: dict[str, dict[str, Learnt]] = {}
    for one in found:
        word = (one.token or Path(source).stem) if token is None else token
        tokens.setdefault(word, {})[one.tower] = one
    if token is None and None in named and (stem := Path(source).stem).lower() in _NO_WORDS:
        what = f"its word is the file's name, {stem!r}, which says nothing, and is wanted in texts"
        warn(f"{origin}: {what} (with_embedding(file, WORD), --embedding FILE=WORD; '<s0><s1>' for pivotal tuning)")
    record = {"kind": EMBEDDING, "tokens": list(tokens), "source": origin, "sha256": digest_of(path)}
    return Words(tokens, origin, record)


def learnt_parts(parts: Parts, wiring: Mapping[str, ConditionerSpec], words: Words) -> Parts:
    """The parts with text encoders that know the words; the arguments are unchanged, and all other tensors shared.

    Raises:
        CompositionError, SourceError: `other-base`: for other text encoders, with the shapes of both.
        InputError: `token-taken`, `no-vocabulary`.
        WeightsError: `wrong-shape`, `not-finite`.
    """
    towers = {
        name: part
        for name, part in parts.conditioners.items()
        if wiring[name].shares is None and isinstance(part, LearnsTokens)
    }
    if not towers:
        what = "this pipeline has no text encoder whose words are vectors of a table"
        raise SourceError("other-base", what, where=words.source, fits="a pipeline with a CLIP text encoder")
    towers, read = _vectors_of(towers, wiring, words)
    readers = {name for name, spec in wiring.items() if spec.shares in towers}
    _remark_other_readers(parts, wiring, {*towers, *readers}, list(words.tokens))
    copies = twins(parts, {name: parts.conditioners[name] for name in {*towers, *readers}})
    for token, vectors in read.items():
        for name in [*towers, *(name for name in wiring if name in readers)]:
            if isinstance(copies[name], LearnsTokens):
                _learn(copies[name], token, vectors[wiring[name].shares or name], words.source)
    return replace(parts, conditioners={name: copies.get(name, part) for name, part in parts.conditioners.items()})


def _vectors_of(
    towers: Mapping[str, LearnsTokens], wiring: Mapping[str, ConditionerSpec], words: Words
) -> tuple[dict[str, LearnsTokens], dict[str, dict[str, Tensor]]]:
    """The text encoders that a file is for, and token -> text encoder -> vectors.

    Those of one input (`text`) learn together, or none of them; those of another (phrases of a layout) if it fits them.

    Raises:
        SourceError: `other-base`, `half-a-pair`; WeightsError: `wrong-shape`, `not-finite`.
    """
    inputs: dict[str, dict[str, LearnsTokens]] = {}
    for name, tower in towers.items():
        inputs.setdefault(input_name(name, wiring[name]), {})[name] = tower
    taught: dict[str, LearnsTokens] = {}
    read: dict[str, dict[str, Tensor]] = {token: {} for token in words.tokens}
    first: LdmkitError | None = None
    for group in inputs.values():
        try:
            found = {token: _placed(group, by_tower, words.source) for token, by_tower in words.tokens.items()}
        except SourceError as error:
            first = first or error
            continue
        taught |= group
        for token, vectors in found.items():
            read[token] |= vectors
    if not taught and first is not None:
        raise first
    return taught, read


def _learn(learning: LearnsTokens, token: str, vectors: Tensor, where: str) -> None:
    try:
        learning.learn_token(token, vectors)
    except LdmkitError as error:
        error.where = where if error.where is None else f"{where}: {error.where}"
        raise


def _placed(towers: Mapping[str, LearnsTokens], found: Mapping[str, Learnt], where: str) -> dict[str, Tensor]:
    """Text encoder -> the vectors of one token, in its table's dtype.

    Raises:
        SourceError: `other-base`; WeightsError: `wrong-shape`, `not-finite`.
    """
    have = ", ".join(f"{name!r} with {tower.token_width}" for name, tower in towers.items())
    for one in found.values():
        shape = list(one.vectors.shape)
        if len(shape) not in (1, 2) or 0 in shape or not one.vectors.dtype.is_floating_point:
            what = f"{one.key!r} is {str(one.vectors.dtype).removeprefix('torch.')} of shape {shape}"
            raise WeightsError("wrong-shape", what, where=where, fits="floating-point vectors, (n, width)")
    chosen = _by_tower(towers, found, have, where)
    counts = {1 if len(one.vectors.shape) == 1 else one.vectors.shape[0] for one in chosen.values()}
    if len(counts) > 1:
        shapes = " and ".join(f"{one.key!r} {list(one.vectors.shape)}" for one in chosen.values())
        raise WeightsError("wrong-shape", f"{shapes} differ in number", where=where, fits="as many for each encoder")
    return {name: _vectors(one, towers[name], name, have, where) for name, one in chosen.items()}


def _by_tower(
    towers: Mapping[str, LearnsTokens], found: Mapping[str, Learnt], have: str, where: str
) -> dict[str, Learnt]:
    """Text encoder -> which of a file's tensors is for it."""
    shapes = ", ".join(f"{one.key!r} {list(one.vectors.shape)}" for one in found.values())
    other = SourceError(
        "other-base",
        f"it has {shapes}; the text encoders of this pipeline are {have}",
        where=where,
        fits="an embedding made for this model (SD 1: 768, SD 2: 1024, SDXL: clip_l 768 and clip_g 1280)",
    )
    if "" in found:
        if len(towers) > 1:
            what = f"it has {shapes} for one text encoder, this pipeline has {len(towers)}: {have}"
            raise SourceError("other-base", what, where=where, fits="a file with a tensor for each: clip_l and clip_g")
        return dict.fromkeys(towers, found[""])
    if len(towers) == 1:
        (name, tower), *_ = towers.items()
        fitting = [one for one in found.values() if one.vectors.shape[-1] == tower.token_width]
        fitting = [one for one in fitting if one.tower == tower.token_key] if len(fitting) > 1 else fitting
        if not fitting:
            raise other
        for one in found.values():
            if one is not fitting[0]:
                warn(f"{where}: {one.key!r} is not used: this pipeline has no text encoder for it")
        return {name: fitting[0]}
    asked = dict(zip(TOWERS, towers, strict=False))
    absent, unknown = asked.keys() - found.keys(), found.keys() - asked.keys()
    if unknown:
        raise other
    if absent or len(asked) < len(towers):
        what = f"it has {shapes} and nothing under {', '.join(map(repr, sorted(absent)))}, but this pipeline's text "
        what += f"encoders are {have}"
        raise SourceError("half-a-pair", what, where=where, fits="a file with clip_l and clip_g")
    return {name: found[key] for key, name in asked.items()}


def _vectors(one: Learnt, tower: LearnsTokens, name: str, have: str, where: str) -> Tensor:
    shape, width = list(one.vectors.shape), tower.token_width
    if shape[-1] != width:
        what = f"{one.key!r} has shape {shape}, the text encoder {name!r} takes vectors of {width}"
        fits = "an embedding made for this model (SD 1: 768, SD 2: 1024, SDXL: clip_l 768 and clip_g 1280)"
        raise SourceError("other-base", what, where=where, fits=fits)
    count = 1 if len(shape) == 1 else shape[0]
    if count > tower.token_room:
        what = f"{one.key!r} has {count} vectors"
        raise WeightsError("wrong-shape", what, where=where, fits=f"at most {tower.token_room}, as a prompt can have")
    vectors = one.vectors.read(True).reshape(count, width).to(tower.device, tower.dtype)
    if not bool(torch.isfinite(vectors).all()):
        what = f"{one.key!r} holds NaN or infinity, or numbers too large for {tower.dtype}"
        raise WeightsError("not-finite", what, where=where)
    return vectors


def _remark_other_readers(
    parts: Parts, wiring: Mapping[str, ConditionerSpec], learning: set[str], tokens: Sequence[str]
) -> None:
    """Warn of conditioners that read the same texts and take the word for letters."""
    inputs = {input_name(name, wiring[name]) for name in learning}
    for name, part in parts.conditioners.items():
        other = name not in learning and input_name(name, wiring[name]) in inputs
        if other and part.kind in ("tokens", "vector"):
            what = f"the conditioner {name!r} ({type(part).__name__}) reads the same text"
            warn(f"{what} and does not know {', '.join(map(repr, tokens))}")
