"""The captioner on a network of transformers: a tiny BLIP with random weights, in a local folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ldmkit_captions.captioning import recorded
from ldmkit_captions.image_to_text import ImageToText

import ldmkit
from ldmkit.testing import check_captioner

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "a", "house", "tree", "red", "lake", "by", "the", "of"]


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `save_pretrained` writes it, made without any download."""
    import transformers

    folder = tmp_path_factory.mktemp("blip")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = transformers.BertTokenizer(str(folder / "vocab.txt"))
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": 5, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    text = {**small, **ids, "vocab_size": len(WORDS), "encoder_hidden_size": 16, "projection_dim": 16}
    config = transformers.BlipConfig(text_config=text, vision_config={**small, "image_size": 32, "patch_size": 16})
    torch.manual_seed(0)
    transformers.BlipForConditionalGeneration(config).save_pretrained(folder)
    image = transformers.models.blip.image_processing_pil_blip.BlipImageProcessorPil(size={"height": 32, "width": 32})
    transformers.BlipProcessor(image, tokenizer).save_pretrained(folder)
    return folder


def test_it_keeps_the_contract(blip: Path) -> None:
    check_captioner(ImageToText, {"model": str(blip), "short_tokens": 4, "long_tokens": 9, "least_tokens": 6}).require()


def test_captions_are_those_of_transformers_read_greedily(blip: Path) -> None:
    from transformers import AutoProcessor, BlipForConditionalGeneration

    picture = torch.rand(3, 40, 30, generator=torch.Generator().manual_seed(1)) * 2 - 1
    made = ImageToText(model=str(blip), short_tokens=4, long_tokens=9, least_tokens=6)
    found = made.caption(picture, {})
    processor = AutoProcessor.from_pretrained(blip)
    network = BlipForConditionalGeneration.from_pretrained(blip).eval()
    given = processor(images=ldmkit.to_levels(picture), return_tensors="pt")
    for text, options in (
        (found.short, {"max_new_tokens": 4}),
        (found.long, {"max_new_tokens": 9, "min_new_tokens": 6}),
    ):
        want = processor.batch_decode(network.generate(**given, do_sample=False, **options), skip_special_tokens=True)
        assert text == " ".join(want[0].split())
    assert len(recorded(made)["sha256"]["model"]) == 64


def test_folders_without_such_a_network_are_refused(tmp_path: Path) -> None:
    picture = torch.zeros(3, 8, 8)
    for model, code in (
        (None, "input.no-weights"),
        (tmp_path / "no", "source.not-found"),
        (tmp_path, "source.unsupported"),
    ):
        with pytest.raises(ldmkit.LdmkitError) as error:
            ImageToText(model=None if model is None else str(model)).caption(picture, {})
        assert error.value.code == code
