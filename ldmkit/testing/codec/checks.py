"""The contract of codecs: pictures are encoded as latents and decoded again, with the declared sizes and statistics.

A codec of other data (videos, vectors) is checked with data of its `axes` and `data_channels`.

The kit's codecs have random weights, so picture quality is not checked. The checks from `meta` on are shared by all
modules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ldmkit.contracts.axes import Axis, latent_sides, shown_size
from ldmkit.contracts.codec import Codec, Reconstruction
from ldmkit.contracts.example import Example
from ldmkit.errors import CompositionError, LdmkitError
from ldmkit.testing.batches import close, differ, normal, same
from ldmkit.testing.cases import check_class
from ldmkit.testing.checks import NotApplicable, Report, check, expect, fail, told
from ldmkit.testing.codec import decoding as decoding
from ldmkit.testing.codec.subject import SIZES, CodecSubject, ill_sized, latents, noise_of, pictures
from ldmkit.testing.modules import ROWS, ran, share
from ldmkit.testing.placing import placed

TILED = (16, 24)
"""Size of pictures that a tiling codec divides into tiles."""

SEAMS = 0.1
"""Tolerance of tiled results against untiled ones: root mean square, relative to the spread of the values."""


def subject(cls: type[Any], example: Example) -> CodecSubject:
    """The subject of the checks: a class and one of its examples."""
    return CodecSubject(cls, example.config, example.trained, example.error)


def check_codec(cls: type[Codec], config: Mapping[str, Any] | None = None, *, trained: bool = True) -> Report:
    """Run all checks of a codec.

    Args:
        config: its config; None: that of its first example, with its `trained`.
        trained: False if it has no `reconstruct`, because there is nothing to learn.
    """
    return check_class("codec", cls, None if config is None else Example(config, trained=trained))


@check("codec", "declared")
def declared(s: CodecSubject) -> None:
    """`channels`, `factor` and `multiple` are positive ints, and `multiple` is a multiple of `factor`.

    `channels` is the number of latent channels, `factor` the height and width of a latent cell in pixels. Pictures are
    padded to the next `multiple` before they are encoded; it is `factor` unless the network needs more. A codec of
    other data sets `axes`, a tuple of `ldmkit.Axis`, instead of `factor`, and `data_channels`.
    """
    part = s.make()
    own = "axes" not in vars(type(part)) and "axes" not in vars(part)
    for name in ("channels", "data_channels", *(("factor", "multiple") if own else ())):
        value = getattr(part, name, None)
        expect(type(value) is int and value > 0, f"{name} to be a positive int", f"{value!r}")
    if own:
        expect(part.multiple % part.factor == 0, f"multiple to be a multiple of {part.factor}", f"{part.multiple}")
    axes = part.axes
    fine = isinstance(axes, tuple) and all(isinstance(axis, Axis) for axis in axes)
    expect(fine, "`axes` to be a tuple of ldmkit.Axis", f"{axes!r:.200}")
    for axis in axes:
        whole = type(axis.factor) is int and axis.factor > 0 and type(axis.multiple) is int and axis.multiple >= 0
        expect(whole, f"factor > 0 and multiple >= 0 of axis {axis.name!r}, both int", f"{axis!r}")
        expect(axis.multiple % axis.factor == 0, f"multiple to be a multiple of {axis.factor}", f"{axis.multiple}")
    colours = not part.visual or part.data_channels == 3
    expect(colours, "3 data_channels, as pictures and videos have", f"{part.data_channels}")


@check("codec", "shape")
def shape(s: CodecSubject) -> None:
    """Pictures (B,3,H,W) become latents (B,channels,H/factor,W/factor), which become pictures of the same size.

    For other data each axis has its own factor, and a causal axis has 1 + n latents for 1 + n * factor positions.
    Checked for square and other sizes, including the smallest: every multiple of `multiple` must work, for height
    and width independently. Swapped height and width show only if they differ.
    """
    part = s.make()
    for size in SIZES:
        images = pictures(part, *size)
        with torch.no_grad():
            latents = part.encode(images)
            wanted = (ROWS, part.channels, *latent_sides(images.shape[2:], part.axes))
            got = tuple(latents.shape)
            expect(got == wanted, f"latents {wanted} of pictures {tuple(images.shape)}", f"{got}")
            decoded = tuple(part.decode(latents).shape)
        expect(decoded == tuple(images.shape), f"pictures {tuple(images.shape)} of latents {wanted}", f"{decoded}")


@check("codec", "other-sizes")
def other_sizes(s: CodecSubject) -> None:
    """Pictures whose sides are not multiples of `multiple` are refused with an `InputError`.

    Silently cropping or padding gives latents that do not belong to the picture. Say in the error which sizes would
    fit; pipelines pad before `encode`, and crop after `decode`.
    """
    part = s.make()
    wrong = ill_sized(part)
    if not wrong:
        raise NotApplicable("every size fits")
    units = ", ".join(str(axis.multiple or axis.factor) for axis in part.axes)
    for size in wrong:
        images = torch.zeros(1, part.data_channels, *size, dtype=part.dtype, device=part.device)
        _refused(partial(part.encode, images), f"pictures {shown_size(size)}, not multiples of {units}", LdmkitError)


@check("codec", "wrong-tensors")
def wrong_tensors(s: CodecSubject) -> None:
    """Tensors that are not pictures or latents raise an error: wrong channels, no batch axis, integers.

    Any class of error will do, since only a programming mistake leads here, but they must not be accepted by
    broadcasting or rounding. In particular, `uint8` pictures in 0 to 255 are not in [-1, 1].
    """
    part = s.make()
    images, given = pictures(part, 4, 4)[:1], latents(part)[:1]
    more = part.data_channels + 2
    wrong = {
        f"pictures of {more} channels": lambda: part.encode(images[:, :1].expand(-1, more, *images.shape[2:])),
        "pictures without a batch axis": lambda: part.encode(images[0]),
        "uint8 pictures": lambda: part.encode(images.to(torch.uint8)),
        f"latents of {part.channels + 1} channels": lambda: part.decode(torch.cat([given, given[:, :1]], 1)),
        "latents without a batch axis": lambda: part.decode(given[0]),
    }
    for what, call in wrong.items():
        _refused(call, what, Exception)


def _refused(call: Callable[[], Any], what: str, kind: type[Exception]) -> None:
    wanted = "an LdmkitError" if kind is LdmkitError else "an error"
    try:
        with torch.no_grad():
            call()
    except kind:
        return
    except Exception as error:
        fail(f"{wanted} for {what}", told(error))
    fail(f"{wanted} for {what}", "they were accepted")


@check("codec", "statistics")
def statistics(s: CodecSubject) -> None:
    """Latents are finite, and every channel differs between pictures.

    A channel that is the same for all pictures carries no information; the cause is often a scale of 0, or a wrong
    slice of mean and log-variance. (Unit variance is not checked: with random weights it cannot be expected, and
    trained codecs get it by `scale` and `shift`.)
    """
    part = s.make()
    made = ran(s, part, s.given(part))[0]
    expect(bool(made.isfinite().all()), "finite latents", "NaN or infinity")
    spread = made.float().var(0).reshape(part.channels, -1).sum(1)
    flat = [channel for channel, value in enumerate(spread.tolist()) if not value > 0]
    expect(not flat, "latent channels that differ between pictures", f"channels {flat} are the same for all")


@check("codec", "posterior")
def posterior(s: CodecSubject) -> None:
    """The result of `encode` depends only on the pictures and `noise`: the same noise gives the same latents.

    `encode(images)` returns the posterior's mode. `encode(images, noise)` draws from the posterior with the given
    standard normal numbers, so that training and resuming are reproducible. A codec without a posterior ignores
    `noise`: then both are equal.
    """
    part = s.make()
    images = pictures(part)
    with torch.no_grad():
        mode = part.encode(images)
        noises = [normal(*mode.shape, like=part, seed=seed) for seed in (1, 2)]
        one, other = (part.encode(images, noise) for noise in noises)
        same([part.encode(images, noises[0])], [one], "latents drawn twice with the same noise")
        same([part.encode(images)], [mode], "latents without noise, twice")
    if torch.equal(one, mode) and torch.equal(other, mode):
        return
    expect(not torch.equal(one, other), "other latents with other noise", "the same, which differ from the mode")
    expect(differ([one], [mode]), "latents drawn with noise to differ from the mode", "they do not")


@check("codec", "raw")
def raw(s: CodecSubject) -> None:
    """`raw(latents)` undoes scale and shift: latents * a + b, with one finite a (not 0) and b per channel.

    Codecs are trained, and their codebooks read, in the encoder's own units; everything else sees standardised
    latents. For a codec that neither scales nor shifts, the inherited `raw` returns its argument.
    """
    part = s.make()
    given = 3 * latents(part)
    with torch.no_grad():
        shift = part.raw(torch.zeros_like(given))
        scale = part.raw(torch.ones_like(given)) - shift
        for name, map_ in (("a", scale), ("b", shift)):
            expect(map_.shape == given.shape, f"raw latents {tuple(given.shape)}", f"{tuple(map_.shape)}")
            channel = _first(map_).expand_as(map_)
            close([map_], [channel], f"{name}, which is one number per channel")
        expect(bool((scale.isfinite() & (scale != 0)).all()), "a finite scale that is not 0", f"{_first(scale)}")
        close([part.raw(given)], [given * scale + shift], "raw(latents) as latents * a + b")


def _first(map_: Tensor) -> Tensor:
    """The values (1, C, 1, ...) of the first row at the first position."""
    return map_[(slice(1), slice(None), *[slice(1)] * (map_.ndim - 2))]


@check("codec", "reconstruct")
def reconstruct(s: CodecSubject) -> None:
    """`reconstruct` returns pictures of the same size, losses that are finite scalars, and metrics without gradients.

    Training weights and adds the losses by name: return those of the regulariser (a KL divergence, a codebook loss),
    but not a pixel difference, which training computes itself.
    """
    _learns(s)
    part = s.make().train()
    given = s.given(part)
    made = part.reconstruct(given["images"], given["noise"])
    expect(isinstance(made, Reconstruction), "a Reconstruction", type(made).__name__)
    wanted = tuple(given["images"].shape)
    expect(tuple(made.images.shape) == wanted, f"pictures {wanted}", f"{tuple(made.images.shape)}")
    for name, value in (*made.losses.items(), *made.metrics.items()):
        scalar = isinstance(value, Tensor) and value.ndim == 0 and bool(value.isfinite())
        expect(scalar, f"{name!r} to be a finite scalar tensor", f"{value!r:.80}")
    grown = [name for name, value in made.metrics.items() if value.requires_grad]
    expect(not grown, "metrics without gradients", f"{grown} require them")


@check("codec", "reconstruct-agrees")
def reconstruct_agrees(s: CodecSubject) -> None:
    """In eval mode, `reconstruct(images, noise)` gives the pictures of `decode(encode(images, noise))`.

    Scale and shift cancel there, so the codec is used as it was trained. If they differ, one of `encode`, `decode`
    and `reconstruct` omits the scale, the shift, the noise or the codebook.
    """
    _learns(s)
    part = s.make()
    if isinstance(getattr(part, "inner", None), Codec):
        raise NotApplicable("it runs in tiles, but trains on whole pictures")
    given = s.given(part)
    with torch.no_grad():
        made = part.reconstruct(given["images"], given["noise"]).images
        used = part.decode(part.encode(given["images"], given["noise"]))
        close([made], [used], "reconstruct(images, noise).images and decode(encode(images, noise))")
        made = part.reconstruct(given["images"]).images
        close([made], [part.decode(part.encode(given["images"]))], "the same without noise")


@check("codec", "last-layer")
def last_layer(s: CodecSubject) -> None:
    """`last_layer` is a parameter of the codec that the pictures depend on: the weight of the last decoder layer.

    The weight of the adversarial loss is computed from gradients there (Esser et al. 2021, equation 7).
    """
    _learns(s)
    part = s.make().train()
    weight = part.last_layer
    expect(isinstance(weight, nn.Parameter), "a parameter", type(weight).__name__)
    expect(any(weight is p for p in part.parameters()), "one of the codec's parameters", "a different tensor")
    images = part.reconstruct(s.given(part)["images"]).images
    (gradient,) = torch.autograd.grad(images.square().sum(), weight, allow_unused=True)
    reached = gradient is not None and bool(gradient.any())
    expect(reached, "a gradient of the pictures at the last layer", "none, or 0")


def _learns(s: CodecSubject) -> None:
    if not s.trained:
        raise NotApplicable("its example says that it has nothing to learn")


@check("codec", "not-trainable")
def not_trainable(s: CodecSubject) -> None:
    """A codec that has nothing to learn says so: `last_layer` raises a `CompositionError`.

    The inherited property does. Training reads it before it starts, and reports the error to the user.
    """
    if s.trained:
        raise NotApplicable("its example says that it is trained")
    part = s.make()
    try:
        found = part.last_layer
    except CompositionError:
        return
    fail("a CompositionError for last_layer", f"{type(found).__name__}")


@check("codec", "tiles")
def tiles(s: CodecSubject) -> None:
    """A codec that runs another one (its attribute `inner`) in tiles gives what that codec gives without tiles.

    The root mean square difference may be a tenth of the values' spread: seams and truncated receptive fields are not
    exact. Choose an example with small tiles, so that pictures are divided, and with an overlap that covers the
    receptive field. `channels`, `axes`, `data_channels` and `raw` are those of the inner codec.
    """
    part = s.make()
    inner = getattr(part, "inner", None)
    if not isinstance(inner, Codec):
        raise NotApplicable("it has no inner codec")
    for name in ("channels", "axes", "data_channels"):
        mine, wanted = getattr(part, name), getattr(inner, name)
        expect(mine == wanted, f"{name} of the inner codec, {wanted}", f"{mine}")
    images = pictures(part, *TILED)
    with torch.no_grad():
        encoded = inner.encode(images)
        same([part.raw(encoded)], [inner.raw(encoded)], "raw(latents), as the inner codec has them")
        _seamless(part.encode(images), encoded, "latents")
        _seamless(part.decode(encoded), inner.decode(encoded), "pictures")
        drawn, whole = (codec.decode_with(encoded, noise_of(inner, encoded)) for codec in (part, inner))
        _seamless(drawn, whole, "pictures decoded with noise")


def _seamless(found: Tensor, wanted: Tensor, what: str) -> None:
    expect(found.shape == wanted.shape, f"{what} {tuple(wanted.shape)}", f"{tuple(found.shape)}")
    off = float((found - wanted).square().mean().sqrt() / wanted.std())
    expect(off <= SEAMS, f"{what} from tiles within {SEAMS:g} of the whole's spread", f"{off:.3g} of it")


share("codec")
check("codec", "placed")(placed)
