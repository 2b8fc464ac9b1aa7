"""The ability of a conditioner to leave something to chance: noise on a picture, the level of that noise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from ldmkit.contracts.conditioner import Conditioner


class Seeded(Conditioner, ABC):
    """Has inputs of which something is random: it follows from the picture's seed, so that batches do not matter."""

    @abstractmethod
    def drawn(self, value: Any, seed: int, *, training: bool) -> Any:
        """A parsed input with all that is random in it decided by the seed, so that `forward` draws nothing.

        Called once a row of every run and training step, with the row's seed. Where several conditioners read one
        input, the first in spec order is asked, and all of them get what it returns.

        Args:
            training: whether the network is being trained, with values from the whole range that it is to know.
        """


def drawn_rows(
    readers: Mapping[str, Conditioner], rows: Sequence[Mapping[str, Any]], seeds: Sequence[int], *, training: bool
) -> list[Mapping[str, Any]]:
    """Parsed rows with what is random in them drawn, one seed a row.

    Args:
        readers: input name -> the conditioner that is asked.
    """
    random = {key: part for key, part in readers.items() if isinstance(part, Seeded)}
    if not random:
        return list(rows)
    return [
        {**row, **{key: part.drawn(row[key], seed, training=training) for key, part in random.items() if key in row}}
        for row, seed in zip(rows, seeds, strict=True)
    ]
