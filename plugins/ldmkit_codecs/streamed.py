"""An encoder or decoder run by stretches, within a memory budget."""

from __future__ import annotations

from torch import Tensor, nn

from ldmkit_codecs.autoencoder import Decoder, Encoder, Step
from ldmkit_codecs.stretches import LayerPlan, Measure, Stretch, tiles
from ldmkit_codecs.wholes import Place, Unknown, passes, twin


class Streamed(nn.Module):
    """The same map as `module`, by a plan; one picture at a time."""

    def __init__(self, module: Encoder | Decoder, steps: tuple[Measure, ...], plan: LayerPlan):
        super().__init__()
        self.place = Place()
        self.plan, self.measures = plan, steps
        self.plain, self.gathering = module.steps(), twin(module, self.place).steps()

    def forward(self, x: Tensor) -> Tensor:
        for stretch in self.plan.stretches:
            x = self._whole(x, stretch) if stretch.whole else self._tiled(x, stretch)
        return x

    def _whole(self, x: Tensor, stretch: Stretch) -> Tensor:
        for step in self.plain[stretch.first : stretch.last]:
            x = step(x)
        return x

    def _tiled(self, x: Tensor, stretch: Stretch) -> Tensor:
        steps = self.gathering[stretch.first : stretch.last]
        return passes(lambda: self._over_tiles(x, stretch, steps))

    def _over_tiles(self, x: Tensor, stretch: Stretch, steps: list[Step]) -> Tensor:
        into = self.measures[stretch.first].stride_in
        out = self.measures[stretch.last - 1].stride_out
        place, made, waiting = self.place, None, None
        for rows, columns, owned_rows, owned_columns in tiles(self.plan.size, stretch):
            place.rows, place.columns = rows, columns
            place.owned_rows, place.owned_columns = owned_rows, owned_columns
            piece = x[..., rows[0] // into : rows[1] // into, columns[0] // into : columns[1] // into]
            try:
                for step in steps:
                    piece = step(piece)
            except Unknown as unknown:
                waiting = unknown.norm
                continue
            if made is None:
                height, width = (side // out for side in self.plan.size)
                made = piece.new_empty((*piece.shape[:2], height, width))
            down, across = (slice(a // out, b // out) for a, b in (owned_rows, owned_columns))
            made[..., down, across] = place.owned(piece)
        if waiting is not None:
            raise Unknown(waiting)
        assert made is not None
        return made
