"""IP-Adapter (Ye et al. 2023): pictures as prompts, by an attention of their own beside each cross-attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from ldmkit_denoisers.config import SMALL
from torch import Tensor, nn

from ldmkit import Adapter, CompositionError, Context, Example, Frame, InputError, Plane, Run, Slot, Tap, Tokens
from ldmkit_adapters.ip_adapter.config import IPAdapterConfig
from ldmkit_adapters.ip_adapter.projections import Full, Plain, Resampler
from ldmkit_adapters.ip_adapter.state import IPState, KeysValues

ABSENT = -1.0
"""All over a channel of regions that has none."""

_HOST = {**SMALL, "attention": ("none", "cross"), "context_dim": 6, "vector": "mlp", "vector_dim": 4}
_UNET = {"type": "unet", "config": _HOST}
_PATHS = ("down.1.attn.0", "up.1.attn.0", "up.1.attn.1", "mid.attn")
_LAYERS: list[dict[str, Any]] = [{"port": f"cross.{path}.blocks.0", "width": 16} for path in _PATHS]


@dataclass(frozen=True)
class _Attend:
    """Tap at `cross.<path>`: adds the attention to the pictures."""

    name: str
    port: str

    def __call__(self, value: Tensor, frame: Frame) -> Tensor:
        state = frame.context.adapters.get(self.name)
        return value if state is None else state.added(self.port, value, frame)


class IPAdapter(Adapter):
    """Adds attentions to pictures to the network's cross-attentions; a new one changes nothing.

    Slot `image`: tokens (B, pictures x length, source) of an image encoder. They are dropped by guidance with the other
    conditions, for the encoder's null. Slot `region`: a plane (B, regions, H, W) with a channel for each picture, 1
    where the picture counts, and -1 all over where there is none. State-dict names: projection, to_k.<i>, to_v.<i>.
    """

    Config = IPAdapterConfig
    config: IPAdapterConfig
    examples = (
        Example({"layers": _LAYERS, "source": 5, "tokens": 2, "dim": 6, "regions": 0}, denoiser=_UNET),
        Example(
            {
                "layers": _LAYERS[:2],
                "projection": "resampler",
                "source": 5,
                "length": 5,
                "tokens": 3,
                "dim": 4,
                "width": 8,
                "heads": 2,
                "head_dim": 4,
                "mlp": 16,
                "depth": 1,
                "scale": 0.5,
                "regions": 1,
            },
            denoiser=_UNET,
        ),
        Example(
            {
                "layers": _LAYERS[1:],
                "projection": "full",
                "source": 5,
                "length": 5,
                "tokens": 5,
                "dim": 4,
                "scales": {"up": 0.5},
                "regions": 1,
                "weights": (0.5,),
            },
            denoiser=_UNET,
        ),
    )

    def __init__(self, config: IPAdapterConfig | None = None):
        super().__init__(config)
        c = self.config
        self.projection: nn.Module
        if c.projection == "plain":
            self.projection = Plain(c.source, c.tokens, c.dim)
        elif c.projection == "full":
            self.projection = Full(c.source, c.dim)
        else:
            shape = (c.width, c.heads, c.head_dim, c.mlp, c.depth)
            self.projection = Resampler(c.source, c.tokens, c.dim, *shape)
        self.to_k = nn.ModuleList(nn.Linear(c.dim, layer.width, bias=False) for layer in c.layers)
        self.to_v = nn.ModuleList(nn.Linear(c.dim, layer.width, bias=False) for layer in c.layers)
        for layer in self.to_v:
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
        regions = {"region": Slot("plane", c.regions)} if c.regions else {}
        self.slots = {"image": Slot("tokens", c.source, required=True), **regions}

    def taps(self, name: str) -> Mapping[str, Tap]:
        """At `cross.<path>` of every attention that it is added to."""
        return {layer.port: _Attend(name, layer.port) for layer in self.config.layers}

    def adds(self, name: str) -> Mapping[str, int]:
        return {layer.port: layer.width for layer in self.config.layers}

    def drops(self, slot: str) -> bool:
        return slot == "image"

    def has_null(self, slot: str) -> bool:
        return slot == "image"

    def idle(self, run: Run) -> str | None:
        """See `Adapter.idle`."""
        if not any(self.config.strengths.values()):
            return "its scale is 0"
        if self.config.weights and not any(self.config.weights):
            return "its weights are 0"
        return self.config.outside(run)

    def prepare(self, context: Context, name: str) -> IPState | None:
        """Keys and values of the pictures, once per run; None without pictures.

        Raises:
            CompositionError: `wrong-signal`.
            InputError: `picture-weights`, `region-count`, `region-size`.
        """
        signal = context.signals.get(f"{name}.image")
        if signal is None:
            return None
        length = self.config.length
        shape = signal.value.shape if isinstance(signal, Tokens) else ()
        if not isinstance(signal, Tokens) or shape[2] != self.config.source or shape[1] % length:
            fits = f"tokens (B, pictures x {length}, {self.config.source})"
            raise CompositionError("wrong-signal", f"the pictures of {name!r} do not fit", fits=fits)
        tokens = signal.value.to(self.to_k[0].weight.dtype).unflatten(1, (-1, length))
        there = None if signal.mask is None else signal.mask.unflatten(1, (-1, length))[..., 0]
        there = None if there is None or bool(there.all()) else there
        rows = self._rows(context, f"{name}.image", tokens)
        if there is not None and rows is not None:
            there = there | (rows[:, 0] == 0)  # rows that add nothing, which may attend to anything
        self._check_weights(tokens.shape[1], there, name)
        regions, marked = self._regions(context, name, tokens.shape[1], there), None
        if regions is not None and (some := self._rows(context, f"{name}.region", regions)) is not None:
            marked = some > 0
            regions = torch.where(marked[..., None], regions, torch.ones_like(regions))
        kv = self._keys_values(tokens)
        return IPState(self.config, self.config.strengths, kv, there, rows, regions, marked, context.run)

    def _keys_values(self, tokens: Tensor) -> dict[str, KeysValues]:
        seen = self.projection(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
        layers = zip(self.config.layers, self.to_k, self.to_v, strict=True)
        return {layer.port: (to_k(seen), to_v(seen)) for layer, to_k, to_v in layers}

    def _rows(self, context: Context, slot: str, like: Tensor) -> Tensor | None:
        given = context.given.get(slot, context.present.get(slot))
        if given is None or bool(given.all()):
            return None
        return given.to(like.dtype).view(-1, 1, 1)

    def _check_weights(self, pictures: int, there: Tensor | None, name: str) -> None:
        weights = len(self.config.weights)
        if weights and (weights != pictures or there is not None):
            found = f"{pictures} pictures" if there is None else "pictures of other numbers in some rows"
            what = f"the adapter {name!r} has {weights} weights, the call {found}"
            raise InputError("picture-weights", what, where="weights", fits="one weight for each picture")

    def _regions(self, context: Context, name: str, pictures: int, there: Tensor | None) -> Tensor | None:
        """(B, pictures, H, W) of the signal, or None where there is none."""
        signal = context.signals.get(f"{name}.region")
        if signal is None:
            return None
        if not isinstance(signal, Plane) or signal.value.shape[1] != self.config.regions:
            what, fits = f"the regions of {name!r} do not fit", str(self.slots.get("region"))
            raise CompositionError("wrong-signal", what, fits=fits)
        regions = signal.value
        if pictures > self.config.regions:
            what = f"the adapter {name!r} takes {self.config.regions} pictures with regions, the call has {pictures}"
            raise InputError("region-count", what, where="region", fits=f"the option regions={pictures}")
        if context.run is not None:
            factors = {side / cells for side, cells in zip(regions.shape[2:], context.run.size, strict=True)}
            if len(factors) > 1 or not next(iter(factors)).is_integer():
                what = f"regions of {tuple(regions.shape[2:])} pixels for latents of {tuple(context.run.size)}"
                raise InputError("region-size", what, where="region", fits="masks of the picture's size")
        given = context.given.get(f"{name}.region", context.present.get(f"{name}.region"))
        self._check_regions((regions != ABSENT).flatten(2).any(2), pictures, there, given, name)
        return regions[:, :pictures]

    def _check_regions(
        self, found: Tensor, pictures: int, there: Tensor | None, given: Tensor | None, name: str
    ) -> None:
        """Refuse other numbers of regions (B, regions) than of pictures, in any row that has regions."""
        counts = found.sum(1)
        wanted = counts.new_full(counts.shape, pictures) if there is None else there.sum(1)
        wrong = counts != wanted if given is None else (counts != wanted) & given
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            what = f"the adapter {name!r} has {int(wanted[row])} pictures and {int(counts[row])} regions"
            raise InputError("region-count", what, where="region", fits="one region for each picture")
