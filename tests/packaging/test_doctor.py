"""What the doctor does in its processes, called directly: hooks, commands, bundled models, imports that meddle."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ldmkit
from ldmkit.plugins import catalogue
from ldmkit.plugins.doctor.child import look
from ldmkit.plugins.doctor.faults import LONGEST, Seen, fault, faults_of_metadata
from ldmkit.plugins.doctor.supervisor import Limits, examine

Install = Callable[..., Path]

HOOK = "import ldmkit\n@ldmkit.hookimpl\ndef "
HOOKS = {
    "fine": (HOOK + "ldmkit_step(step): ...", None, ""),
    "reader": (HOOK + "ldmkit_identify_checkpoint(path): return None", None, ""),
    "raising-built": (HOOK + "ldmkit_pipeline_built(pipeline): raise SystemExit(1)", "hook-raised", "SystemExit"),
    "raising-step": (HOOK + "ldmkit_step(step): raise OSError('no luck')", "hook-raised", "no luck"),
    "raising-reader": (HOOK + "ldmkit_identify_checkpoint(path): raise OSError('no luck')", "hook-raised", "no luck"),
    "claiming": (HOOK + "ldmkit_identify_checkpoint(path): return 3", "greedy-reader", "unknown format: 3"),
    "refusing": (
        HOOK + "ldmkit_identify_checkpoint(path):\n    raise ldmkit.SourceError('mine', 'it is damaged')",
        "greedy-reader", "it is damaged",
    ),
    "writing": (
        HOOK + "ldmkit_pipeline_built(pipeline):\n    [p.data.add_(1) for p in pipeline.denoiser.parameters()]",
        *("changes-result", "the result of a run changes"),
    ),
    "writing to its copy of a step": (HOOK + "ldmkit_step(step): step.x.add_(1)", None, ""),
    "unknown": (HOOK + "ldmkit_stop(step): ...", "bad-hook", "ldmkit_stop"),
    "arguments": (HOOK + "ldmkit_step(step, other): ...", "bad-hook", "other"),
    "wrapper": (HOOK.replace("impl", "impl(wrapper=True)") + "ldmkit_step(step):\n    yield", "bad-hook", "wrapper"),
}  # fmt: skip


def entry_of(dist: str) -> catalogue.Entry:
    return next(entry for entry in catalogue.catalogue() if entry.dist == dist)


def looked_at(dist: str, run: bool = True) -> dict[str, Any]:
    """The last message about the one entry of a distribution."""
    messages = list(look(entry_of(dist), run, 60.0))
    assert [message["done"] for message in messages] in ([True], [False, True])
    return messages[-1]


@pytest.mark.parametrize("name", HOOKS)
def test_hooks_are_rehearsed(install: Install, name: str) -> None:
    source, code, words = HOOKS[name]
    install("some-hooks", "[ldmkit]\nsome = some_hooks\n", {"some_hooks": source})
    before = dict(os.environ)
    message = looked_at("some-hooks")
    assert [found[0] for found in message["faults"]] == ([] if code is None else [code])
    assert all(words in found[2] and found[3] for found in message["faults"])
    assert dict(os.environ) == before


def test_other_hooks_are_not_called_in_a_rehearsal(install: Install) -> None:
    install("other-hooks", "[ldmkit]\nother = other_hooks\n", {"other_hooks": "raise OSError"})
    install("some-hooks", "[ldmkit]\nsome = some_hooks\n", {"some_hooks": HOOKS["fine"][0]})
    assert looked_at("some-hooks")["checks"] == 3


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("import typer\napp = typer.Typer()\n@app.command()\ndef run(count: int = 1): ...\n", None),
        ("import typer\napp = typer.Typer()", "not-a-command"),
        ("def app(): ...", "not-a-command"),
    ],
    ids=["fine", "empty", "function"],
)
def test_commands_are_built(install: Install, source: str, code: str | None) -> None:
    install("some-command", "[ldmkit.commands]\nsome = some_command:app\n", {"some_command": source})
    assert [found[0] for found in looked_at("some-command")["faults"]] == ([] if code is None else [code])


def test_bundled_models_are_composed(install: Install, class_pipe: ldmkit.Pipeline) -> None:
    site = install("some-models", "[ldmkit.models]\nsome = doctored_models:model\n")
    (site / "doctored_models").mkdir()
    (site / "doctored_models" / "__init__.py").write_text("")
    [absent] = looked_at("some-models")["faults"]
    assert absent[0] == "bad-model" and "pipeline.json" in absent[2]
    class_pipe.save(site / "doctored_models" / "model")
    (site / "doctored_models" / "model" / "denoiser.safetensors").unlink()
    message = looked_at("some-models")
    assert message["checks"] == 1 and not message["faults"], "weights are not read"
    sys.modules.pop("doctored_models")


def test_meddling_is_a_fault(install: Install) -> None:
    source = "import torch\ntorch.set_default_dtype(torch.float64)\nimport typer\napp = typer.Typer()"
    install("some-command", "[ldmkit.commands]\nsome = some_command:app\n", {"some_command": source})
    [found] = looked_at("some-command", run=False)["faults"]
    assert found[0] == "changes-defaults" and "torch.float64" in found[2]


def test_one_that_ends_its_process_leaves_the_others(install: Install) -> None:
    """Of one distribution: what comes after it is looked at by another process."""
    names = ("first", "exits", "killed", "last")
    points = "[ldmkit.samplers]\n" + "".join(f"{i}-{name} = {name}_part:Part\n" for i, name in enumerate(names))
    good = "import ldmkit\nclass Part(ldmkit.Sampler):\n    'Nothing.'\n    def steps(self, *a): ..."
    kill = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    files = {"first_part": good, "exits_part": "import os\nos._exit(0)", "killed_part": kill, "last_part": good}
    install("some-parts", points, files)
    entries = [entry for entry in catalogue.catalogue() if entry.dist == "some-parts"]
    seen: list[Seen] = list(examine(entries, False, Limits()))
    assert [one.entry for one in seen] == entries
    assert [[found.code for found in one.faults] for one in seen] == [[], ["died"], ["died"], []]
    assert "exit code 0" in seen[1].faults[0].cause and "SIGKILL" in seen[2].faults[0].cause


def test_causes_are_short_and_fit_a_terminal(install: Install) -> None:
    install("some-hooks", "[ldmkit]\nsome = some_hooks\n")
    one = fault(entry_of("some-hooks"), "died", "failed", "a\n\x1b[31m" + "b" * 2000)
    assert one.cause.startswith("a \\x1b[31mbbb") and len(one.cause) == LONGEST and one.remedy


def test_a_clash_is_told_of_each_side(install: Install) -> None:
    for name in ("one-lib", "two-lib"):
        install(name, "[ldmkit.samplers]\nsame = no_module:Same\nddim = no_module:Same\n")
    found = {(one.distribution, one.part): one for one in faults_of_metadata() if one.code == "name-clash"}
    assert len(found) == 4 and "two-lib 1.0 uses the same name" in found["one-lib", "sampler:same"].cause
    assert found["two-lib", "sampler:ddim"].remedy == "use 'two-lib:ddim' for this one"
    assert [one.distribution for one in faults_of_metadata(["two-lib"])] == ["two-lib"] * 2
