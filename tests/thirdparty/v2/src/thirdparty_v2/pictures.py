"""Conditioners that see the run's size, its codec, the picture around a hole, or the other inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

import ldmkit

Light = Annotated[float, Field(ge=0, le=1)]


class Halves(ldmkit.OnGrid, ldmkit.HasDefault):
    """How light the left and the right half are, as a plane (B,1,h,w) of any size; half light unless said."""

    api = 2
    Input = tuple[Light, Light]
    kind = "plane"
    dim = 1
    examples = (ldmkit.Example(inputs=([0.0, 1.0], [0.5, 0.25]), trained=False),)

    def forward(self, inputs: list[tuple[float, float]]) -> ldmkit.Plane:
        """Two cells, where nobody says how many there are."""
        return self.on_grid(inputs, (1, 2))

    def on_grid(self, inputs: list[tuple[float, float]], grid: tuple[int, int]) -> ldmkit.Plane:
        """For latents of h x w cells."""
        right = torch.arange(grid[1]) >= grid[1] / 2
        rows = torch.stack([torch.where(right, second, first) for first, second in torch.tensor(inputs)])
        return ldmkit.Plane(rows[:, None, None].expand(-1, 1, *grid).contiguous())

    def default(self, size: tuple[int, int]) -> tuple[float, float]:
        """Half light."""
        return (0.5, 0.5)


class Framed(ldmkit.Value):
    """Args: picture around the hole; mask, 1 in the hole."""

    image: ldmkit.Picture
    mask: ldmkit.Mask


class Around(ldmkit.UsesCodec, ldmkit.SetsSize, ldmkit.KnowsRegion):
    """What is around a hole, a plane (B,1,h,w): the mean of the latents of the picture with the hole grey."""

    api = 2
    Input = Framed
    kind = "plane"
    dim = 1
    has_null = False
    examples = (
        ldmkit.Example(
            inputs=(
                {"image": torch.full((3, 16, 16), -0.5), "mask": torch.ones(1, 16, 16)},
                {"image": torch.linspace(-1, 1, 768).reshape(3, 16, 16), "mask": torch.zeros(1, 16, 16)},
            ),
            trained=False,
        ),
    )

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._codec: tuple[ldmkit.Codec, ...] = ()

    def bind(self, codec: ldmkit.Codec) -> None:
        """Its codec, without registering its weights."""
        ldmkit.check_pictures(codec.axes, "what is around a hole")
        if self._codec and self._codec[0] is not codec:
            raise ldmkit.CompositionError("bound-elsewhere", "it encodes with another codec", fits="one of its own")
        self._codec = (codec,)

    def picture_size(self, value: Framed, factor: int) -> tuple[int, int]:
        """The picture's own."""
        height, width = value.image.shape[-2:]
        return height, width

    def known(self, value: Framed) -> tuple[Tensor, Tensor]:
        """All but the hole."""
        return value.image, (value.mask >= 0.5).float()

    def forward(self, inputs: list[Framed]) -> ldmkit.Plane:
        """The codec's latents, averaged over their channels."""
        sizes = {tuple(item.image.shape) for item in inputs}
        if not self._codec or len(sizes) != 1:
            raise ldmkit.InputError("around-sizes", f"{len(sizes)} sizes", where="around", fits="one, and a codec")
        codec = self._codec[0]
        seen = torch.stack([item.image * (item.mask < 0.5) for item in inputs])
        if any(side % codec.multiple for side in seen.shape[-2:]):
            fits = f"sides that are multiples of {codec.multiple}"
            raise ldmkit.InputError("around-sizes", f"{tuple(seen.shape)}", where="around", fits=fits)
        return ldmkit.Plane(codec.encode(seen.to(codec.device, codec.dtype)).mean(1, keepdim=True))


class GuessConfig(ldmkit.Value):
    """Args: reads, the input that it guesses from."""

    reads: str = "words"


class Guess(ldmkit.Proposing):
    """A light as a vector (B,1), guessed from a text where none was given: by the mean of its letters, and the seed."""

    api = 2
    Config = GuessConfig
    config: GuessConfig
    Input = Light
    kind = "vector"
    dim = 1
    examples = (ldmkit.Example(inputs=(0.0, 0.25, 1.0), trained=False),)

    def __init__(self, config: GuessConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.reader = nn.Linear(1, 1)

    def forward(self, inputs: list[float]) -> ldmkit.Vector:
        """The number itself."""
        return ldmkit.Vector(torch.tensor(inputs, dtype=self.dtype, device=self.device)[:, None])

    def example(self, size: tuple[int, int]) -> float:
        """Half light."""
        return 0.5

    def propose(self, given: Mapping[str, Any], size: tuple[int, int], seed: int) -> float | None:
        """None without a text."""
        text = given.get(self.config.reads)
        if not isinstance(text, str):
            return None
        drawn = float(torch.rand((), generator=ldmkit.seeded(seed, "guess")))
        return float(self._mean(text).sigmoid()) * 0.5 + drawn * 0.5

    @property
    def proposer(self) -> nn.Module:
        """The layer that reads the text's mean."""
        return self.reader

    def proposal_losses(self, rows: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Tensor]:
        """The squared error of the guess without its draw."""
        off = [self._mean(row[self.config.reads]).sigmoid() - row[name] for row in rows]
        return {"light": torch.stack(off).square().mean()}

    def _mean(self, text: str) -> Tensor:
        mean = sum(map(ord, text)) / len(text) / 128
        read: Tensor = self.reader(torch.tensor([mean], dtype=self.dtype, device=self.device))[0]
        return read
