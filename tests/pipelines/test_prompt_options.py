"""How texts are read: from the command line, in recipes, and what is said of texts that are not read so."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import embedding_files as made
import pytest
import tiny_diffusers as tiny
import torch
from ldmkit_conditioners.emphasis import read_emphasis
from ldmkit_conditioners.t5_text import T5Text

import ldmkit
from ldmkit.cli import main
from ldmkit.errors import LdmkitError
from ldmkit.replaying import replay

TEXT, NEGATIVE = "the (cat:1.4) BREAK [dog]", "(bad:1.2)"
CALL: dict[str, Any] = {"steps": 2, "size": 32, "guidance": 4.0, "seeds": [0]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.saved(made.loud(tiny.stable_diffusion()), tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def pipe(folder: Path) -> ldmkit.Pipeline:
    return ldmkit.load(folder)


def sample(folder: Path, out: Path, *words: str) -> int:
    common = ["--steps", "2", "--size", "32", "--guidance", "4", "--out", str(out)]
    return main(["sample", str(folder), *words, *common])


def test_the_options(folder: Path, pipe: ldmkit.Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--syntax and --long are for negatives too; --clip-skip is diffusers', for the text alone."""
    words = ["--text", TEXT, "--negative", f"text={NEGATIVE}", "--syntax", "a1111", "--clip-skip", "1"]
    assert sample(folder, tmp_path / "p.png", *words) == 0
    recipe = ldmkit.read_recipe(tmp_path / "p.png")
    assert recipe["inputs"] == {"text": {"text": TEXT, "syntax": "a1111", "clip_skip": 1}}
    assert recipe["negative"] == {"text": {"text": NEGATIVE, "syntax": "a1111"}}
    drawn = pipe(recipe["inputs"], negative=recipe["negative"], **CALL)
    assert torch.equal(replay(pipe, recipe).images, drawn.images)
    capsys.readouterr()
    assert main(["replay", str(tmp_path / "p.png"), "--model", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["largest_difference"] == 0
    written = json.dumps({"text": NEGATIVE, "clip_skip": 2})
    words = ["--text", TEXT, "--negative", f"text={written}", "--syntax", "a1111"]
    assert sample(folder, tmp_path / "q.png", *words) == 0
    other = ldmkit.read_recipe(tmp_path / "q.png")
    assert other["negative"] == {"text": {"text": NEGATIVE, "syntax": "a1111", "clip_skip": 2}}


def test_lines_of_a_file(folder: Path, tmp_path: Path) -> None:
    lines = [{"text": TEXT}, {"text": {"text": TEXT, "syntax": "plain"}, "negative": {"text": NEGATIVE}}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "a.txt").write_text(f"{TEXT}\ncat")
    for name in ("a.jsonl", "a.txt"):
        words = ["--prompts", str(tmp_path / name), "--syntax", "a1111"]
        assert sample(folder, tmp_path / Path(name).suffix[1:], *words) == 0
    read = [ldmkit.read_recipe(tmp_path / "jsonl" / f"00000{i}.png") for i in range(2)]
    assert read[0]["inputs"] == {"text": {"text": TEXT, "syntax": "a1111"}}
    assert read[1]["inputs"] == {"text": {"text": TEXT}}
    assert read[1]["negative"] == {"text": {"text": NEGATIVE, "syntax": "a1111"}}
    texts = [ldmkit.read_recipe(tmp_path / "txt" / f"00000{i}.png")["inputs"]["text"]["text"] for i in range(2)]
    assert texts == [TEXT, "cat"]


def test_refused_options(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model whose text encoder knows none of it; values that are none; and a bracket that stays open."""
    out = tmp_path / "p.png"
    assert main(["sample", "miniworld", "--text", "a house", "--syntax", "a1111", "--out", str(out)]) != 0
    assert "--syntax" in (error := capsys.readouterr().err) and "CLIP" in error
    for words in (["--syntax", "compel"], ["--clip-skip", "-1"], ["--clip-skip", "x"]):
        assert sample(folder, out, "--text", "a house", *words) != 0
        capsys.readouterr()
    for words, code in ((["--syntax", "a1111"], "prompt-brackets"), (["--clip-skip", "7"], "clip-skip")):
        assert sample(folder, out, "--text", "a (house", *words) != 0
        assert code in capsys.readouterr().err and not out.exists()


REFUSED: dict[str, tuple[Any, str]] = {
    "open": ({"text": "a (b", "syntax": "a1111"}, r"prompt-brackets.*'\(' at character 2"),
    "closing": ({"text": "a) b", "syntax": "a1111"}, r"prompt-brackets.*'\)' at character 1"),
    "crossed": ({"text": "([a)]", "syntax": "a1111"}, "prompt-brackets.*at character 3"),
    "deep": ({"text": "([" * 40 + "a" + "])" * 40, "syntax": "a1111"}, "prompt-brackets.*50 deep"),
    "NaN": ({"text": "(a:nan)", "syntax": "a1111"}, "prompt-weight.*'nan'"),
    "infinite": ({"text": "(a:-inf)", "syntax": "a1111"}, "prompt-weight.*'-inf'"),
    "a power": ({"text": "(a:1e3)", "syntax": "a1111"}, "prompt-weight.*'1e3'"),
    "a comma": ({"text": "(a:1,3)", "syntax": "a1111"}, "prompt-weight.*'1,3'"),
    "two points": ({"text": "(a:1.2.3)", "syntax": "a1111"}, "prompt-weight"),
    "no weight": ({"text": "(a:)", "syntax": "a1111"}, "prompt-weight.*''"),
    "huge": ({"text": "(a:11)", "syntax": "a1111"}, "prompt-weight.*-10 to 10"),
    "huge together": ({"text": "((a:5):5)", "syntax": "a1111"}, "prompt-weight.*of 25"),
    "a time": ({"text": "(at 10:30)", "syntax": "a1111"}, "prompt-weight.*of 30"),
    "scheduled": ({"text": "a [red:blue:0.5] cat", "syntax": "a1111"}, "prompt-schedule"),
    "added": ({"text": "a [red:10] cat", "syntax": "a1111"}, "prompt-schedule"),
    "alternating": ({"text": "a [red|blue] cat", "syntax": "a1111"}, "prompt-schedule"),
    "too long": ({"text": "a " * 5000, "long": True}, "prompt-too-long.*64"),
    "ids": ({"text": [53, 1, 54], "syntax": "a1111"}, "prompt-type.*ids"),
    "long ids": ({"text": [53, 1, 54], "long": True}, "prompt-type.*ids"),
    "a field": ({"text": "a", "clipskip": 1}, "unknown-key.*clip_skip"),
    "a syntax": ({"text": "a", "syntax": "compel"}, "text.syntax"),
    "no text": ({"syntax": "a1111"}, "missing-key"),
    "half a layer": ({"text": "a", "clip_skip": 0.5}, "clip_skip"),
    "before the first": ({"text": "a", "clip_skip": -1}, "clip_skip"),
    "beyond the first": ({"text": "a", "clip_skip": 4}, "clip-skip.*runs 3"),
    "yes": ({"text": "a", "long": "yes"}, "long"),
    "NUL": ({"text": "a\0"}, "prompt-nul"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_prompts(pipe: ldmkit.Pipeline, case: str) -> None:
    raw, says = REFUSED[case]
    for inputs, negative, where in (({"text": raw}, {}, "inputs.text"), ({"text": ""}, {"text": raw}, "negative.text")):
        with pytest.raises(LdmkitError, match=rf"(?s){says}") as caught:
            pipe.prepare(inputs, negative=negative, **CALL)
        assert (caught.value.where or "").startswith(where)


def test_hostile_texts_take_no_time() -> None:
    """A hundred thousand brackets, side by side, nested and unclosed: a second in all, as they are looked at once."""
    for text in ("()" * 50_000, "[a]" * 30_000, "(a:1.1)" * 15_000, "\\(" * 50_000):
        assert len(read_emphasis(text)) <= 1
    for text in ("(" * 100_000, "((a)" * 25_000, ")" * 100_000, "[" * 20 + "a" * 99_980):
        with pytest.raises(LdmkitError, match="prompt-brackets"):
            read_emphasis(text)


def test_what_turns_it_on_is_said(pipe: ldmkit.Pipeline) -> None:
    for text in ("a (red:1.4) house", "((red))", "a [red] house", "red BREAK house"):
        with pytest.warns(UserWarning, match="here it is plain text .--syntax a1111"):
            pipe.prepare({"text": text}, **CALL)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*in other programs.*")
            pipe.prepare({"text": {"text": text, "syntax": "a1111"}}, **CALL)
    with pytest.warns(UserWarning, match="loads a network in other programs"):
        pipe.prepare({"text": {"text": "(a:1.2) <lora:x:1>", "syntax": "a1111"}}, **CALL)
    with pytest.warns(UserWarning, match=r"here it is plain text$"):
        ldmkit.load("miniworld").prepare({"text": "a (red:1.4) house"})
    with pytest.warns(UserWarning, match="75 fit; cut.*--long"):
        pipe.prepare({"text": "a " * 90}, **CALL)
    with pytest.warns(UserWarning, match="1 of its 2 chunks are cut"):
        pipe.prepare({"text": {"text": "a BREAK b", "syntax": "a1111", "long": False}}, **CALL)


def test_an_encoder_that_reads_the_same_text_and_knows_no_weights() -> None:
    part = T5Text(T5Text.examples[0].config)
    given = ldmkit.load("miniworld").conditioners["text"]
    for one in (part, given):
        with pytest.raises(LdmkitError, match="prompt-type"):
            one.parse({"text": "a"}, "inputs.text")
