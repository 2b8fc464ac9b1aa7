"""What a codec promises: pictures become latents and latents pictures, of the sizes and statistics that it declares.

A codec of other data (videos, vectors) is checked with what its `axes` and `data_channels` say.

The kit's codecs have random weights: nothing here says how good the pictures are. Checks named `meta` and after are
those that all modules share.
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
"""Of pictures that a codec which works in tiles cuts."""

SEAMS = 0.1
"""Of the spread of the values: how far tiles may be from the whole, root mean square."""


def subject(cls: type[Any], example: Example) -> CodecSubject:
    """What the checks take: a class and one of its examples."""
    return CodecSubject(cls, example.config, example.trained, example.error)


def check_codec(cls: type[Codec], config: Mapping[str, Any] | None = None, *, trained: bool = True) -> Report:
    """All checks of a codec.

    Args:
        config: what it is built from; None: its first example, `trained` included.
        trained: False where it has no `reconstruct`, because there is nothing to learn.
    """
    return check_class("codec", cls, None if config is None else Example(config, trained=trained))


@check("codec", "declared")
def declared(s: CodecSubject) -> None:
    """`channels`, `factor` and `multiple` are positive whole numbers, and `multiple` is a multiple of `factor`.

    `channels` are those of the latents, `factor` is how many pixels a latent cell is high and wide, and pictures are
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

    Of other data each axis has its own factor, and one that is causal has 1 + n latents for 1 + n * factor positions.
    Checked for square and other sizes, the smallest among them: every multiple of `multiple` must work, in height
    and width independently. Mixed up height and width show only where they differ.
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
    """Pictures whose sides are no multiples of `multiple` are refused with an `InputError`.

    Rounding sides down or padding silently gives latents that do not belong to the picture. Say in the error which
    sizes would fit; pipelines pad before they call `encode`, and crop after `decode`.
    """
    part = s.make()
    wrong = ill_sized(part)
    if not wrong:
        raise NotApplicable("every size fits")
    units = ", ".join(str(axis.multiple or axis.factor) for axis in part.axes)
    for size in wrong:
        images = torch.zeros(1, part.data_channels, *size, dtype=part.dtype, device=part.device)
        _refused(partial(part.encode, images), f"pictures {shown_size(size)}, multiples of {units}", LdmkitError)


@check("codec", "wrong-tensors")
def wrong_tensors(s: CodecSubject) -> None:
    """Tensors that are no pictures or no latents raise an error: other channels, no batch axis, whole numbers.

    An error of any class will do, since only a programming mistake leads here; but broadcasting or rounding must not
    make something of them. `uint8` pictures in 0 to 255 in particular are not in [-1, 1].
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
    fail(f"{wanted} for {what}", "they were taken")


@check("codec", "statistics")
def statistics(s: CodecSubject) -> None:
    """Latents are finite, and every channel tells pictures apart.

    A channel that is the same for all pictures carries nothing: often a scale of 0, or a wrong slice of mean and
    log-variance. (That latents have about unit variance is for `scale` and `shift` to see to once a codec is trained;
    of random weights nothing can be said.)
    """
    part = s.make()
    made = ran(s, part, s.given(part))[0]
    expect(bool(made.isfinite().all()), "finite latents", "NaN or infinity")
    spread = made.float().var(0).reshape(part.channels, -1).sum(1)
    flat = [channel for channel, value in enumerate(spread.tolist()) if not value > 0]
    expect(not flat, "latent channels that differ between pictures", f"channels {flat} are the same for all")


@check("codec", "posterior")
def posterior(s: CodecSubject) -> None:
    """`noise` decides which latents are drawn, and nothing else does: one noise, one result.

    `encode(images)` takes the posterior's mode. `encode(images, noise)` draws from it with the unit normal numbers
    that it is given, so that training and resuming are reproducible. A codec without a posterior ignores `noise`:
    then both are equal.
    """
    part = s.make()
    images = pictures(part)
    with torch.no_grad():
        mode = part.encode(images)
        noises = [normal(*mode.shape, like=part, seed=seed) for seed in (1, 2)]
        one, other = (part.encode(images, noise) for noise in noises)
        same([part.encode(images, noises[0])], [one], "latents drawn twice with one noise")
        same([part.encode(images)], [mode], "latents without noise, twice")
    if torch.equal(one, mode) and torch.equal(other, mode):
        return
    expect(not torch.equal(one, other), "other latents with another noise", "the same, which differ from the mode")
    expect(differ([one], [mode]), "latents drawn with noise to differ from the mode", "they do not")


@check("codec", "raw")
def raw(s: CodecSubject) -> None:
    """`raw(latents)` undoes scale and shift: latents * a + b, one finite a (not 0) and b for each channel.

    Codecs are trained, and their codebooks read, in the encoder's own units; everybody else sees standardised latents.
    Where a codec neither scales nor shifts, the inherited `raw` returns what it gets.
    """
    part = s.make()
    given = 3 * latents(part)
    with torch.no_grad():
        shift = part.raw(torch.zeros_like(given))
        scale = part.raw(torch.ones_like(given)) - shift
        for name, map_ in (("a", scale), ("b", shift)):
            expect(map_.shape == given.shape, f"raw latents {tuple(given.shape)}", f"{tuple(map_.shape)}")
            channel = _first(map_).expand_as(map_)
            close([map_], [channel], f"{name}, which is one number a channel")
        expect(bool((scale.isfinite() & (scale != 0)).all()), "a finite scale that is not 0", f"{_first(scale)}")
        close([part.raw(given)], [given * scale + shift], "raw(latents) as latents * a + b")


def _first(map_: Tensor) -> Tensor:
    """The numbers (1, C, 1, ...) of the first row at the first position."""
    return map_[(slice(1), slice(None), *[slice(1)] * (map_.ndim - 2))]


@check("codec", "reconstruct")
def reconstruct(s: CodecSubject) -> None:
    """`reconstruct` returns pictures of the same size, losses that are finite scalars, and metrics without gradients.

    Training weighs and adds the losses by name, so each is the regulariser's own (a KL divergence, a codebook loss),
    without the pixels' difference, which training takes itself.
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
    """Outside of training, `reconstruct(images, noise)` shows `decode(encode(images, noise))`.

    Scale and shift cancel there, so the codec that is trained is the one that is used. Where they differ, one of
    `encode`, `decode` and `reconstruct` forgets the scale, the shift, the noise, or the codebook.
    """
    _learns(s)
    part = s.make()
    if isinstance(getattr(part, "inner", None), Codec):
        raise NotApplicable("it runs in tiles, and trains as a whole")
    given = s.given(part)
    with torch.no_grad():
        made = part.reconstruct(given["images"], given["noise"]).images
        used = part.decode(part.encode(given["images"], given["noise"]))
        close([made], [used], "reconstruct(images, noise).images and decode(encode(images, noise))")
        made = part.reconstruct(given["images"]).images
        close([made], [part.decode(part.encode(given["images"]))], "the same without noise")


@check("codec", "last-layer")
def last_layer(s: CodecSubject) -> None:
    """`last_layer` is a parameter of the codec that the pictures depend on: the weight that makes them.

    The adversarial loss is weighed by comparing gradients there (Esser et al. 2021, equation 7).
    """
    _learns(s)
    part = s.make().train()
    weight = part.last_layer
    expect(isinstance(weight, nn.Parameter), "a parameter", type(weight).__name__)
    expect(any(weight is p for p in part.parameters()), "one of the codec's parameters", "another tensor")
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

    What is inherited does. Training asks before it starts, and tells the user.
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
    """A codec that runs another one in tiles (its attribute `inner`) gives what that one gives for the whole.

    Within a tenth of the values' spread, root mean square: seams, and what a layer sees of its surroundings, are not
    exact. Choose an example whose pictures are cut (small tiles) and whose overlap covers what the layers see. What
    else there is (`channels`, `axes`, `data_channels`, `raw`) is the inner codec's.
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
