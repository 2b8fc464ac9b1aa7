"""Weights, BREAK, long prompts and clip skip, against a few lines on transformers' CLIP and diffusers' pipelines.

Tolerances: encodings 1e-5 and latents 1e-4 of their largest value, in float32; the differences are about 1e-6, and
leaving the weights out changes either by more than 1e-3.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import embedding_files as made
import pytest
import tiny_diffusers as tiny
import torch
from embedding_files import OPTIONS, START, far, ours, theirs, vectors
from ldmkit_conditioners.written import WrittenPrompt, as_plain, emphasised
from torch import Tensor

import ldmkit

Chunks = list[list[tuple[str, float]]]
LONG = ", ".join(f"the {letter}" for letter in tiny.LETTERS * 4)


def reference(
    model: Any, tokenizer: Any, chunks: Chunks, *, skip: int = 0, last: int = -1, norm: bool = True
) -> Tensor:
    """A1111's rule: chunks of 75 tokens encoded one by one, times the weights, with the mean restored, in a row."""
    done = []
    for chunk in chunks:
        ids, weights = [tokenizer.bos_token_id], [1.0]
        for text, weight in chunk:
            new = tokenizer(text, add_special_tokens=False).input_ids
            ids, weights = ids + new, weights + [weight] * len(new)
        ids += [tokenizer.eos_token_id] + [tokenizer.pad_token_id] * (76 - len(ids))
        with torch.no_grad():
            z = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[last - skip]
            z = model.final_layer_norm(z) if norm else z
        times = torch.tensor(weights + [1.0] * (77 - len(weights)))[None, :, None]
        done.append(z * times * (z.mean() / (z * times).mean()))
    return torch.cat(done, dim=1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ldmkit.Pipeline]:
    theirs_ = made.loud(tiny.stable_diffusion())
    return theirs_, ldmkit.load(tiny.saved(theirs_, tmp_path_factory.mktemp("base")))


@pytest.fixture(scope="module")
def pair_xl(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ldmkit.Pipeline]:
    theirs_ = made.loud(tiny.stable_diffusion_xl())
    return theirs_, ldmkit.load(tiny.saved(theirs_, tmp_path_factory.mktemp("xl")))


def a1111(text: str, **options: Any) -> dict[str, Any]:
    return {"text": text, "syntax": "a1111", **options}


def state(pipe: ldmkit.Pipeline, prompt: Any, name: str = "text") -> Tensor:
    part = pipe.conditioners[name]
    return part([part.parse(prompt, "text")]).value  # type: ignore[no-any-return]


X = 1.1
WRITTEN: dict[str, Chunks] = {
    "a (cat:1.4) sat": [[("a ", 1), ("cat", 1.4), (" sat", 1)]],
    "a (cat) [dog]": [[("a ", 1), ("cat", X), (" ", 1), ("dog", 1 / X)]],
    "((cat)) (((dog:1.3)))": [[("cat", X**2), ("dog", 1.3 * X**2)]],
    "(a (cat:0.5) b:1.6)": [[("a ", 1.6), ("cat", 0.8), (" b", 1.6)]],
    "[(cat:2)]": [[("cat", 2 / X)]],
    r"a \(cat\) \[dog\] b\\c": [[(r"a (cat) [dog] b\c", 1)]],
    r"(\(cat\):1.5)": [[("(cat)", 1.5)]],
    "a (cat :.5) (dog:+1.25)": [[("a ", 1), ("cat ", 0.5), (" ", 1), ("dog", 1.25)]],
    "(cat:0) dog": [[("cat", 0), ("dog", 1)]],
    "(cat:-0.5) dog": [[("cat", -0.5), ("dog", 1)]],
    "time 10:30, a: b, (c: d)": [[("time 10:30, a: b, ", 1), ("c: d", X)]],
    "the cat BREAK a dog": [[("the cat", 1)], [("a dog", 1)]],
    "(the cat BREAK a dog:1.3) b": [[("the cat", 1.3)], [("a dog", 1.3), (" b", 1)]],
    "BREAK cat": [[], [("cat", 1)]],
    "cat BREAK": [[("cat", 1)]],
    "cat BREAK BREAK dog": [[("cat", 1)], [], [("dog", 1)]],
    "BREAKS": [[("BREAKS", 1)]],
    "()(cat)[]": [[("cat", X)]],
    "": [[]],
}


@pytest.mark.parametrize("text", WRITTEN)
def test_numbers(pair: tuple[Any, ldmkit.Pipeline], text: str) -> None:
    pipe, mine = pair
    want = reference(pipe.text_encoder, pipe.tokenizer, WRITTEN[text])
    assert far(state(mine, a1111(text)), want) < 1e-5


def test_two_text_encoders(pair_xl: tuple[Any, ldmkit.Pipeline]) -> None:
    """Each encoder restores its own mean; the pooled vector is that of the first chunk, without weights."""
    pipe, mine = pair_xl
    chunks: Chunks = [[("the ", 1), ("cat", 1.5)], [("a dog", 0.7)]]
    towers = {"text": (pipe.text_encoder, pipe.tokenizer), "text-2": (pipe.text_encoder_2, pipe.tokenizer_2)}
    embeds = []
    for name, (model, tokenizer) in towers.items():
        embeds.append(reference(model, tokenizer, chunks, last=-2, norm=False))
        assert far(state(mine, a1111("the (cat:1.5) BREAK (a dog:0.7)"), name), embeds[-1]) < 1e-5
    ids = pipe.tokenizer_2("the cat", padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        pooled = pipe.text_encoder_2(ids).text_embeds
    pipe.set_progress_bar_config(disable=True)
    nothing = torch.zeros(1, 154, 64)
    want = pipe(
        prompt_embeds=torch.cat(embeds, dim=2), pooled_prompt_embeds=pooled, negative_prompt_embeds=nothing,
        negative_pooled_prompt_embeds=torch.zeros_like(pooled), latents=START.clone(), output_type="latent", **OPTIONS,
    ).images  # fmt: skip
    inputs = {"text": a1111("the (cat:1.5) BREAK (a dog:0.7)")}
    got = mine(inputs, steps=2, guidance=4.0, seeds=[3], size=32).latents
    assert far(got, want) < 1e-4


def apart(pipe: Any, cond: Tensor, uncond: Tensor) -> Tensor:
    """diffusers' network and scheduler, the two branches one after the other: they may differ in length."""
    pipe.scheduler.set_timesteps(OPTIONS["num_inference_steps"])
    x = START.clone()
    for t in pipe.scheduler.timesteps:
        with torch.no_grad():
            c, u = (pipe.unet(x, t, encoder_hidden_states=one).sample for one in (cond, uncond))
        x = pipe.scheduler.step(u + OPTIONS["guidance_scale"] * (c - u), t, x).prev_sample
    return x


def rows(pipe: Any, text: str) -> Tensor:
    """A text without weights in rows of 75 tokens."""
    tokens = pipe.tokenizer.tokenize(text)
    ids = pipe.tokenizer.convert_tokens_to_ids(tokens)
    start, end, pad = (getattr(pipe.tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad"))
    split = [ids[at : at + 75] for at in range(0, max(1, len(ids)), 75)]
    table = torch.tensor([[start, *row, end] + [pad] * (75 - len(row)) for row in split])
    with torch.no_grad():
        return pipe.text_encoder(table).last_hidden_state.flatten(0, 1)[None]  # type: ignore[no-any-return]


NEGATIVES = ["", "bad, blur", " ".join(["bad"] * 50), LONG]


@pytest.mark.parametrize("negative", NEGATIVES)
def test_long_prompts(pair: tuple[Any, ldmkit.Pipeline], negative: str) -> None:
    """A prompt of six chunks beside negatives of one, two and six; and the other way round."""
    pipe, mine = pair
    long, other = rows(pipe, LONG), rows(pipe, negative)
    assert long.shape[1] == 6 * 77 and other.shape[1] in (77, 2 * 77, 6 * 77)
    for syntax in ("plain", "a1111"):
        first, second = ({"text": text, "syntax": syntax, "long": True} for text in (LONG, negative))
        assert far(ours(mine, first, second), apart(pipe, long, other)) < 1e-4
        assert far(ours(mine, second, first), apart(pipe, other, long)) < 1e-4
    assert far(ours(mine, LONG, negative), apart(pipe, long, other)) > 1e-3


def test_a_batch_does_not_matter(pair: tuple[Any, ldmkit.Pipeline]) -> None:
    """Prompts of one, two and six chunks, with weights and clip skip and without, alone or together."""
    _, mine = pair
    prompts: list[Any] = [
        "a cat", a1111("a (cat:1.5)"), a1111("cat BREAK (dog:1.2)", clip_skip=1), {"text": LONG, "long": True},
    ]  # fmt: skip
    common: dict[str, Any] = {"steps": 2, "guidance": 4.0, "size": 32}
    together = mine([{"text": text} for text in prompts], seeds=[3, 4, 5, 6], **common).latents
    for number, text in enumerate(prompts):
        alone = mine({"text": text}, seeds=[3 + number], **common).latents
        assert far(together[number : number + 1], alone) < 1e-4
    many = [{"inputs": {"text": text}, "seed": 3 + number} for number, text in enumerate(prompts)]
    for number, drawn in enumerate(mine.many(many, batch=3, **common)):
        assert drawn.output is not None
        assert far(drawn.output.latents, together[number : number + 1]) < 1e-4


def test_a_mean_of_nothing_is_not_restored() -> None:
    """The states of a LayerNorm without bias have the mean 0: restoring it would divide rounding by rounding."""
    states = torch.nn.functional.layer_norm(torch.randn(2, 7, 32), (32,))
    weights = torch.ones(2, 7)
    weights[1, 2:4] = 1.4
    got = emphasised(states, weights)
    assert torch.equal(got, states * weights[..., None])
    with pytest.raises(ldmkit.LdmkitError, match="prompt-weight"):
        emphasised(torch.ones(1, 2, 4), torch.tensor([[1.0, -1.0]]))


def test_off_is_bit_equal(pair: tuple[Any, ldmkit.Pipeline], pair_xl: tuple[Any, ldmkit.Pipeline]) -> None:
    for _, mine in (pair, pair_xl):
        for text in ("a cat", "", "a (cat:1.3)"):
            plain = ours(mine, text, "bad")
            for options in ({}, {"syntax": "plain"}, {"clip_skip": 0, "long": False}):
                assert torch.equal(ours(mine, {"text": text, **options}, {"text": "bad", **options}), plain)
        assert torch.equal(ours(mine, a1111("a cat")), ours(mine, "a cat"))
        assert far(ours(mine, a1111("a (cat:1.3)")), ours(mine, "a (cat:1.3)")) > 1e-3


@pytest.mark.parametrize("skip", [0, 1, 2])
def test_clip_skip(pair: tuple[Any, ldmkit.Pipeline], pair_xl: tuple[Any, ldmkit.Pipeline], skip: int) -> None:
    """As diffusers: of the prompt, not of the negative, which may say its own."""
    for pipe, mine in (pair, pair_xl):
        want = theirs(pipe, "the cat", "bad", clip_skip=skip)
        assert far(ours(mine, {"text": "the cat", "clip_skip": skip}, "bad"), want) < 1e-4
        if skip:
            assert far(ours(mine, "the cat", "bad"), want) > 1e-3
    pipe, mine = pair
    for number, text in enumerate(("the cat", "bad")):
        both = reference(pipe.text_encoder, pipe.tokenizer, [[(text, 1)]], skip=skip)
        assert far(state(mine, {"text": text, "clip_skip": skip}), both) < 1e-5, number


def test_plans(pair: tuple[Any, ldmkit.Pipeline]) -> None:
    """Rows of other lengths, which are masked, in a network that is called in another way."""
    _, mine = pair
    text = a1111("the (cat:1.4) BREAK a dog")
    assert far(ours(mine.planned("prepacked"), text, "bad"), ours(mine, text, "bad")) < 1e-4
    assert torch.equal(ours(mine.placed("low-memory"), text, "bad"), ours(mine, text, "bad"))


def test_readers_of_words_alone() -> None:
    assert as_plain(WrittenPrompt.of(a1111(r"a (red:1.3) house BREAK [\(lake\)]"))) == "a  red  house (lake)"
    assert as_plain("a (red:1.3) house") == "a (red:1.3) house"


def test_learnt_words_with_weights(pair: tuple[Any, ldmkit.Pipeline], tmp_path: Path) -> None:
    """Each vector has the weight, and all of them stay in one chunk."""
    pipe, mine = pair
    taught = mine.with_embedding(made.torch_file(tmp_path, made.a1111(vectors(4))))
    text = taught.conditioners["text"]
    first = text.vocabulary.pieces("<cat>")[0]  # type: ignore[attr-defined]
    assert len(first) == 4
    chunk = text.chunks(text.parse(a1111("a (<CAT>:1.3) b"), ""))[0]  # type: ignore[attr-defined]
    assert chunk.weights == [1.0, 1.0, 1.3, 1.3, 1.3, 1.3, 1.0, 1.0] and tuple(chunk.ids[2:6]) == first
    long = "a " * 73 + "(<cat>:1.3) b"
    found = text.chunks(text.parse(a1111(long), ""))  # type: ignore[attr-defined]
    assert [len(one.ids) for one in found] == [75, 7] and tuple(found[1].ids[1:5]) == first
    theirs_: Any = tiny.diffusers.DiffusionPipeline.from_pretrained(tiny.saved(pipe, tmp_path / "base"))
    theirs_.load_textual_inversion(vectors(4), token="<cat>")
    written = theirs_.maybe_convert_prompt("<cat>", theirs_.tokenizer)
    want = reference(theirs_.text_encoder, theirs_.tokenizer, [[("a ", 1), (written, 1.3), (" b", 1)]])
    assert far(state(taught, a1111("a (<cat>:1.3) b")), want) < 1e-5
