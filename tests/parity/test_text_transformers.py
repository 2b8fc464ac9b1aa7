"""Text conditioners against transformers and diffusers: numbers in float64, token ids of many strings.

Tolerance: 1e-10 of the largest value in float64; ids are equal.
"""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from ldmkit_checkpoints.diffusers.ldm_bert import bert_diffusers_keys, ldm_bert_from_diffusers, ldm_bert_to_diffusers
from ldmkit_checkpoints.keys import KeyMap
from ldmkit_checkpoints.transformers.text_config import clip_from_hf, clip_to_hf, t5_from_hf, t5_to_hf
from ldmkit_checkpoints.transformers.text_keys import clip_hf_keys, clip_hf_level, t5_keys
from ldmkit_conditioners.bpe import CLIP_END, CLIP_START, bert_vocabulary, clip_vocabulary
from ldmkit_conditioners.clip_text import ClipPooled, ClipText
from ldmkit_conditioners.ldm_text import LdmText
from ldmkit_conditioners.t5_text import T5Text
from ldmkit_conditioners.vocabulary import TruncationWarning, Vocabulary
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn

transformers = pytest.importorskip("transformers")

IDS = [[90, 5, 6, 7, 91], [90, 91], [90, *range(1, 20), 91]]


def fill(module: nn.Module, keymap: KeyMap, state: dict[str, Tensor]) -> None:
    module.load_state_dict({n: e.read(*(state[k] for k in e.keys)) for n, e in keymap.items()}, strict=True)


def same(got: Tensor, want: Tensor, tolerance: float = 1e-10) -> None:
    assert got.shape == want.shape
    assert float((got - want).abs().max() / want.abs().max()) <= tolerance


def randomised(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2 + (parameter.ndim == 1))
    return module.double().eval()


def clip_pair(projected: bool, **changes: Any) -> tuple[Any, dict[str, Any], dict[str, Tensor]]:
    shape = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 3}
    ids = {"bos_token_id": 90, "eos_token_id": 91, "pad_token_id": 91}
    data = {**shape, "num_attention_heads": 4, "max_position_embeddings": 24, "projection_dim": 20, **ids, **changes}
    cls = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    # its "eager" attention computes the softmax in float32
    theirs = randomised(cls(transformers.CLIPTextConfig(**data, attn_implementation="sdpa")))
    data["architectures"] = [cls.__name__]
    return theirs, clip_from_hf(data), dict(theirs.state_dict())


def rows(part: Any) -> Tensor:
    return part.ids(IDS)


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("layer", ["last", "penultimate", 0, 2, -2])
def test_clip_text(act: str, layer: Any) -> None:
    theirs, config, state = clip_pair(False, hidden_act=act)
    part = ClipText({**config, "layer": layer, "final_norm": layer == "last"}).double().eval()
    fill(part, clip_hf_keys(part.config, clip_hf_level(state)), state)
    with torch.no_grad():
        out = theirs(input_ids=rows(part), output_hidden_states=True)
        index = {"last": -1, "penultimate": -2}.get(str(layer), layer)
        want = out.last_hidden_state if layer == "last" else out.hidden_states[index]
        same(part(IDS).value, want)


def test_clip_text_keys_with_the_old_level() -> None:
    theirs, config, state = clip_pair(False)
    old = {f"text_model.{key.removeprefix('text_model.')}": tensor for key, tensor in state.items()}
    part = ClipText(config).double().eval()
    fill(part, clip_hf_keys(part.config, clip_hf_level(old)), old)
    with torch.no_grad():
        same(part(IDS).value, theirs(input_ids=rows(part)).last_hidden_state)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_clip_pooled(act: str, legacy: bool) -> None:
    changes = {"eos_token_id": 2, "vocab_size": 92} if legacy else {}
    theirs, config, state = clip_pair(True, hidden_act=act, **changes)
    assert config["pool"] == ("argmax" if legacy else "first-eos") and config["eos"] == 91
    part = ClipPooled(config).double().eval()
    fill(part, clip_hf_keys(part.config, clip_hf_level(state)), state)
    shared = ClipPooled(config)
    text = ClipText(config).double().eval()
    text.load_state_dict(part.state_dict())
    shared.adopt(text)
    assert not shared.state_dict()
    with torch.no_grad():
        want = theirs(input_ids=rows(part)).text_embeds
        same(part(IDS).value, want)
        same(shared(IDS).value, want)
        same(text(IDS).value, theirs(input_ids=rows(part)).last_hidden_state)


def test_clip_config_round_trip() -> None:
    for projected in (False, True):
        _, config, _ = clip_pair(projected)
        part = (ClipPooled if projected else ClipText)(config)
        assert clip_from_hf(clip_to_hf(part.config)) == {**config, "pad": config["eos"]}
        transformers.CLIPTextConfig(**{k: v for k, v in clip_to_hf(part.config).items() if k != "model_type"})


@pytest.mark.parametrize("feed_forward", ["relu", "gated-gelu"])
def test_t5(feed_forward: str) -> None:
    shape = {"vocab_size": 100, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    data = {**shape, "feed_forward_proj": feed_forward, "relative_attention_num_buckets": 8}
    theirs = randomised(transformers.T5EncoderModel(transformers.T5Config(**data)))
    config = t5_from_hf(data, max_length=24)
    with torch.device("meta"):
        assert {tensor.device.type for tensor in T5Text(config).state_dict().values()} == {"meta"}
    part = T5Text(config).double().eval()
    fill(part, t5_keys(part.config), dict(theirs.state_dict()))
    assert t5_from_hf(t5_to_hf(part.config), max_length=24) == config
    with torch.no_grad():
        value, mask = part(IDS)
        ids = torch.tensor([row + [0] * (24 - len(row)) for row in IDS])
        same(value, theirs(input_ids=ids, attention_mask=mask.long()).last_hidden_state)
        assert mask.sum(1).tolist() == [len(row) for row in IDS]
        null = part.null(part(IDS))
        same(null.value[:1], part([[1]]).value)
        assert null.mask.shape == (3, 24) and null.mask.sum() == 3


def test_ldm_bert() -> None:
    module = pytest.importorskip("diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion")
    shape = {"vocab_size": 100, "max_position_embeddings": 24, "encoder_layers": 2, "encoder_ffn_dim": 128}
    heads = {"encoder_attention_heads": 4, "head_dim": 16, "d_model": 32}
    theirs = randomised(module.LDMBertModel(module.LDMBertConfig(**shape, **heads)))
    config = ldm_bert_from_diffusers({**shape, **heads})
    part = LdmText(config).double().eval()
    assert ldm_bert_from_diffusers(ldm_bert_to_diffusers(part.config)) == config
    fill(part, bert_diffusers_keys(part.config), dict(theirs.state_dict()))
    ids = torch.tensor([row + [0] * (24 - len(row)) for row in IDS])
    with torch.no_grad():
        same(part(IDS).value, theirs(ids)[0])


# ---- token ids

TEXTS = [
    *("", " ", "a red house by a lake", "Hello, World!! it's 12345 don't we've I'LL they're I'd 'twas"),
    *(
        "日本語 テスト",
        "naïve café ÀÉ e\u0301",
        "😀😀 👩\u200d👩\u200d👧",
        "<|endoftext|> mid <|startoftext|>x",
        "a<|endoftext|>b",
    ),
    *(
        "  tabs\t\nnew   lines ",
        "x" * 1000,
        "word " * 200,
        "ﬁ ½ ², \u200b zero",
        "İstanbul ẞ",
        "& &amp; <b>",
        "!wow!",
        " ! ",
    ),
    *(
        "\u00a0nbsp\u3000",
        "\x01\x02",
        "ß µ",
        "_under_score__",
        "1234.5e10",
        "مرحبا بالعالم",
        "हिन्दी",
        "\ufeffbom",
        "[CLS] [MASK]",
    ),
]


def random_texts(count: int) -> list[str]:
    source = random.Random(0)
    ranges = ((32, 127), (160, 0x2FFF), (0x1F300, 0x1F700))
    return ["".join(chr(source.randrange(*source.choice(ranges))) for _ in range(30)) for _ in range(count)]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP vocabulary, trained on a few words: 512 bytes, merges, two special tokens."""
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(["red house lake hello world word test lines"] * 3, trainer)
    data = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split()) for m in data["merges"]]
    words = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(pair) for pair in merges)]
    words = list(dict.fromkeys([*words, CLIP_START, CLIP_END]))
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges), ""]))
    special = {"bos_token": CLIP_START, "eos_token": CLIP_END, "unk_token": CLIP_END, "pad_token": CLIP_END}
    (folder / "tokenizer_config.json").write_text(json.dumps({**special, "model_max_length": 77}))
    return folder


def assert_same_ids(vocabulary: Vocabulary, theirs: Any) -> None:
    for text in [*TEXTS, *random_texts(100)]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncationWarning)
            assert vocabulary.encode(text, 77) == theirs(text, truncation=True, max_length=77).input_ids, repr(text)


def test_clip_token_ids(clip_folder: Path) -> None:
    vocabulary = clip_vocabulary(clip_folder, 49408)
    assert vocabulary is not None
    assert_same_ids(vocabulary, transformers.CLIPTokenizer.from_pretrained(str(clip_folder)))


def test_clip_token_ids_with_another_padding_token(clip_folder: Path, tmp_path: Path) -> None:
    """Stable Diffusion 2 pads with "!", which transformers then takes as one special token wherever it stands."""
    for file in clip_folder.iterdir():
        (tmp_path / file.name).write_text(file.read_text())
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "pad_token": "!"}))
    vocabulary = clip_vocabulary(tmp_path, 49408)
    assert vocabulary is not None
    assert_same_ids(vocabulary, transformers.CLIPTokenizer.from_pretrained(str(tmp_path)))
    ids = json.loads((tmp_path / "vocab.json").read_text())
    assert (vocabulary.start, vocabulary.end, vocabulary.pad) == (ids[CLIP_START], ids[CLIP_END], ids["!"])


def test_clip_files_round_trip(clip_folder: Path, tmp_path: Path) -> None:
    first = clip_vocabulary(clip_folder, 49408)
    assert first is not None
    first.save(tmp_path)
    again = clip_vocabulary(tmp_path, 49408)
    assert again is not None and again.pad == first.pad and again.longest == 77
    assert_same_ids(again, transformers.CLIPTokenizer.from_pretrained(str(tmp_path)))


def test_original_clip_release(tmp_path: Path) -> None:
    """The gzip of merges: ids by the release's order, for a list cut short."""
    import gzip

    merges = ["l a", "la k", "lak e</w>", "h o", "ho u", "hou s", "hous e</w>"]
    with gzip.open(tmp_path / "bpe_simple_vocab_16e6.txt.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(["#version", *merges, ""]))
    vocabulary = clip_vocabulary(tmp_path, 49408)
    assert vocabulary is not None
    start = 512 + len(merges)
    assert (vocabulary.start, vocabulary.end) == (start, start + 1)
    assert vocabulary.encode("LAKE house", 77) == [start, 512 + 2, 512 + 6, start + 1]
    assert vocabulary.encode("!", 77) == [start, 256, start + 1]


def test_bert_token_ids(tmp_path: Path) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *letters, *".,!?'-<>|&_", *("##" + c for c in letters), "red", "house", "##ing", "日", "本"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    vocabulary = bert_vocabulary(tmp_path, len(words))
    assert vocabulary is not None
    assert_same_ids(vocabulary, transformers.BertTokenizer.from_pretrained(str(tmp_path)))


def test_truncation_is_reported(clip_folder: Path) -> None:
    vocabulary = clip_vocabulary(clip_folder, 49408)
    assert vocabulary is not None
    text = "red house " * 5 + "by the LAKE"
    with pytest.warns(TruncationWarning, match="LAKE") as caught:
        ids = vocabulary.encode(text, 10)
    assert len(ids) == 10 and ids[-1] == vocabulary.end
    whole = len(vocabulary.encode(text, 10_000)) - 2
    assert f"{whole} tokens, 8 fit" in str(caught[0].message)
