"""The flags of guided-diffusion's scripts, given as a command line, a mapping, or the name of a published model."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from ldmkit import LdmkitError, SourceError, Value, suggest
from ldmkit.bounds import MAX_SIDE
from ldmkit_checkpoints.config_fields import known_only

SECTION = "guided_diffusion"
"""Key of the yaml under which the flags are."""

_LISTS = ("attention_resolutions", "channel_mult", "timestep_respacing", "classifier_attention_resolutions")
"""Flags that are numbers separated by commas."""

NO_EFFECT = {
    *("batch_size", "num_samples", "model_path", "classifier_path", "base_samples", "use_checkpoint", "use_kl"),
    *("rescale_learned_sigmas", "use_fp16", "classifier_use_fp16", "classifier_scale"),
}
"""Flags of the scripts that change nothing in the model: paths, training, and what a call decides (scale, dtype)."""


class Flags(Value):
    """Flags that describe a model or how it is sampled, with the defaults of the scripts.

    `large_size` and `small_size` are those of the upsamplers, which have no `image_size`. `sigma_small` is
    improved-diffusion's. The `classifier_` flags are of classifiers only, `use_ddim` and `clip_denoised` of sampling.
    """

    refusal: ClassVar[type[LdmkitError]] = SourceError

    image_size: int = Field(64, ge=1, le=MAX_SIDE)
    large_size: int | None = Field(None, ge=1, le=MAX_SIDE)
    small_size: int | None = Field(None, ge=1, le=MAX_SIDE)
    num_channels: int = Field(128, ge=1, le=2**16)
    num_res_blocks: int = Field(2, ge=1, le=64)
    num_heads: int = Field(4, ge=1, le=10_000)
    num_heads_upsample: int = Field(-1, ge=-1, le=10_000)
    num_head_channels: int = Field(-1, ge=-1, le=10_000)
    attention_resolutions: str = "16,8"
    channel_mult: str = ""
    dropout: float = Field(0.0, ge=0, lt=1)
    class_cond: bool = False
    use_scale_shift_norm: bool = True
    resblock_updown: bool = False
    use_new_attention_order: bool = False
    learn_sigma: bool = False
    sigma_small: bool = False
    diffusion_steps: int = Field(1000, ge=2, le=10_000)
    noise_schedule: Literal["linear", "cosine"] = "linear"
    timestep_respacing: str = ""
    predict_xstart: bool = False
    rescale_timesteps: bool = False
    use_ddim: bool = False
    clip_denoised: bool = True
    classifier_width: int = Field(128, ge=1, le=2**16)
    classifier_depth: int = Field(2, ge=1, le=64)
    classifier_attention_resolutions: str = "32,16,8"
    classifier_use_scale_shift_norm: bool = True
    classifier_resblock_updown: bool = True
    classifier_pool: str = "attention"

    @property
    def side(self) -> int:
        """Height and width of the pictures that the model draws."""
        return self.image_size if self.large_size is None else self.large_size


_IMAGENET = (
    "--attention_resolutions 32,16,8 --class_cond True --diffusion_steps 1000 --learn_sigma True --num_channels 256 "
    "--num_res_blocks 2 --resblock_updown True --use_scale_shift_norm True --timestep_respacing 250 "
)
_LSUN = _IMAGENET.replace("class_cond True", "class_cond False") + (
    "--image_size 256 --noise_schedule linear --num_head_channels 64 --dropout 0.1"
)
_UPSAMPLER = _IMAGENET.replace("num_channels 256", "num_channels 192") + "--noise_schedule linear "
PUBLISHED: dict[str, str] = {
    "64x64_diffusion": _IMAGENET.replace("num_channels 256", "num_channels 192").replace("blocks 2", "blocks 3")
    + "--image_size 64 --noise_schedule cosine --num_head_channels 64 --use_new_attention_order True --dropout 0.1",
    "128x128_diffusion": _IMAGENET + "--image_size 128 --noise_schedule linear --num_heads 4",
    "256x256_diffusion": _IMAGENET + "--image_size 256 --noise_schedule linear --num_head_channels 64",
    "256x256_diffusion_uncond": _LSUN.replace("dropout 0.1", "dropout 0.0"),
    "512x512_diffusion": _IMAGENET + "--image_size 512 --noise_schedule linear --num_head_channels 64",
    "64_256_upsampler": _UPSAMPLER + "--large_size 256 --small_size 64 --num_heads 4",
    "128_512_upsampler": _UPSAMPLER.replace("32,16,8", "32,16")
    + "--large_size 512 --small_size 128 --num_head_channels 64",
    **dict.fromkeys(("lsun_bedroom", "lsun_cat", "lsun_horse"), _LSUN),
    "lsun_horse_nodropout": _LSUN.replace("dropout 0.1", "dropout 0.0"),
    "64x64_classifier": "--image_size 64 --classifier_depth 4 --noise_schedule cosine",
    "128x128_classifier": "--image_size 128 --noise_schedule linear",
    "256x256_classifier": "--image_size 256 --noise_schedule linear",
    "512x512_classifier": "--image_size 512 --noise_schedule linear",
}
"""Published file, without its suffix -> flags of the README's command for it that describe the model."""


def read_flags(given: Any, where: str) -> tuple[Flags, frozenset[str]]:
    """The flags, and the names of those that were given.

    Raises:
        SourceError: `unknown-parameter`; `invalid`; `duplicate-key`; `unknown-model`: no published model of that name.
    """
    named = given if isinstance(given, Mapping) else _of_text(given, where)
    known_only(named, {*Flags.model_fields, *NO_EFFECT}, where)
    plain = {name: _listed(value) if name in _LISTS else value for name, value in named.items()}
    return Flags.of({k: v for k, v in plain.items() if k not in NO_EFFECT}, where), frozenset(named)


def numbers_of(text: str, name: str, where: str) -> list[float]:
    """The numbers of a flag, above 0.

    Raises:
        SourceError: `invalid`.
    """
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError:
        found = []
    if not found or any(not 0 < number < MAX_SIDE for number in found):
        fits = "numbers above 0, separated by commas"
        raise SourceError("invalid", f"{name} is {text!r}", where=f"{where}.{name}", fits=fits)
    return found


def _of_text(text: Any, where: str) -> dict[str, Any]:
    """Flags of a command line, or of a published model."""
    if not isinstance(text, str):
        fits = "flags (--image_size 64 ...), a mapping of them, or the name of a published model"
        raise SourceError("invalid", f"a {type(text).__name__}", where=where, fits=fits)
    if not text.lstrip().startswith("-"):
        name = text.strip().removesuffix(".pt")
        if name not in PUBLISHED:
            fits = suggest(name, PUBLISHED)
            raise SourceError("unknown-model", f"no published model is called {name!r}", where=where, fits=fits)
        text = PUBLISHED[name]
    found: dict[str, Any] = {}
    words = _words(text, where)
    for name, word in zip(words[::2], words[1::2], strict=True):
        value = _typed(name, word, where)
        if found.setdefault(name, value) != value:
            raise SourceError("duplicate-key", f"--{name} is given twice, and differs", where=where)
    return found


def _words(text: str, where: str) -> list[str]:
    """Name, value, name, value ... of a command line."""
    try:
        split = shlex.split(text)
    except ValueError as error:
        raise SourceError("invalid", f"not a command line: {error}", where=where) from None
    words: list[str] = []
    for word in split:
        name, equals, value = word.partition("=")
        words += [name, value] if equals and word.startswith("--") else [word]
    if len(words) % 2 or any(not name.startswith("--") for name in words[::2]):
        odd = next((name for name in words[::2] if not name.startswith("--")), words[-1])
        raise SourceError(
            "invalid", f"{odd!r} is no flag with a value", where=where, fits="--name value, for each flag"
        )
    return [word.removeprefix("--") if i % 2 == 0 else word for i, word in enumerate(words)]


def _typed(name: str, word: str, where: str) -> Any:
    """A value of a command line in the type of its flag, by the scripts' own rules."""
    field = Flags.model_fields.get(name)
    kind: Any = str if field is None else field.annotation
    try:
        if kind is bool:
            return {**dict.fromkeys(("yes", "true", "t", "y", "1"), True),
                    **dict.fromkeys(("no", "false", "f", "n", "0"), False)}[word.lower()]  # fmt: skip
        return kind(word) if kind in (int, float) else int(word) if kind == (int | None) else word
    except (KeyError, ValueError):
        fits = "True or False" if kind is bool else "a number"
        raise SourceError("invalid", f"--{name} is {word!r}", where=f"{where}.{name}", fits=fits) from None


def _listed(value: Any) -> Any:
    """Numbers as the scripts write them, where a yaml has a number or a list."""
    if isinstance(value, (list, tuple)):
        return ",".join(str(number) for number in value)
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
