"""Checks of decoding: it reads all latents, is differentiable, and draws only from the given noise."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ldmkit.testing.batches import differ, normal, same
from ldmkit.testing.checks import NotApplicable, check, expect
from ldmkit.testing.codec.subject import SIZES, CodecSubject, latents, noise_of, pictures
from ldmkit.testing.modules import ROWS


@check("codec", "decode-reads-all")
def decode_reads_all(s: CodecSubject) -> None:
    """Decoded pictures are finite and depend on every channel of the latents.

    A channel that decoding ignores is pure noise that the denoiser still has to learn to predict.
    """
    part = s.make()
    given = latents(part)
    with torch.no_grad():
        decoded = part.decode(given)
        expect(bool(decoded.isfinite().all()), "finite pictures", "NaN or infinity")
        for channel in range(part.channels):
            changed = given.clone()
            changed[:, channel] += 5 * normal(*given[:, channel].shape, like=part, seed=1)
            moved = differ([part.decode(changed)], [decoded])
            expect(moved, f"different pictures where channel {channel} differs", "the same pictures")


@check("codec", "round-trip")
def round_trip(s: CodecSubject) -> None:
    """Decoded latents are as close to their pictures as the example declares (`Example.error`).

    With random weights, nothing can be expected of most codecs. A lossless one (the identity, an invertible transform)
    declares `error=0`, which is checked up to rounding; one with a known loss declares how much.
    """
    if s.error is None:
        raise NotApplicable("its example names no error")
    part = s.make()
    for size in SIZES:
        images = pictures(part, *size)
        with torch.no_grad():
            found = float((part.decode(part.encode(images)) - images).abs().max())
        expect(found <= s.error + 1e-5, f"decoded latents within {s.error:g} of the pictures", f"off by {found:.3g}")


@check("codec", "preview")
def preview(s: CodecSubject) -> None:
    """`preview` gives finite pictures (B,3,h,w) of any size, or other data with as many axes as the codec's.

    It is shown during a run. The inherited method decodes; a cheaper one may be smaller and approximate.
    """
    part = s.make()
    with torch.no_grad():
        seen = part.preview(latents(part))
    fits = seen.ndim == 2 + len(part.axes) and seen.shape[:2] == (ROWS, part.data_channels)
    wanted = ",".join(["h", "w"] if len(part.axes) == 2 else [axis.name for axis in part.axes])
    expect(fits, f"a preview ({ROWS},{part.data_channels},{wanted})", f"{tuple(seen.shape)}")
    expect(bool(seen.isfinite().all()), "a finite preview", "NaN or infinity")


@check("codec", "decode-gradient")
def decode_gradient(s: CodecSubject) -> None:
    """Decoding is differentiable: every latent gets a finite gradient from the pictures.

    Guidance on pictures differentiates through the decoder. If decoding quantises (a codebook), use a straight-through
    gradient.
    """
    part = s.make().requires_grad_(False)
    _differentiable(part, part.decode)


def _differentiable(part: Any, decode: Callable[[Tensor], Tensor]) -> None:
    given = latents(part).requires_grad_()
    decoded = decode(given)
    expect(decoded.requires_grad, "decoded pictures that gradients can start from", "they require no gradient")
    (gradient,) = torch.autograd.grad((decoded * normal(*decoded.shape, like=part)).sum(), given)
    expect(bool(gradient.isfinite().all()), "a finite gradient", "NaN or infinity")
    flat = [channel for channel in range(part.channels) if not bool(gradient[:, channel].any())]
    expect(not flat, "a gradient in every channel of the latents", f"0 in channels {flat}")


@check("codec", "decode-noise")
def decode_noise(s: CodecSubject) -> None:
    """`decode_with` takes all its random numbers from the noise that it is given.

    A stochastic decoder (a consistency decoder) calls `noise(i)`, i = 0, 1, ..., for standard normal numbers of the
    shape that it returns. They are drawn from the seed of each row, so that a picture depends neither on its batch nor
    on the order. `decode` draws nothing. Deterministic decoders inherit `decode_with`, which calls `decode`.
    """
    part = s.make().requires_grad_(False)
    given = latents(part)
    asked: list[Any] = []

    def noise(index: int, seed: int = 0) -> Tensor:
        asked.append(index)
        return noise_of(part, given, seed)(index)

    with torch.no_grad():
        plain, one, other = (
            part.decode(given),
            part.decode_with(given, noise),
            part.decode_with(given, partial(noise, seed=1)),
        )
    wanted = tuple(plain.shape)
    expect(tuple(one.shape) == wanted, f"the result of decode_with to have shape {wanted}", f"{tuple(one.shape)}")
    expect(all(type(i) is int and i >= 0 for i in asked), "noise(i) called with ints i >= 0", f"{asked!r:.200}")
    if asked:
        expect(differ([one], [other]), "different pictures with different noise", "the same pictures")
        _differentiable(part, lambda given: part.decode_with(given, noise_of(part, given)))
    else:
        same([one, other], [plain, plain], "decode_with of a decoder that asks for no noise, and decode")
