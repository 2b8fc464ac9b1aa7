"""The training stage of a new token."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from ldmkit_checkpoints.embeddings import write_embedding
from torch import Tensor

from ldmkit import CompositionError, Example, InputError, LearnsTokens, Pipeline, StageSetup, shown
from ldmkit.run.inputs import input_name
from ldmkit_training.data.sources.records import first_few
from ldmkit_training.stages.seeded import seeded
from ldmkit_training.stages.started import OneFileStage, write_start
from ldmkit_training.stages.textual_inversion.section import TextualInversionConfig, TokenSection
from ldmkit_training.stages.textual_inversion.vectors import TokenTurn, TokenVectors

FILE = "learned_embeds.safetensors"
"""The name under which diffusers and `Pipeline.with_embedding` look for it in a folder."""


class TextualInversionStage(OneFileStage):
    """Trains the vectors of a new token of a pipeline's text encoders (Gal et al. 2022); all else stays bit for bit.

    Args:
        config: the recipe.
        setup: its folder, and the seed.

    Raises:
        CompositionError: `no-token-table`: the pipeline has no text encoder that learns tokens.
        InputError: `token-taken`; `bad-init`: the word to start from.
        SourceError, WeightsError: of the pipeline to start from.
    """

    api: ClassVar[int] = 1
    Config = TextualInversionConfig
    file = FILE
    overfit_share: ClassVar[float] = 1.0
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            {"model": {"start": "start"}, "token": {"word": "<new>", "vectors": 2}},
            ({"text": "a <new> b"}, {"text": "b <new>"}),
        ),
    )

    @classmethod
    def write_example(cls, folder: Path) -> None:
        write_start(folder, words=True)

    def __init__(self, config: TextualInversionConfig, setup: StageSetup) -> None:
        base, self.section = config.model.open(setup.folder), config.token
        with seeded(setup.seed, "token"):
            pipeline = _with_token(base, self.section)
        # those that learnt it are copies
        towers = {name: part for name, part in _towers(pipeline).items() if part is not base.conditioners[name]}
        self.vectors = TokenVectors(towers, self.section.word)
        started = "noise" if self.section.init is None else repr(self.section.init)
        self.notes = [f"token: {self.section.word!r}, starts as {started}, in {', '.join(towers)}"]
        self.set_up(
            pipeline, config.objective, {"token": self.vectors},
            gradient_checkpointing=config.gradient_checkpointing, turn=TokenTurn,
        )  # fmt: skip
        self.readers = {input_name(name, pipeline.wiring[name]): part for name, part in towers.items()}

    def survey(self, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """Which texts the token is read in.

        Raises:
            InputError: `no-token`: it is read in none.
        """
        read = [self._reads(inputs) for _, inputs in rows]
        if all(read):
            return []
        word = self.section.word
        fits = "texts with it near their beginning (data.captions can put a word in front of each)"
        without = dict.fromkeys(name for (name, _), found in zip(rows, read, strict=True) if not found)
        if not any(read):
            text = next((rows[0][1][name] for name in self.readers if name in rows[0][1]), None)
            what = f"no text of the data has {word!r} where it is read: {'none' if text is None else shown(text)}"
            raise InputError("no-token", what, where=next(iter(without)), fits=fits)
        what = f"token.word: {len(without)} of {len(dict(rows))} samples have no {word!r} where their text is read"
        return [f"{what}, and teach it nothing: {first_few(without)} ({fits})"]

    def _reads(self, inputs: Mapping[str, Any]) -> bool:
        """Whether the word's tokens are among those that are read of a text; of chunked prompts and of token ids
        that is taken for granted."""
        for name, tower in self.readers.items():
            text = inputs.get(name)
            if isinstance(text, str):
                if tower.token_ids(self.section.word)[0] in tower.token_ids(text)[: tower.token_room]:
                    return True
            elif text is not None:
                return True
        return False

    def write(self, path: Path) -> None:
        """The vectors, for `Pipeline.with_embedding` and for diffusers or A1111."""
        write_embedding(path, self.section.word, self.vectors.named(), self.section.layout)


def _towers(pipeline: Pipeline) -> dict[str, Any]:
    """The text encoders with a table of their own."""
    found = {
        name: part
        for name, part in pipeline.conditioners.items()
        if isinstance(part, LearnsTokens) and part.token_table is not None and pipeline.wiring[name].shares is None
    }
    if not found:
        what = "the model has no text encoder that learns tokens"
        fits = f"a model with a CLIP text encoder, for example (conditioners: {', '.join(pipeline.conditioners)})"
        raise CompositionError("no-token-table", what, where="model.start", fits=fits)
    return found


def _with_token(base: Pipeline, section: TokenSection) -> Pipeline:
    """The pipeline with the token in its tables, as it begins."""
    towers = _towers(base)
    inputs = {name: input_name(name, base.wiring[name]) for name in towers}
    first = next(iter(inputs.values()))
    began = {name: _began(part, section) for name, part in towers.items() if inputs[name] == first}
    with tempfile.TemporaryDirectory(prefix="ldmkit-token-") as folder:
        file = Path(folder) / FILE
        write_embedding(file, section.word, began, "diffusers")
        return base.with_embedding(file, token=section.word)


def _began(tower: Any, section: TokenSection) -> Tensor:
    """First vectors (n, width): the rows of a word, one after another, or noise."""
    table: Tensor = tower.token_table.weight.detach().float().cpu()
    if section.init is None:
        return torch.randn(section.vectors, table.shape[1]) * table.std() + table.mean()
    ids = tower.token_ids(section.init)
    if not 1 <= len(ids) <= section.vectors:
        what = f"{section.init!r} is {len(ids)} tokens, and {section.word!r} has {section.vectors} vectors"
        raise InputError("bad-init", what, where="token.init", fits=f"a word of 1 to {section.vectors} tokens")
    return table[[ids[k % len(ids)] for k in range(section.vectors)]]
