"""Hooks of other distributions: called, and guarded against when they are wrong or raise."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_parts
import torch

import ldmkit
from ldmkit.cli import main
from ldmkit.models.reading import open_source
from ldmkit.plugins import catalogue
from ldmkit.plugins.hooks import manager, raised

Install = Callable[..., Path]

HOOKS = """
    import ldmkit

    built, seen = [], []


    @ldmkit.hookimpl
    def ldmkit_pipeline_built(pipeline):
        built.append(pipeline)


    @ldmkit.hookimpl
    def ldmkit_step(pipeline, step):
        seen.append((pipeline, step.index))
"""


def test_hooks_are_called(install: Install) -> None:
    install("listener", "[ldmkit]\nlistener = listening:\n", {"listening": HOOKS})
    pipe = tiny_parts.class_pipeline()
    import listening

    assert listening.built == [pipe]
    pipe({"label": 1}, steps=3)
    assert listening.seen == [(pipe, 0), (pipe, 1), (pipe, 2)]


@pytest.mark.parametrize(
    "source",
    [
        "raise RuntimeError('no luck')",
        "import ldmkit\nraise ldmkit.InputError('x', 'no luck')",
        "import ldmkit\n@ldmkit.hookimpl\ndef ldmkit_step(pipeline, step, wrong):  # no luck\n    raise AssertionError",
        "import ldmkit\n@ldmkit.hookimpl\ndef ldmkit_of_the_future(a):  # no luck\n    raise AssertionError",
        "import ldmkit\n@ldmkit.hookimpl(wrapper=True)\ndef ldmkit_step(step):  # no luck\n    yield",
    ],
)
def test_a_broken_hook_plugin_is_isolated(install: Install, source: str, capsys: pytest.CaptureFixture) -> None:
    install("broken-hooks", "[ldmkit]\nbroken = broken_hooks\n", {"broken_hooks": source})
    install("listener", "[ldmkit]\nlistener = listening\n", {"listening": HOOKS})
    pipe = tiny_parts.class_pipeline()
    import listening

    pipe({"label": 1}, steps=2)
    assert len(listening.built) == 1 and len(listening.seen) == 2
    assert not manager().has_plugin("broken-hooks:broken")
    main(["plugins", "--kind", "hooks", "--json"])
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["broken"]["status"] == "failed" and rows["broken"]["reason"]
    assert rows["listener"]["status"] == rows["checkpoints"]["status"] == "ok"


RAISING = """
    import ldmkit


    @ldmkit.hookimpl
    def ldmkit_pipeline_built(pipeline):
        raise SystemExit("built")


    @ldmkit.hookimpl
    def ldmkit_step(pipeline, step):
        raise RuntimeError(f"step {step.index}")
"""


def test_a_raising_hook_stops_no_run(install: Install) -> None:
    """Named in one warning a run, counted, left out for the rest of that run; others are called."""
    install("raising", "[ldmkit]\nraising = raising_hooks\n", {"raising_hooks": RAISING})
    install("listener", "[ldmkit]\nlistener = listening\n", {"listening": HOOKS})
    with pytest.warns(UserWarning, match=r"hook 'raising' of raising 1.0: ldmkit_pipeline_built raised SystemExit"):
        pipe = tiny_parts.class_pipeline()
    quiet = tiny_parts.class_pipeline  # the same weights: what a run gives does not depend on its listeners
    for number, times in enumerate(("once", "2 times"), 1):
        with pytest.warns(UserWarning) as seen:
            out = pipe({"label": 1}, steps=3, grid="karras")  # begins at the largest level: nothing else to warn of
        assert [str(w.message).partition("; ")[0] for w in seen] == [
            f"hook 'raising' of raising 1.0: ldmkit_step raised RuntimeError ({times}): step 0"
        ]
        import listening

        assert len(listening.seen) == 3 * number
    entry = next(e for e in catalogue.catalogue() if e.name == "raising")
    assert catalogue.verdict(entry).status == "failed" and "2 times" in catalogue.verdict(entry).reason
    assert raised(entry) == 3
    catalogue.refresh()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LDMKIT_SAFE_MODE", "1")
        assert torch.equal(quiet()({"label": 1}, steps=3, grid="karras").latents, out.latents)


@pytest.mark.parametrize("interrupt", ["KeyboardInterrupt", "GeneratorExit"])
def test_an_interrupt_passes_a_hook(install: Install, interrupt: str) -> None:
    source = f"import ldmkit\n@ldmkit.hookimpl\ndef ldmkit_step(step):\n    raise {interrupt}"
    install("raising", "[ldmkit]\nraising = raising_hooks\n", {"raising_hooks": source})
    pipe = tiny_parts.class_pipeline()
    with pytest.raises((KeyboardInterrupt, GeneratorExit)):
        pipe({"label": 1}, steps=2)


READER = """
    import ldmkit


    @ldmkit.hookimpl(tryfirst=True)
    def ldmkit_identify_checkpoint(path):
        raise {error}
"""


def test_a_raising_reader_is_passed_over(install: Install, tmp_path: Path) -> None:
    install("reader", "[ldmkit]\nreader = reading\n", {"reading": READER.format(error="OSError('no luck')")})
    with (
        pytest.warns(UserWarning, match="hook 'reader'.*OSError"),
        pytest.raises(ldmkit.SourceError, match="no reader recognises"),
    ):
        ldmkit.load(tmp_path)


KNOWING = """
    import ldmkit

    class Known(ldmkit.Source):
        {flag}
        spec = None

        def tensors(self, part):
            return {{}}

    @ldmkit.hookimpl(tryfirst=True)
    def ldmkit_identify_checkpoint({arguments}):
        return Known(str({answer}))
"""


@pytest.mark.parametrize("knows", [True, False])
def test_a_reader_that_was_written_before_variants(install: Install, tmp_path: Path, knows: bool) -> None:
    words = {"flag": "has_variants = True", "arguments": "path, config, ema, variant", "answer": "variant"}
    older = {"flag": "", "arguments": "path, config, ema", "answer": "path"}
    install("reader", "[ldmkit]\nreader = reading\n", {"reading": KNOWING.format(**(words if knows else older))})
    assert isinstance(open_source(tmp_path), ldmkit.Source)
    if knows:
        assert open_source(tmp_path, variant="fp16").origin == str(tmp_path)
        return
    with pytest.raises(ldmkit.InputError, match=r"no-variants.*'fp16'"):
        open_source(tmp_path, variant="fp16")


def test_a_reader_may_refuse_a_file(install: Install, tmp_path: Path) -> None:
    error = "ldmkit.SourceError('truncated', 'half of it')"
    install("reader", "[ldmkit]\nreader = reading\n", {"reading": READER.format(error=error)})
    with pytest.raises(ldmkit.SourceError, match="half of it"):
        ldmkit.load(tmp_path)


def test_a_crash_of_our_own_reader_is_not_blamed_on_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ldmkit_checkpoints.compvis.checkpoint

    def crash(*args: object, **options: object) -> None:
        raise KeyError("a key that is not there\x1b[31m")

    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(1)}}, path)
    monkeypatch.setattr(ldmkit_checkpoints.compvis.checkpoint, "open_compvis", crash)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ldmkit.SourceError) as caught:
            ldmkit.load(path)
    said = str(caught.value)
    assert caught.value.code == "source.reader-crashed" and isinstance(caught.value.__cause__, KeyError)
    assert all(word in said for word in ("model.ckpt", "ldmkit's reader", "KeyError", "damaged", ldmkit.__version__))
    assert "hook" not in said and "plugin" not in said and "\x1b" not in said
