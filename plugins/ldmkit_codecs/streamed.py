"""An encoder or decoder that runs in stretches of layers, within a memory budget."""

from __future__ import annotations

from torch import Tensor, nn

from ldmkit_codecs.autoencoder import Decoder, Encoder, LayerCall
from ldmkit_codecs.heap import Heap
from ldmkit_codecs.spatial import Guide
from ldmkit_codecs.stretches import LayerPlan, Measure, Stretch, steps_of, tiles
from ldmkit_codecs.wholes import Place, Unknown, passes, twin


class Streamed(nn.Module):
    """Computes the same function as `module`, with a plan for `budget` bytes; one picture at a time."""

    def __init__(self, module: Encoder | Decoder, steps: tuple[Measure, ...], plan: LayerPlan, budget: int):
        super().__init__()
        self.place, self.budget = Place(), budget
        self.plan, self.measures = plan, steps
        self.module, self.twin = module, twin(module, self.place)

    def forward(self, x: Tensor, latent: Tensor | None = None) -> Tensor:
        """As `module`; decoders with spatial norms take the latent as well."""
        guides = [None, None]
        if latent is not None:
            factor = self.measures[0].stride_in
            guides = [Guide(latent, factor), Guide(latent, factor, self.place)]
        self.plain, self.gathering = (steps_of(*each) for each in zip((self.module, self.twin), guides, strict=True))
        heap = Heap(x, self.budget)
        for stretch in self.plan.stretches:
            x = self._whole(x, stretch, heap) if stretch.whole else self._tiled(x, stretch, heap)
        return x

    def _whole(self, source: Tensor, stretch: Stretch, heap: Heap) -> Tensor:
        x = source
        for step in self.plain[stretch.first : stretch.last]:
            heap.settle(source, None if x is source else x)
            x = step(x)
        return x

    def _tiled(self, x: Tensor, stretch: Stretch, heap: Heap) -> Tensor:
        steps = self.gathering[stretch.first : stretch.last]
        return passes(lambda: self._over_tiles(x, stretch, steps, heap))

    def _over_tiles(self, x: Tensor, stretch: Stretch, steps: list[LayerCall], heap: Heap) -> Tensor:
        into = self.measures[stretch.first].stride_in
        out = self.measures[stretch.last - 1].stride_out
        place, made, waiting = self.place, None, None
        for rows, columns, owned_rows, owned_columns in tiles(self.plan.size, stretch):
            place.rows, place.columns = rows, columns
            place.owned_rows, place.owned_columns = owned_rows, owned_columns
            piece = x[..., rows[0] // into : rows[1] // into, columns[0] // into : columns[1] // into]
            try:
                for i, step in enumerate(steps):
                    heap.settle(x, made, piece if i else None)  # the first is a view of x
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
