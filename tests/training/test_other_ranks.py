"""A training recipe reads pictures: models of videos and of vectors are refused before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from fake_distributions import Distribution
from ldmkit_training.before.recipe import build_stage

import ldmkit
from ldmkit import CompositionError
from ldmkit.models.saving import save_part

PARTS = """[ldmkit.codecs]
causal = video_parts:Causal
embedded = vector_codec:Embedded
"""

VECTOR = '''
import ldmkit


class Embedded(ldmkit.Codec):
    """Vectors (B,4), their own latents."""

    channels = data_channels = 4
    axes = ()

    def encode(self, images, noise=None):
        return images

    def decode(self, latents):
        return latents

    def raw(self, latents):
        return latents
'''


@pytest.fixture
def installed(distribution: Distribution, monkeypatch: pytest.MonkeyPatch) -> None:
    """Codecs of videos and of vectors."""
    site = distribution("other-ranks", PARTS)
    (site / "vector_codec.py").write_text(VECTOR)
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "pipelines"))


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("codec", "axes"), [("causal", "3 axes (frames, height, width)"), ("embedded", "0 axes (none)")]
)
def test_other_ranks_are_refused(codec: str, axes: str, tmp_path: Path) -> None:
    folder = save_part("codec", ldmkit.get("codec", codec)(), tmp_path / "codec")
    recipe = tiny.denoiser_recipe(tmp_path / "run", f"model.codec={{from: {folder}}}")
    with pytest.raises(CompositionError) as caught:
        build_stage(recipe, tmp_path)
    assert caught.value.code == "compose.rank-mismatch" and caught.value.fits == "a codec for pictures"
    assert caught.value.what == f"a training recipe works on pictures, but the codec's data have {axes}"
    assert not (tmp_path / "run").exists(), "nothing was written"
