"""What trainers write into a safetensors file's metadata about the prediction: evidence, as marker keys are."""

from __future__ import annotations

from collections.abc import Mapping

from ldmkit.errors import SourceError

_WORDS = {"v": "v", "v_prediction": "v", "v-prediction": "v", "eps": "eps", "epsilon": "eps"}
_FLAGS = {"ss_v_parameterization": {"true": "v", "false": "eps"}}
"""kohya's trainer."""


def stated_prediction(metadata: Mapping[str, str], where: str) -> str | None:
    """`eps` or `v`, where the metadata says it; None where it does not.

    Raises:
        SourceError: `prediction-unknown` for another word, or two entries that disagree.
    """
    found: dict[str, str] = {}
    for key in ("modelspec.prediction_type", "prediction_type"):
        if key in metadata:
            word = metadata[key].strip().lower()
            if word not in _WORDS:
                what = f"the metadata's {key} is {metadata[key][:60]!r}"
                raise SourceError("prediction-unknown", what, where=where, fits="epsilon or v")
            found[key] = _WORDS[word]
    for key, words in _FLAGS.items():
        if (word := metadata.get(key, "").strip().lower()) in words:
            found[key] = words[word]
    if not found:
        return None
    (first, prediction), *others = found.items()
    for key, other in others:
        if other != prediction:
            raise disagreement(first, prediction, key, other, where)
    return prediction


def disagreement(first: str, one: str, second: str, other: str, where: str) -> SourceError:
    """The error for two pieces of evidence about the prediction that disagree."""
    what = f"{first} says that it predicts {one}, {second} that it predicts {other}"
    return SourceError(
        "prediction-unknown", what, where=where, fits="a file whose evidence agrees; or correct the wrong one"
    )
