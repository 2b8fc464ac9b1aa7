"""What a codec promises: pictures become latents and latents pictures, of the sizes and statistics that it declares.

The kit's codecs have random weights: nothing here says how good the pictures are. Checks named `meta` and after are
those that all modules share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ldmkit.contracts.codec import Codec, Reconstruction
from ldmkit.contracts.example import Example
from ldmkit.errors import CompositionError, LdmkitError
from ldmkit.testing.batches import close, differ, normal, same
from ldmkit.testing.checks import NotApplicable, Report, check, expect, fail, report, told
from ldmkit.testing.modules import ROWS, ModuleSubject, first_example, ran, share

SIZES = ((1, 1), (4, 4), (4, 6), (5, 3))
"""Heights and widths of the kit's pictures, in units of the codec's `multiple`."""

TILED = (16, 24)
"""Of pictures that a codec which works in tiles cuts."""

SEAMS = 0.1
"""Of the spread of the values: how far tiles may be from the whole, root mean square."""


@dataclass(frozen=True)
class CodecSubject(ModuleSubject):
    """A codec and one configuration of it.

    Args:
        error: see `Example.error`.
    """

    error: float | None = None

    def given(self, part: Any) -> dict[str, Tensor]:
        images = pictures(part, 4, 6)
        h, w = (side // part.factor for side in images.shape[2:])
        return {"images": images, "noise": normal(ROWS, part.channels, h, w, like=part, seed=1)}

    def outputs(self, part: Any, given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        latents = part.encode(given["images"])
        return latents, part.encode(given["images"], given["noise"]), part.decode(latents), part.preview(latents)

    def learning(self, part: Any, given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        made = part.reconstruct(given["images"], given["noise"])
        return made.images, *made.losses.values()


def subject(cls: type[Any], example: Example) -> CodecSubject:
    """What the checks take: a class and one of its examples."""
    return CodecSubject(cls, example.config, example.trained, example.error)


def check_codec(cls: type[Codec], config: Mapping[str, Any] | None = None, *, trained: bool = True) -> Report:
    """All checks of a codec.

    Args:
        config: what it is built from; None: its first example, `trained` included.
        trained: False where it has no `reconstruct`, because there is nothing to learn.
    """
    example = first_example(cls) if config is None else Example(config, trained=trained)
    return report("codec", cls.__name__, subject(cls, example))


def pictures(codec: Any, rows: int, columns: int, seed: int = 0) -> Tensor:
    """`ROWS` pictures in [-1, 1], different ones, of a size in units of the codec's `multiple`."""
    height, width = rows * codec.multiple, columns * codec.multiple
    shades = normal(ROWS, 3, 1, 1, like=codec, seed=seed + 100)
    return torch.tanh(0.5 * normal(ROWS, 3, height, width, like=codec, seed=seed) + shades)


@check("codec", "declared")
def declared(s: CodecSubject) -> None:
    """`channels`, `factor` and `multiple` are positive whole numbers, and `multiple` is a multiple of `factor`.

    `channels` are those of the latents, `factor` is how many pixels a latent cell is high and wide, and pictures are
    padded to the next `multiple` before they are encoded; it is `factor` unless the network needs more.
    """
    part = s.make()
    for name in ("channels", "factor", "multiple"):
        value = getattr(part, name, None)
        expect(type(value) is int and value > 0, f"{name} to be a positive int", f"{value!r}")
    expect(part.multiple % part.factor == 0, f"multiple to be a multiple of {part.factor}", f"{part.multiple}")


@check("codec", "shape")
def shape(s: CodecSubject) -> None:
    """Pictures (B,3,H,W) become latents (B,channels,H/factor,W/factor), which become pictures of the same size.

    Checked for square and other sizes, the smallest among them: every multiple of `multiple` must work, in height
    and width independently. Mixed up height and width show only where they differ.
    """
    part = s.make()
    for size in SIZES:
        images = pictures(part, *size)
        with torch.no_grad():
            latents = part.encode(images)
            wanted = (ROWS, part.channels, images.shape[2] // part.factor, images.shape[3] // part.factor)
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
    m = part.multiple
    if m == 1:
        raise NotApplicable("every size is a multiple of 1")
    for height, width in ((4 * m + 1, 6 * m), (4 * m, 6 * m - 1), (m // 2, m)):
        images = torch.zeros(1, 3, height, width, dtype=part.dtype, device=part.device)
        _refused(partial(part.encode, images), f"pictures {height}x{width}, multiple {m}", LdmkitError)


@check("codec", "wrong-tensors")
def wrong_tensors(s: CodecSubject) -> None:
    """Tensors that are no pictures or no latents raise an error: other channels, no batch axis, whole numbers.

    An error of any class will do, since only a programming mistake leads here; but broadcasting or rounding must not
    make something of them. `uint8` pictures in 0 to 255 in particular are not in [-1, 1].
    """
    part = s.make()
    side, c = 4 * part.multiple, part.channels
    wrong = {
        "pictures of 5 channels": lambda: part.encode(normal(1, 5, side, side, like=part)),
        "pictures without a batch axis": lambda: part.encode(normal(3, side, side, like=part)),
        "uint8 pictures": lambda: part.encode(torch.zeros(1, 3, side, side, dtype=torch.uint8, device=part.device)),
        f"latents of {c + 1} channels": lambda: part.decode(normal(1, c + 1, 4, 4, like=part)),
        "latents without a batch axis": lambda: part.decode(normal(c, 4, 4, like=part)),
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
    latents = ran(s, part, s.given(part))[0]
    expect(bool(latents.isfinite().all()), "finite latents", "NaN or infinity")
    spread = latents.float().var(0).sum((1, 2))
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
    images = pictures(part, 4, 6)
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
    latents = 3 * normal(ROWS, part.channels, 4, 6, like=part)
    with torch.no_grad():
        shift = part.raw(torch.zeros_like(latents))
        scale = part.raw(torch.ones_like(latents)) - shift
        for name, map_ in (("a", scale), ("b", shift)):
            expect(map_.shape == latents.shape, f"raw latents {tuple(latents.shape)}", f"{tuple(map_.shape)}")
            channel = map_[:1, :, :1, :1].expand_as(map_)
            close([map_], [channel], f"{name}, which is one number a channel")
        expect(bool((scale.isfinite() & (scale != 0)).all()), "a finite scale that is not 0", f"{scale[0, :, 0, 0]}")
        close([part.raw(latents)], [latents * scale + shift], "raw(latents) as latents * a + b")


@check("codec", "decode-reads-all")
def decode_reads_all(s: CodecSubject) -> None:
    """Decoded pictures are finite and depend on every channel of the latents.

    A channel that decoding does not look at is noise to the denoiser, which has to predict it all the same.
    """
    part = s.make()
    latents = normal(ROWS, part.channels, 4, 6, like=part)
    with torch.no_grad():
        decoded = part.decode(latents)
        expect(bool(decoded.isfinite().all()), "finite pictures", "NaN or infinity")
        for channel in range(part.channels):
            changed = latents.clone()
            changed[:, channel] += 5 * normal(ROWS, 4, 6, like=part, seed=1)
            moved = differ([part.decode(changed)], [decoded])
            expect(moved, f"other pictures where channel {channel} differs", "the same pictures")


@check("codec", "round-trip")
def round_trip(s: CodecSubject) -> None:
    """Decoded latents are as close to their pictures as the example says (`Example.error`).

    Without trained weights nothing can be said of most codecs. One that loses nothing (pictures as their own latents,
    an invertible transform) says `error=0`, which is checked up to rounding; one that loses a known amount says how
    much.
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
    """`preview` gives finite pictures (B,3,h,w), of any size.

    It is shown while a run is going on. The inherited one decodes; a cheaper one may be small, and need not be exact.
    """
    part = s.make()
    with torch.no_grad():
        seen = part.preview(normal(ROWS, part.channels, 4, 6, like=part))
    expect(seen.ndim == 4 and seen.shape[:2] == (ROWS, 3), f"a preview ({ROWS},3,h,w)", f"{tuple(seen.shape)}")
    expect(bool(seen.isfinite().all()), "a finite preview", "NaN or infinity")


@check("codec", "decode-gradient")
def decode_gradient(s: CodecSubject) -> None:
    """Decoding is differentiable: every latent gets a finite gradient from the pictures.

    Guidance by pictures goes through the decoder. Where decoding rounds (a codebook), gradients pass straight through
    the rounding.
    """
    part = s.make().requires_grad_(False)
    latents = normal(ROWS, part.channels, 4, 6, like=part).requires_grad_()
    decoded = part.decode(latents)
    expect(decoded.requires_grad, "decoded pictures that gradients can start from", "they require no gradient")
    (gradient,) = torch.autograd.grad((decoded * normal(*decoded.shape, like=part)).sum(), latents)
    expect(bool(gradient.isfinite().all()), "a finite gradient", "NaN or infinity")
    flat = [channel for channel in range(part.channels) if not bool(gradient[:, channel].any())]
    expect(not flat, "a gradient in every channel of the latents", f"0 in channels {flat}")


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
    else there is (`channels`, `factor`, `multiple`, `raw`) is the inner codec's.
    """
    part = s.make()
    inner = getattr(part, "inner", None)
    if not isinstance(inner, Codec):
        raise NotApplicable("it has no inner codec")
    for name in ("channels", "factor", "multiple"):
        mine, wanted = getattr(part, name), getattr(inner, name)
        expect(mine == wanted, f"{name} of the inner codec, {wanted}", f"{mine}")
    images = pictures(part, *TILED)
    with torch.no_grad():
        latents = inner.encode(images)
        same([part.raw(latents)], [inner.raw(latents)], "raw(latents), as the inner codec has them")
        _seamless(part.encode(images), latents, "latents")
        _seamless(part.decode(latents), inner.decode(latents), "pictures")


def _seamless(found: Tensor, wanted: Tensor, what: str) -> None:
    expect(found.shape == wanted.shape, f"{what} {tuple(wanted.shape)}", f"{tuple(found.shape)}")
    off = float((found - wanted).square().mean().sqrt() / wanted.std())
    expect(off <= SEAMS, f"{what} from tiles within {SEAMS:g} of the whole's spread", f"{off:.3g} of it")


share("codec")
