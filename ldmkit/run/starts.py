"""Start data of a run: pictures or latents, one for the whole batch or one per picture, with masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, Self, TypeAlias

import numpy as np
import torch
from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema, model_validator
from torch import Tensor

from ldmkit.contracts.arguments import list_of, mapping_of
from ldmkit.contracts.axes import decoded_size
from ldmkit.contracts.value import Value
from ldmkit.errors import InputError, LdmkitError, shown
from ldmkit.files.picture_files import array_from_uri, array_uri
from ldmkit.files.pictures import Mask, Picture
from ldmkit.files.tensors import dense, own_floats
from ldmkit.run.output import Output
from ldmkit.run.sizes import Size

if TYPE_CHECKING:
    from ldmkit.contracts.codec import Codec


def read_latents(source: object) -> Tensor:
    """Latents (C,*axes) float32 on the CPU, from a floating-point tensor or array, or the data URI of an array.

    The number of axes depends on the codec: (C,h,w) for pictures, (C,) for vectors.

    Raises:
        InputError: `latent-type`, `latent-shape`, `latent-values`.
    """
    fits = "a floating-point tensor (channels, h, w)"
    if (stored := array_from_uri(source, None)) is not None:
        source = stored
    if isinstance(source, np.ndarray) and source.dtype.kind == "f":
        source = torch.from_numpy(np.array(source, np.float32))
    if not isinstance(source, Tensor) or not dense(source).is_floating_point():
        raise InputError("latent-type", f"got {shown(source)}", fits=fits)
    if source.ndim < 1 or 0 in source.shape:
        raise InputError("latent-shape", f"latents of shape {list(source.shape)}", fits=fits)
    latents = own_floats(source)
    if not bool(torch.isfinite(latents).all()):
        raise InputError("latent-values", "NaN or infinity among the latents", fits="finite numbers")
    return latents


StartLatents: TypeAlias = Annotated[
    Tensor,
    PlainValidator(read_latents),
    PlainSerializer(lambda latents: array_uri(latents.numpy()), return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "title": "Latents", "description": "data URI of an array (channels, h, w)"}),
]


class Start(Value):
    """A picture to start from, or its latents, in memory of its own.

    Args:
        image: anything that `ldmkit.files.pictures` reads; a tensor is (3,H,W) in [-1,1].
        strength: fraction of the steps that are run, in (0, 1]; at 1 the run starts at the highest noise level, where
            little of the picture remains.
        mask: 1 (white) is regenerated, 0 (black) is preserved exactly; None regenerates everything.
        latents: (C,*axes) as encoded by the codec, instead of a picture; required for videos and vectors.
        noised: noise level that the latents still hold, as `Output.noised` says of them: the run goes on from there,
            with no noise of its own, on a grid that begins at that level. Strength is 1 then, and nothing is masked.
    """

    refusal: ClassVar[type[LdmkitError]] = InputError

    image: Picture | None = None
    strength: float = Field(default=0.8, gt=0, le=1, strict=True)
    mask: Mask | None = None
    latents: StartLatents | None = None
    noised: float | None = Field(default=None, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, data: Any) -> Any:
        """Nothing of a run that goes on is left out."""
        held = isinstance(data, Mapping) and data.get("noised") is not None
        return {"strength": 1.0, **data} if held else data

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        if self.image is None and self.latents is None:
            fits = "image=..., or latents=..."
            raise InputError("missing-key", "neither a picture nor latents", where="start.image", fits=fits)
        if self.image is not None and self.latents is not None:
            raise InputError(
                "start-twice", "both a picture and latents", where="start.image", fits="image=..., or latents=..."
            )
        if self.noised is not None and (self.latents is None or self.mask is not None or self.strength != 1):
            what = "only latents as a whole go on from a noise level: no picture, no mask, and strength 1"
            raise InputError("start-noised", what, where="start.noised", fits='{"latents": ..., "noised": ...}')
        return self

    def size(self, factor: int) -> Size:
        """(height, width) in pixels, for a picture codec with that factor."""
        if self.latents is not None:
            return self.latents.shape[-2] * factor, self.latents.shape[-1] * factor
        assert self.image is not None
        return self.image.shape[-2], self.image.shape[-1]


def size_for(start: Start, codec: Codec) -> Size:
    """The size of a start's data for a codec: (height, width) in pixels, or one number per axis.

    Raises:
        InputError: `start-rank`: a picture for a codec of other data; `latent-shape`: wrong number of latent axes.
    """
    axes = codec.axes
    if start.latents is not None:
        if start.latents.ndim != 1 + len(axes):
            what, names = f"latents of shape {list(start.latents.shape)}", [axis.name for axis in axes]
            fits = f"({', '.join(['channels', *names])})"
            raise InputError("latent-shape", what, where="start.latents", fits=fits)
        return decoded_size(start.latents.shape[1:], axes)
    assert start.image is not None
    if len(axes) != 2:
        what = f"a picture, but the codec has {len(axes)} axes"
        raise InputError("start-rank", what, where="start.image", fits='start={"latents": ...}, or an Output')
    return start.image.shape[-2], start.image.shape[-1]


class Begun(NamedTuple):
    """A start, with the size in pixels if its latents are those of a padded picture."""

    start: Start
    size: Size | None = None


def starts_of(given: object, codec: Codec | None = None) -> tuple[Begun, ...]:
    """Starts from any accepted argument: a `Start`, a mapping, a picture, an `Output`, a tensor (B,3,H,W), or a list of
    these. In a mapping, `image`, `latents` and `mask` may also be lists or batches.

    Args:
        codec: the pipeline's codec; latents of an output that it decoded are used directly.

    Raises:
        InputError: `batch-mismatch`, `strength-rows`, and what `Start` raises.
    """
    if isinstance(given, (list, tuple)) and not isinstance(given, Begun):
        if not len(given):
            raise InputError("empty-batch", "the list of starts is empty", where="start")
        items = list_of(given, "start", "picture-type", "pictures")
        found = [one for i, item in enumerate(items) for one in _rows(item, f"start[{i}]", codec)]
    else:
        found = _rows(given, "start", codec)
    strengths = sorted({one.start.strength for one in found})
    if len({one.start.noised for one in found}) > 1:
        what = "some latents hold noise, others none or of another level"
        raise InputError("start-noised", what, where="start", fits="one noise level, or separate calls")
    if len(strengths) > 1:
        what = f"strengths {strengths[0]} and {strengths[-1]}, but all pictures of a batch share the noise levels"
        raise InputError("strength-rows", what, where="start.strength", fits="one strength, or separate calls")
    return tuple(found)


def _rows(given: Any, where: str, codec: Codec | None) -> list[Begun]:
    if isinstance(given, (Start, Begun)):
        return [given if isinstance(given, Begun) else Begun(given)]
    own = mapping_of(given, where, "a picture") if isinstance(given, Mapping) else {"image": given}
    if isinstance(strength := own.get("strength"), (list, tuple)):
        what = f"got {shown(strength)}, but all pictures of a batch share the noise levels"
        raise InputError("strength-rows", what, where=f"{where}.strength", fits="one strength, or separate calls")
    output = _output(own.get("image"))
    images: list[Any]
    if output is not None:
        images = _of_output(output, own.get("mask") is not None, codec)
        rest = {key: value for key, value in own.items() if key not in ("image", "mask")}
    else:
        name = "latents" if own.get("latents") is not None else "image"
        if name == "image":
            _no_latents(own.get("image"), where, codec)
        batched = 4 if codec is None or name == "image" else 2 + len(codec.axes)
        images = [({name: item}, None) for item in _several(own.get(name), batched)]
        rest = {key: value for key, value in own.items() if key not in (name, "mask")}
    masks = _several(own.get("mask"))
    count = max(len(images), len(masks))
    if min(len(images), len(masks)) not in (1, count):
        what = f"{len(masks)} masks for {len(images)} pictures"
        raise InputError("batch-mismatch", what, where=f"{where}.mask", fits="one mask, or one for each picture")
    images, masks = images * (count // len(images)), masks * (count // len(masks))
    names = [where] if count == 1 else [f"{where}[{i}]" for i in range(count)]
    return [
        Begun(Start.of({**rest, **image, "mask": mask} if "mask" in own else {**rest, **image}, name), size)
        for name, (image, size), mask in zip(names, images, masks, strict=True)
    ]


def _output(given: object) -> Output | None:
    return given if isinstance(given, Output) else None


def _of_output(output: Output, masked: bool, codec: Codec | None) -> list[Any]:
    """(fields of a start, size) for each picture of an output: its latents if this pipeline's codec decoded them and no
    mask is given, otherwise the picture as floats. Noise that the run left stays in the latents, and is said.

    Raises:
        InputError: `start-noised`: it left noise, and the picture is what would be used.
    """
    size = tuple(output.images.shape[2:])
    if output.noised:
        if masked or output.codec is None or output.codec is not codec:
            what = f"its run ended at noise level {output.noised:.6g}, and what it drew is no picture yet"
            fits = 'a run to 0, or start={"latents": out.latents, "noised": out.noised} for a codec of the same latents'
            raise InputError("start-noised", what, where="start", fits=fits)
        return [({"latents": latents, "noised": output.noised}, size) for latents in output.latents]
    if output.codec is not None and output.codec is codec and not (masked and len(size) == 2):
        return [({"latents": latents}, size) for latents in output.latents]
    return [({"image": image * 2 - 1}, None) for image in output.images]


def _several(given: Any, batched: int = 4) -> list[Any]:
    if isinstance(given, (list, tuple)):
        if not len(given):
            raise InputError("empty-batch", "the list is empty", where="start")
        return list_of(given, "start", "picture-type", "pictures")
    if isinstance(given, (Tensor, np.ndarray)) and given.ndim == batched and len(given):
        return list(dense(given).unbind()) if isinstance(given, Tensor) else list(given)
    return [given]


def _no_latents(given: object, where: str, codec: Codec | None) -> None:
    """Refuse a tensor given as a picture that has the channels of latents, with a suggestion."""
    channels = None if codec is None else codec.channels
    if isinstance(given, Tensor) and given.ndim in (3, 4) and given.shape[-3] == channels != 3:
        what = f"a tensor of shape {list(given.shape)} is not a picture"
        raise InputError("start-latents", what, where=where, fits='start={"latents": tensor}')
