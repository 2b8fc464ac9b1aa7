"""Prompts that are rewritten: what is drawn, what is recorded, and replay, which needs no rewriter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_distributions import Distribution
from ldmkit_captions.language_model import LanguageModel
from ldmkit_captions.template import Template
from typer.testing import CliRunner

import ldmkit
from ldmkit import InputError, Rewriter
from ldmkit.cli.app import app
from ldmkit.replaying import replay
from ldmkit.run.recipe import read_recipe
from ldmkit.testing import check_rewriter

FEW: dict[str, Any] = {"steps": 2, "size": (32, 32), "propose": False}
NIGHT = "{prompt} at night"


class Counting(Rewriter):
    """Adds a word; counts its calls outside of the value."""

    api = 1
    word: str = "x"

    def rewrite(self, prompt: str) -> str:
        CALLS.append(prompt)
        return f"{prompt} {self.word}"


class Mute(Rewriter):
    """Says nothing."""

    api = 1

    def rewrite(self, prompt: str) -> str:
        return ""


CALLS: list[str] = []
ENTRY_POINTS = "[ldmkit.rewriters]\ncounting = test_rewriting:Counting\nmute = test_rewriting:Mute\n"


@pytest.fixture(scope="module")
def pipe() -> ldmkit.Pipeline:
    return ldmkit.load("miniworld")


def test_what_is_drawn_is_the_rewritten_text(pipe: ldmkit.Pipeline) -> None:
    out = pipe({"text": "a house"}, rewrite=Template(text=NIGHT), seeds=[3], **FEW)
    want = pipe({"text": "a house at night"}, seeds=[3], **FEW)
    assert torch.equal(out.images, want.images)
    assert out.revised_prompts == ("a house at night",) and want.revised_prompts == (None,)
    [recipe] = out.recipes
    assert recipe["inputs"]["text"] == "a house at night" == recipe["revised_prompt"]
    assert recipe["rewritten"]["text"]["prompt"] == "a house"
    assert recipe["rewritten"]["text"]["rewriter"]["config"]["text"] == NIGHT
    assert "rewritten" not in want.recipes[0]


def test_the_png_holds_it_and_replay_needs_no_rewriter(
    pipe: ldmkit.Pipeline, distribution: Distribution, tmp_path: Path
) -> None:
    distribution("rewriters", ENTRY_POINTS)
    CALLS.clear()
    out = pipe({"text": "a house"}, rewrite={"type": "counting", "config": {"word": "night"}}, seeds=[3], **FEW)
    recipe = read_recipe(out.save(tmp_path / "drawn.png")[0])
    assert recipe["revised_prompt"] == "a house night" and CALLS == ["a house"]
    recipe["rewritten"]["text"]["rewriter"]["type"] = "gone"
    assert torch.equal(replay(pipe, recipe).images, out.images) and CALLS == ["a house"]


def test_each_picture_has_its_own_and_a_prompt_is_rewritten_once(
    pipe: ldmkit.Pipeline, distribution: Distribution
) -> None:
    distribution("rewriters", ENTRY_POINTS)
    CALLS.clear()
    texts = [{"text": "a house"}, {"text": "a tree"}, {"text": "a house"}]
    out = pipe(texts, rewrite="counting", seeds=[1, 2, 3], **FEW)
    assert out.revised_prompts == ("a house x", "a tree x", "a house x") and CALLS == ["a house", "a tree"]
    requests = [{"inputs": {"text": "a tree"}, "seed": 2, "rewrite": "counting"}, {"inputs": {"text": "a boat"}}]
    made = list(pipe.many(requests, **FEW))
    assert [one.output.revised_prompts for one in made if one.output] == [("a tree x",), (None,)]


def test_negatives_stay_as_they_are(pipe: ldmkit.Pipeline) -> None:
    recipe = pipe.recipe({"text": "a house"}, negative={"text": "snow"}, rewrite=Template(text=NIGHT), **FEW)
    assert recipe["negative"] == {"text": "snow"}


@pytest.mark.parametrize(
    ("inputs", "rewrite", "code"),
    [
        ({"label": "lake"}, "template", "input.nothing-to-rewrite"),
        ({"text": " "}, "template", "input.empty-prompt"),
        ({"text": ["a house", "a tree"]}, "template", "input.rewrite-parts"),
        ({"text": "a house"}, "templat", "plugin.not-found"),
        ({"text": "a house"}, {"type": "template", "config": {"text": "none"}}, "spec.invalid"),
        ({"text": "a house"}, "mute", "run.bad-return"),
    ],
)
def test_what_cannot_be_rewritten_is_refused(
    pipe: ldmkit.Pipeline, distribution: Distribution, inputs: Any, rewrite: Any, code: str
) -> None:
    distribution("rewriters", ENTRY_POINTS)
    with pytest.raises(ldmkit.LdmkitError) as error:
        pipe(inputs, rewrite=rewrite, **FEW)
    assert error.value.code.split(".")[0] == code.split(".")[0] and (
        code.startswith("plugin") or error.value.code == code
    )


def test_the_command_line(tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    words = ["sample", "miniworld", "--text", "a house", "--rewrite", f"template:text={NIGHT}", "--steps", "2"]
    result = CliRunner().invoke(app, [*words, "--size", "32", "--no-propose", "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    assert read_recipe(out)["revised_prompt"] == "a house at night"
    assert json.loads(result.output)["recipe"]["revised_prompt"] == "a house at night"


def test_the_template_keeps_the_contract() -> None:
    check_rewriter(Template).require()
    assert Template(least_words=3).rewrite("a red house") == "a red house"


@pytest.fixture(scope="module")
def gpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 with random weights and a tokenizer of bytes, as `save_pretrained` writes them."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("gpt")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {sign: i for i, sign in enumerate(["<|endoftext|>", *alphabet])}
    own = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    own.pre_tokenizer, own.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(tokenizer_object=own, eos_token="<|endoftext|>").save_pretrained(folder)
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 1024, "bos_token_id": 0, "eos_token_id": 0}
    config = transformers.GPT2Config(vocab_size=len(vocabulary), **sizes)
    torch.manual_seed(0)
    network = transformers.GPT2LMHeadModel(config)
    with torch.no_grad():  # letters are what it says
        network.transformer.wte.weight[vocabulary["a"]] *= 30
    network.save_pretrained(folder)
    return folder


def test_a_language_model_is_read_greedily(gpt: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = LanguageModel(model=str(gpt), instruction="Say {prompt}:", tokens=12)
    tokenizer, network = AutoTokenizer.from_pretrained(gpt), AutoModelForCausalLM.from_pretrained(gpt).eval()
    given = tokenizer("Say a house:", return_tensors="pt", return_token_type_ids=False)
    want = network.generate(**given, do_sample=False, max_new_tokens=12)[0, given["input_ids"].shape[1] :]
    assert made.rewrite("a house") == " ".join(tokenizer.decode(want, skip_special_tokens=True).split())


def test_a_language_model_is_recorded_with_its_digest(gpt: Path, pipe: ldmkit.Pipeline) -> None:
    made = LanguageModel(model=str(gpt), instruction="Say {prompt}:", tokens=4)
    recipe = pipe.recipe({"text": "a house"}, rewrite=made, **FEW)
    assert len(recipe["rewritten"]["text"]["sha256"]["model"]) == 64


def test_prompts_that_a_language_model_cannot_take(gpt: Path, tmp_path: Path) -> None:
    for rewriter, prompt, code in (
        (LanguageModel(), "a house", "input.no-weights"),
        (LanguageModel(model=str(gpt)), "\ud800 a", "input.prompt-encoding"),
        (LanguageModel(model=str(gpt)), "a" * 2000, "input.prompt-long"),
        (LanguageModel(model=str(tmp_path)), "a house", "source.unsupported"),
    ):
        with pytest.raises(ldmkit.LdmkitError) as error:
            rewriter.rewrite(prompt)
        assert error.value.code == code and isinstance(error.value, (InputError, ldmkit.SourceError))
