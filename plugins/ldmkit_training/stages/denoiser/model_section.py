"""The model section of a denoiser's recipe: its parts, where they come from, and which of them are trained."""

from __future__ import annotations

from typing import Any, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from ldmkit import ConditionerSpec, Defaults, PartSpec, SpecError, Value
from ldmkit.models.spec import check_names


class FrozenCodecSection(Value):
    """The first stage, which is read and never trained here: one that exists (`from`), or a new one (`type`).

    Args:
        from_: `from` in a recipe: a run's folder, a saved codec or pipeline, anything that `ldmkit.load_codec` takes.
        type, config: a codec that needs no weights (`identity`).
        scale: of the latents, a number or one a channel, where the codec's own file does not say it.
        variant: of the weights, where `from` is a folder of diffusers.
    """

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    from_: str | None = Field(default=None, alias="from")
    type: str | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    scale: float | tuple[float, ...] | None = None
    variant: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.from_ is None) == (self.type is None):
            fits = "exactly one of `from` (a trained codec) and `type`"
            raise SpecError("codec-source", "it is not clear which codec", where="model.codec", fits=fits)
        if self.scale is not None and self.from_ is None:
            raise SpecError("codec-source", "`scale` goes with `from`", where="model.codec.scale", fits="config.scale")
        if self.variant is not None and self.from_ is None:
            raise SpecError(
                "codec-source", "`variant` goes with `from`", where="model.codec.variant", fits="no variant"
            )
        return self


class DenoiserSection(PartSpec):
    """A denoiser; with `train: false` its weights stay as they are (for training an adapter or conditioners alone)."""

    train: bool = True


class ConditionerSection(ConditionerSpec):
    """A conditioner and its wiring.

    Args:
        train: together with the denoiser; False: frozen.
        from_: `from` in a recipe: a pipeline that has a conditioner of this name, or only one of this type, for its
            weights and files; its config is taken too where none is given.
        assets: folder with its other files (a vocabulary), or `package:folder` of an installed package; they are
            saved with the model.
        variant: of the weights, where `from` is a folder of diffusers.
    """

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    train: bool = True
    from_: str | None = Field(default=None, alias="from")
    assets: str | None = None
    variant: str | None = None

    @model_validator(mode="after")
    def _of_something(self) -> Self:
        if self.variant is not None and self.from_ is None:
            raise SpecError("start-variant", "`variant` goes with `from`", where="variant", fits="no variant")
        return self


class AdapterSection(PartSpec):
    """An adapter. One that copies the denoiser (a ControlNet) takes its config and first weights from it."""

    train: bool = True


class ModelSection(Value):
    """A pipeline to train.

    Args:
        start: a saved pipeline (or a run's folder) to start from. Parts that the recipe names start with its weights
            where it has them, and must fit them; parts that the recipe leaves out are the start's own, conditioners
            and adapters frozen.
        conditioners, adapters: by name; null: the start's of that name is left out.
        variant: of the start's weights, where it is a folder of diffusers.
        defaults: of sampling, saved with the model; None: the start's, or ldmkit's own. Where the recipe gives no
            size, it is that of the training pictures; the start's, where the denoiser stays what it is.
    """

    codec: FrozenCodecSection | None = None
    denoiser: DenoiserSection | None = None
    process: PartSpec | None = None
    conditioners: dict[str, ConditionerSection | None] = Field(default_factory=dict)
    adapters: dict[str, AdapterSection | None] = Field(default_factory=dict)
    defaults: Defaults | None = None
    start: str | None = None
    variant: str | None = None

    @field_validator("conditioners", "adapters")
    @classmethod
    def _names(cls, parts: dict[str, Any]) -> dict[str, Any]:
        check_names(parts)
        return parts

    @model_validator(mode="after")
    def _complete(self) -> Self:
        missing = [name for name in ("codec", "denoiser", "process") if getattr(self, name) is None]
        if missing and self.start is None:
            raise SpecError("missing-key", f"no {missing[0]!r}", where=f"model.{missing[0]}", fits="one, or a `start`")
        if self.variant is not None and self.start is None:
            raise SpecError("start-variant", "`variant` goes with `start`", where="model.variant", fits="no variant")
        for kind, parts in (("conditioners", self.conditioners), ("adapters", self.adapters)):
            if self.start is None and (none := next((name for name, part in parts.items() if part is None), None)):
                what = f"{none!r} is null, which leaves out what a `start` has"
                raise SpecError("nothing-left-out", what, where=f"model.{kind}.{none}", fits="a type, or no such key")
        taken = {"denoiser", *self.conditioners} & {*self.adapters} or {"denoiser"} & {*self.conditioners}
        if taken:
            raise SpecError("name-taken", f"two parts are named {min(taken)!r}", where="model")
        return self
