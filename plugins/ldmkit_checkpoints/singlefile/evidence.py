"""What a file states about its model beside the weights: trainers' metadata and marker keys, which must agree.

Used are Stability's ModelSpec (sd-scripts, OneTrainer, ComfyUI), the metadata of kohya's trainers (`ss_...`), and the
empty tensors with which ComfyUI, A1111 and OneTrainer mark a file (`v_pred`, `ztsnr`). Merge recipes
(`sd_merge_recipe`, `sd_merge_models`, `prompt`, `workflow`), hashes, titles and training settings do not affect how a
model is read.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ldmkit import LazyTensor, SourceError, shown
from ldmkit.bounds import MAX_SIDE

MARKERS = ("v_pred", "ztsnr")
"""Empty tensors that only mark a file."""

SD1, SD2, XL, REFINER = "Stable Diffusion 1", "Stable Diffusion 2", "SDXL", "SDXL's refiner"


class Fact(NamedTuple):
    """One statement: its subject (a key of `_PHRASES`), the value, and where it was found."""

    subject: str
    value: str
    by: str

    def __str__(self) -> str:
        return f"{self.by} says that it {_PHRASES[self.subject].format(self.value)}"


_PHRASES = {
    "predicts": "predicts {}",
    "zero_snr": "was trained {} zero terminal SNR",
    "family": "is {}",
    "v2": "is {} of Stable Diffusion 2",
}
_V2 = {True: "a model", False: "no model"}


@dataclass(frozen=True)
class Evidence:
    """The statements of one file, checked to agree with each other.

    Args:
        facts: by subject.
        size: (height, width) in pixels it was trained for, if stated.
        notes: statements that have no effect on loading.
    """

    where: str
    facts: Mapping[str, Fact]
    size: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()

    def get(self, subject: str) -> str | None:
        """The value stated for a subject, if any."""
        return self.facts[subject].value if subject in self.facts else None

    def check(self, subject: str, value: str | None, by: str) -> None:
        """Compare with a value from elsewhere; None states nothing.

        Raises:
            SourceError: `prediction-unknown`, `evidence-disagrees`, with both.
        """
        if value is not None and self.get(subject) not in (None, value):
            raise _disagreement(self.facts[subject], Fact(subject, value, by), self.where)

    def check_family(self, family: str | None, by: str) -> None:
        """Compare with the model family found elsewhere, if any."""
        self.check("family", family, by)
        self.check("v2", None if family is None else _V2[family == SD2], by)

    def zero_snr(self, predicts: str, by: str) -> bool:
        """Whether the schedule must end at zero terminal SNR.

        Raises:
            SourceError: `evidence-disagrees`: zero terminal SNR is stated for a network that predicts eps.
        """
        if self.get("zero_snr") != "with":
            return False
        if predicts == "eps":
            other = Fact("predicts", "eps", by)
            what = f"{self.facts['zero_snr']}, which leaves an eps prediction undefined; {other}"
            fits = "config= with parameterization v (of SDXL: VScaling), if it predicts v"
            raise SourceError("evidence-disagrees", what, where=self.where, fits=fits)
        return True


def gather(metadata: Mapping[str, str], keys: Container[str], where: str) -> Evidence:
    """Collect the evidence of a file.

    Raises:
        SourceError: `evidence-unknown` for an unknown value; `prediction-unknown`, `evidence-disagrees` for statements
            that disagree.
    """
    agreed: dict[str, Fact] = {}
    for fact in _facts(metadata, keys, where):
        first = agreed.setdefault(fact.subject, fact)
        if first.value != fact.value:
            raise _disagreement(first, fact, where)
    return Evidence(where, agreed, _size(metadata), tuple(_unused(metadata)))


def family_of(tensors: Mapping[str, LazyTensor]) -> str | None:
    """The model family by its shapes; None for other and for reduced models."""
    unet = "model.diffusion_model."
    for key, column, families in (
        (unet + "label_emb.0.0.weight", 1, {2816: XL, 2560: REFINER}),
        (unet + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", 1, {768: SD1, 1024: SD2}),
    ):
        if key in tensors and len(tensors[key].shape) == 2:
            return families.get(tensors[key].shape[column])
    return None


_WORDS = {"v": "v", "v_prediction": "v", "v-prediction": "v", "eps": "eps", "epsilon": "eps"}
_FLAGS = {"true": True, "1": True, "false": False, "0": False}
_SILENT = ("", "none", "null")
_ARCHITECTURES = (
    (r"stable-diffusion-v1", SD1, None),
    (r"stable-diffusion-v2-768-v", SD2, "v"),
    (r"stable-diffusion-v2-512", SD2, "eps"),
    (r"stable-diffusion-v2", SD2, None),
    (r"stable-diffusion-xl-.*refiner", REFINER, None),
    (r"stable-diffusion-xl", XL, None),
    (
        r"(stable-diffusion-v?3|flux|stable-cascade|stable-video|pixart|auraflow|hunyuan|lumina|sana|wan|chroma)",
        "",
        None,
    ),
)
"""Start of `modelspec.architecture` -> family ('' if not supported), prediction."""
_BASES = (
    (r"sd_v1_v$", SD1, "v"),
    (r"sd_v1$", SD1, "eps"),
    (r"sd_v2_v$", SD2, "v"),
    (r"sd_v2$", SD2, "eps"),
    (r"sdxl_refiner", REFINER, None),
    (r"sdxl", XL, None),
    (r"(sd3|flux|lumina|hunyuan)", "", None),
)
"""The same for kohya's `ss_base_model_version`."""


def _facts(metadata: Mapping[str, str], keys: Container[str], where: str) -> Iterable[Fact]:
    if "v_pred" in keys:
        yield Fact("predicts", "v", "the key 'v_pred'")
    if "ztsnr" in keys:
        yield Fact("zero_snr", "with", "the key 'ztsnr'")
    for name in ("modelspec.prediction_type", "modelspec.predict_key", "prediction_type"):
        if word := _word(metadata, name):
            if word not in _WORDS:
                raise _unknown(name, metadata[name], "epsilon or v", where)
            yield Fact("predicts", _WORDS[word], _by(name))
    for name, subject, meaning in (
        ("ss_v_parameterization", "predicts", {True: "v", False: "eps"}),
        ("ss_zero_terminal_snr", "zero_snr", {True: "with", False: "without"}),
        ("ss_v2", "v2", _V2),
    ):
        if word := _word(metadata, name):
            if word not in _FLAGS:
                raise _unknown(name, metadata[name], "True or False", where)
            yield Fact(subject, meaning[_FLAGS[word]], _by(name))
    for name, table in (("modelspec.architecture", _ARCHITECTURES), ("ss_base_model_version", _BASES)):
        word = _word(metadata, name)
        for beginning, family, predicts in table:
            if word and re.match(beginning, word):
                yield Fact("family", family or word.partition("/")[0][:60], _by(name))
                yield Fact("v2", _V2[family == SD2], _by(name))
                if predicts is not None:
                    yield Fact("predicts", predicts, _by(name))
                break


def _word(metadata: Mapping[str, str], name: str) -> str:
    word = metadata.get(name, "").strip().lower()
    return "" if word in _SILENT else word


def _by(name: str) -> str:
    return f"the metadata's {name}"


def _size(metadata: Mapping[str, str]) -> tuple[int, int] | None:
    """`modelspec.resolution` is WIDTHxHEIGHT; the 768-v architecture implies it."""
    sides = re.fullmatch(r"(\d{1,5})\s*x\s*(\d{1,5})", _word(metadata, "modelspec.resolution"))
    if sides is None:
        return (768, 768) if _word(metadata, "modelspec.architecture").startswith("stable-diffusion-v2-768-v") else None
    width, height = int(sides[1]), int(sides[2])
    return (height, width) if all(8 <= side <= MAX_SIDE and side % 8 == 0 for side in (height, width)) else None


def _unused(metadata: Mapping[str, str]) -> Iterable[str]:
    """Notes on metadata whose effect only the user can choose."""
    for name in ("modelspec.encoder_layer", "ss_clip_skip"):
        layer = _word(metadata, name)
        if layer.isdecimal() and int(layer) > 1:
            yield f"{_by(name)} is {layer}: it was trained on an earlier layer of its text encoder (clip skip)"
    steps = re.fullmatch(r"(\d+)\s*,\s*(\d+)", _word(metadata, "modelspec.timestep_range"))
    if steps is not None and (int(steps[1]) > 0 or int(steps[2]) < 999):
        yield f"the metadata's modelspec.timestep_range is {steps[0]}: it was trained for these timesteps only"
    said = _word(metadata, "modelspec.resolution")
    if said and _size(metadata) is None:
        yield f"the metadata's modelspec.resolution is {shown(said)}: not a size that it can generate"


def _unknown(name: str, value: str, fits: str, where: str) -> SourceError:
    return SourceError("evidence-unknown", f"{_by(name)} is {shown(value)}", where=where, fits=fits)


def _disagreement(one: Fact, other: Fact, where: str) -> SourceError:
    """The error for two pieces of evidence that disagree."""
    code = "prediction-unknown" if one.subject == "predicts" else "evidence-disagrees"
    what = f"{one}, {str(other).replace(' says that it', ' that it')}"
    return SourceError(code, what, where=where, fits="a file whose evidence agrees; or correct the wrong one")
