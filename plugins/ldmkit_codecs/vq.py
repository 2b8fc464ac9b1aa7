"""The vector-quantised first stage. The diffusion latent is taken before quantisation, which decoding absorbs.

With spatial norms it is MoVQ (Zheng et al. 2022), the first stage of Kandinsky."""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ldmkit import Codec, Direction, Example, InputError, Reconstruction, Work, without_autocast
from ldmkit.bounds import Rows, Width
from ldmkit_codecs.autoencoder import SMALL, AutoencoderConfig, Decoder, Encoder, group_norm, spatial_norms
from ldmkit_codecs.footprint import autoencoder_footprint
from ldmkit_codecs.shapes import check_images, check_latents, held_dtype, restore, standardise

SEARCH_ELEMENTS = 2**23
"""Number of distances computed at a time in the nearest-entry search: 32 MiB in float32."""


class VQConfig(AutoencoderConfig):
    """Geometry and codebook.

    Args:
        codebook_size: number of entries.
        beta: weight of the weaker term of the codebook loss.
        legacy: True: beta weights the codebook's term, as in the training of the published models; False: the
            encoder's, as in van den Oord et al. 2017, equation 3.
        spatial_groups: None: the decoder has ordinary group norms; a number: its norms are spatial (MoVQ, Zheng et al.
            2022): they have so many groups, and read the latent at each position.
        quantises: whether `decode` takes the nearest codebook entries; training always does.
        sides: heights and widths of pictures are multiples of it; None: of the factor, the least that is possible.
    """

    codebook_size: Rows = 8192
    beta: float = Field(default=0.25, ge=0)
    legacy: bool = True
    spatial_groups: Width | None = None
    quantises: bool = True
    sides: Width | None = None

    @model_validator(mode="after")
    def _divided(self) -> Self:
        for width in self.widths:
            if self.spatial_groups is not None and width % self.spatial_groups:
                raise ValueError(f"width {width} is not a multiple of {self.spatial_groups} spatial_groups")
        if self.sides is not None and self.sides % self.factor:
            raise ValueError(f"sides {self.sides} is not a multiple of the factor {self.factor}")
        return self


class Quantised(NamedTuple):
    """Codebook vectors (B, c, h, w), their indices (B, h, w), and the codebook loss (scalar)."""

    quant: Tensor
    codes: Tensor
    loss: Tensor


class Codebook(nn.Module):
    """`codebook_size` vectors of `dim` numbers."""

    def __init__(self, size: int, dim: int):
        super().__init__()
        self.embedding = nn.Embedding(size, dim)
        nn.init.uniform_(self.embedding.weight, -1.0 / size, 1.0 / size)

    def codes(self, raw: Tensor) -> Tensor:
        """Index of the nearest entry at each position, the first of equally near ones: (B, c, h, w) -> (B, h, w)."""
        entries = self.embedding.weight.detach()
        if entries.dtype in (torch.float16, torch.bfloat16):
            entries = entries.float()
        rows = raw.detach().movedim(1, -1).reshape(-1, raw.shape[1]).to(entries.dtype)
        # |z - e|^2 = |z|^2 - 2 z.e + |e|^2; the first term does not change which is nearest
        lengths, transposed = entries.square().sum(1), entries.t()
        chunk = max(1, SEARCH_ELEMENTS // entries.shape[0])
        # under autocast, distances would have 8 significant bits, and ties would map many positions to the same entry
        with without_autocast(rows.device):
            found = [torch.addmm(lengths, part, transposed, alpha=-2).argmin(1) for part in rows.split(chunk)]
        return torch.cat(found).view(raw.shape[0], *raw.shape[2:])

    def entries(self, codes: Tensor) -> Tensor:
        """Codebook vectors of indices: (B, h, w) -> (B, c, h, w)."""
        return self.embedding(codes).movedim(-1, 1)


class VQCodec(Codec):
    """Pictures (B,3,H,W) in [-1,1] <-> latents (B, embed_dim, H/factor, W/factor), quantised when decoded."""

    Config = VQConfig
    config: VQConfig
    examples = (
        Example({**SMALL, "codebook_size": 20, "embed_dim": 3, "scale": 0.5}),
        Example({**SMALL, "codebook_size": 20, "mid_attention": "none", "dropout": 0.1}),
        Example(
            {
                **SMALL,
                "codebook_size": 20,
                "spatial_groups": 8,
                "attention_levels": (2,),
                "quantises": False,
                "sides": 8,
            }
        ),
    )

    def __init__(self, config: VQConfig | None = None):
        super().__init__(config)
        c = self.config
        self.channels, self.factor = c.latent_channels, c.factor
        self.encoder = Encoder(c, c.z_channels)
        spatial = c.spatial_groups
        self.decoder = Decoder(c, group_norm if spatial is None else spatial_norms(spatial, self.channels))
        self.codebook = Codebook(c.codebook_size, self.channels)
        self.quant_conv = nn.Conv2d(c.z_channels, self.channels, 1)
        self.post_quant_conv = nn.Conv2d(self.channels, c.z_channels, 1)

    @property
    def multiple(self) -> int:
        """Heights and widths of pictures must be multiples of this."""
        return self.config.sides or self.factor

    def encode_raw(self, images: Tensor) -> Tensor:
        """Raw latents before quantisation, scale and shift.

        Raises:
            InputError: a shape or size that does not fit.
        """
        check_images(images, self.config.in_channels, self.multiple)
        return self.quant_conv(self.encoder(images))

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Standardised latents before quantisation; there is no posterior, so `noise` has no effect.

        Raises:
            InputError: a shape or size that does not fit.
        """
        return standardise(self.encode_raw(images), self.config.scale, self.config.shift)

    def raw(self, latents: Tensor) -> Tensor:
        """Latents in the encoder's own units, before scale and shift."""
        return restore(latents, self.config.scale, self.config.shift)

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures of standardised latents, through their nearest codebook entries, past which gradients pass
        straight; without `quantises` in the config, of the latents themselves.

        Raises:
            InputError: another shape.
        """
        check_latents(latents, self.channels)
        raw = restore(latents, self.config.scale, self.config.shift)
        if not self.config.quantises:
            return self.decode_raw(raw)
        return self.decode_raw(_straight_through(raw, self.codebook_entry(self.codes(raw))))

    def decode_raw(self, raw: Tensor) -> Tensor:
        """Decode raw latents directly, without quantisation."""
        features = self.post_quant_conv(raw)
        return self.decoder(features) if self.config.spatial_groups is None else self.decoder(features, raw)

    def codes(self, raw: Tensor) -> Tensor:
        """Nearest codebook index at each position of raw latents: (B, channels, h, w) -> (B, h, w) int64."""
        check_latents(raw, self.channels)
        return self.codebook.codes(raw)

    def codebook_entry(self, codes: Tensor) -> Tensor:
        """Raw latents of codebook indices: (B, h, w) -> (B, channels, h, w).

        Raises:
            InputError: not three axes of integers.
        """
        if codes.ndim != 3 or codes.is_floating_point():
            what = f"got {codes.dtype} of shape {tuple(codes.shape)}"
            raise InputError("shape", what, where="codes", fits="integers (batch, height, width)")
        return self.codebook.entries(codes)

    def quantise(self, raw: Tensor) -> Quantised:
        """Nearest entries of raw latents, their indices, and the codebook loss (van den Oord et al. 2017, eq. 3).

        Fixed: mean |sg[z] - e|^2 + beta mean |z - sg[e]|^2. Legacy: beta on the first term instead.
        """
        codes = self.codes(raw)
        quant = self.codebook_entry(codes)
        to_codebook = (quant - raw.detach()).square().mean()
        to_encoder = (quant.detach() - raw).square().mean()
        beta = self.config.beta
        loss = to_encoder + beta * to_codebook if self.config.legacy else to_codebook + beta * to_encoder
        return Quantised(quant, codes, loss)

    def reconstruct(self, images: Tensor, noise: Tensor | None = None) -> Reconstruction:
        """Loss `codebook`. Metrics of the batch's codes: `usage`, the fraction of entries used at least once, and
        `perplexity`, exp of their entropy: 1 for a collapsed codebook, codebook_size for an evenly used one."""
        raw = self.encode_raw(images)
        quant, codes, loss = self.quantise(raw)
        as_decoded = not self.config.quantises and not self.training
        images = self.decode_raw(raw if as_decoded else _straight_through(raw, quant))
        counts = torch.bincount(codes.flatten(), minlength=self.config.codebook_size)
        share = counts.float() / codes.numel()
        metrics = {"usage": (counts > 0).float().mean(), "perplexity": torch.special.entr(share).sum().exp()}
        return Reconstruction(images, {"codebook": loss}, metrics)

    def footprint(self, batch: int, size: tuple[int, ...], direction: Direction) -> Work:
        """See `Codec.footprint`; decoding searches the codebook first, in parts."""
        work = autoencoder_footprint(self.config, batch, size, direction, self.dtype.itemsize)
        positions = batch * size[0] * size[1] // self.factor**2
        distances = positions * self.config.codebook_size if direction == "decode" and self.config.quantises else 0
        searched = min(distances, max(SEARCH_ELEMENTS, self.config.codebook_size))
        return Work(max(work.bytes, 4 * searched), work.flops + 2 * distances * self.channels)

    def held_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """float32 if float16 is requested and the config has `force_upcast`."""
        return held_dtype(dtype, self.config.force_upcast)

    @property
    def standardises(self) -> bool:
        """Whether the scale of its latents is known."""
        return self.config.scale is not None

    @property
    def last_layer(self) -> nn.Parameter:
        """Weight of the decoder's last convolution."""
        return self.decoder.conv_out.weight


def _straight_through(raw: Tensor, quant: Tensor) -> Tensor:
    if torch.is_grad_enabled() and raw.requires_grad:
        return raw + (quant - raw).detach()
    return quant.detach()
