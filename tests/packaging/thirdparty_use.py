"""Run in an environment with the frozen distribution installed: everything it is for. Prints what came, as JSON.

python thirdparty_use.py FOLDER
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import ldmkit
from ldmkit.cli import main
from ldmkit.models.saving import save_part
from ldmkit.plugins.catalogue import catalogue, load_entry, verdict
from ldmkit.plugins.kinds import GROUPS

DIST = "thirdparty-v1"
INPUTS = [{"palette": ["#ff0000", "#0000ff"], "tint": [0.0, 1.0]}, {"palette": ["#00ff00"], "tint": [1.0, 0.25]}]
RED = {"palette": ["#ff0000"]}
UNET = {"channels": 4, "widths": [8], "blocks": 1, "norm_groups": 4, "heads": 2}
UNET |= {"attention": ["cross"], "context_dim": 8}


def seeded(folder: Path) -> ldmkit.Pipeline:
    """A pipeline of the distribution's own parts, by its own reader."""
    path = folder / "a.v1seed"
    path.write_text('{"seed": 4}')
    return ldmkit.load(path)


def stirred(part: Any) -> Any:
    """No layer at zero, as after training."""
    for i, parameter in enumerate(part.parameters()):
        parameter.data = 0.2 * ldmkit.Noise([7], parameter.shape)(i)[0]
    return part.eval().requires_grad_(False)


def listing(folder: Path) -> dict[str, str]:
    found = {}
    for entry in catalogue():
        if entry.dist == DIST:
            if entry.kind != "model":
                load_entry(entry)
            found[f"{entry.kind}:{entry.name}"] = verdict(entry).status
    return found


def own_parts(folder: Path) -> dict[str, Any]:
    pipe = seeded(folder)
    out = pipe(RED, seeds=[0, 1], steps=3)
    again = ldmkit.load(pipe.save(folder / "own"))(RED, seeds=[0, 1], steps=3)
    other = pipe({"palette": ["#0000ff"]}, seeds=[0, 1], steps=3)
    return {
        "finite": bool(out.latents.isfinite().all()),
        "shape": list(out.images.shape),
        "same": torch.equal(out.latents, again.latents),
        "listens": not torch.equal(out.latents, other.latents),
        "from": sorted({part.distribution or "?" for part in (pipe.spec.codec, pipe.spec.denoiser, pipe.spec.process)}),
    }


def frozen(folder: Path) -> dict[str, Any]:
    import thirdparty_v1
    from safetensors.torch import load_file

    home = Path(thirdparty_v1.__file__).parent
    expected = load_file(home / "expected.safetensors")["latents"]
    found = ldmkit.load("v1-tiny")(INPUTS, seeds=[5, 6], steps=4).latents
    said = run("replay", str(home / "drawn.png"), "--json")
    off = float((found - expected).abs().max() / expected.abs().max())
    return {"off": off, "replay": json.loads(said)["largest_difference"]}


def mixed(folder: Path) -> dict[str, bool]:
    """Our parts with theirs, each way round: the conditions must change what is drawn, and the result be finite."""
    codec, palette = ldmkit.get("codec", "v1-fold"), ldmkit.get("conditioner", "v1-palette")
    process, theirs = ldmkit.get("process", "v1-angle")(), ldmkit.get("denoiser", "v1-mixer")
    ours = stirred(ldmkit.get("denoiser", "unet")(UNET))
    discrete = ldmkit.get("process", "discrete")()
    label = ldmkit.get("conditioner", "label")({"n_classes": 3, "dim": 8, "null_class": 2})
    tint = stirred(ldmkit.get("adapter", "v1-tint")({"width": 8}))
    halves = ldmkit.get("conditioner", "v1-halves")()

    def pipeline(denoiser: Any, process: Any, **conditioners: Any) -> ldmkit.Pipeline:
        parts = {name: stirred(part) for name, part in conditioners.items()}
        size = {"size": (8, 8), "steps": 3}
        first = stirred(codec())
        return ldmkit.Pipeline.of(codec=first, denoiser=denoiser, process=process, conditioners=parts, defaults=size)

    def draws(pipe: ldmkit.Pipeline, given: dict[str, Any], **options: Any) -> bool:
        one, none = pipe(given, **options).latents, pipe({}, **options).latents
        return bool(one.isfinite().all()) and not torch.equal(one, none)

    in_tree = pipeline(ours, discrete, palette=palette())
    theirs_too = pipeline(stirred(theirs()), process, label=label)
    tinted = in_tree.with_adapter("tint", tint, {"map": halves})
    light, dark = ({**RED, "tint": [value, value]} for value in (1.0, 0.0))
    return {
        "conditioner in a U-Net": draws(in_tree, RED, sampler="ddim"),
        "sampler, grid and guidance on a U-Net": draws(
            in_tree, RED, sampler="v1-midpoint", grid="v1-arc", guidance={"type": "v1-blend", "config": {"scale": 2}}
        ),
        "denoiser with a label, dpmpp-2m, karras and cfg": draws(
            theirs_too, {"label": 1}, sampler="dpmpp-2m", grid="karras", guidance=2.0
        ),
        "adapter on a U-Net": not torch.equal(tinted(light).latents, tinted(dark).latents),
        "adapter detached": torch.equal(in_tree(RED).latents, pipeline(ours, discrete, palette=palette())(RED).latents),
    }


def trained(folder: Path) -> bool:
    """Both stages, two steps each, on its data, with its distance; the codec of the one is that of the other."""
    base = {"seed": 1, "steps": 2, "ema": None, "previews": None, "tracking": {"to": []}, "validation": None}
    base["data"] = {"train": {"type": "v1-stripes", "config": {"count": 8, "size": 8}}, "size": [8, 8], "batch": 4}
    codec = {"stage": "codec", "out": str(folder / "codec-run"), "model": {"type": "v1-fold"}, **base}
    codec["objective"] = {"perceptual": {"type": "v1-edges"}, "statistics": "none"}
    parts = {"codec": {"from": train(codec, folder)}, "denoiser": {"type": "v1-mixer"}, "process": {"type": "v1-angle"}}
    parts["conditioners"] = {"palette": {"type": "v1-palette"}}
    parts["defaults"] = {"sampler": {"type": "v1-midpoint"}, "grid": {"type": "v1-arc"}, "size": [8, 8], "steps": 2}
    model = train(
        {"stage": "denoiser", "out": str(folder / "denoiser-run"), "model": parts, "probe": None, **base}, folder
    )
    return bool(ldmkit.load(model)(RED).latents.isfinite().all())


def train(recipe: dict[str, Any], folder: Path) -> str:
    """The folder of the model that a recipe gives."""
    path = folder / f"{recipe['stage']}.yaml"
    path.write_text(json.dumps(recipe))  # JSON is YAML
    return str(json.loads(run("train", str(path), "--json"))["model"])


def judged(folder: Path) -> dict[str, Any]:
    """Its classifier, saved and loaded, guides a run by name."""
    judge = stirred(ldmkit.get("classifier", "v1-judge")())
    where = save_part("classifier", judge, folder / "judge")
    pipe = seeded(folder)
    drawn = {}
    for label in ("dark", "light"):
        guidance = {"type": "classifier", "config": {"model": str(where), "labels": [label], "scale": 2.0}}
        drawn[label] = pipe(RED, steps=3, guidance=guidance).latents
    return {"moved": not torch.equal(drawn["dark"], drawn["light"]), "names": ldmkit.load_classifier(where).names}


def commands(folder: Path) -> str:
    return run("v1-count", "codec")


def hooks(folder: Path) -> dict[str, int]:
    from thirdparty_v1.hooks import COUNTS

    before = dict(COUNTS)
    seeded(folder)(RED, steps=2)
    return {name: COUNTS[name] - before.get(name, 0) for name in ("pipelines", "steps")}


def kit(folder: Path) -> dict[str, str]:
    """What the contract kit finds against each part: nothing."""
    from ldmkit.testing import check

    found = {}
    for entry in catalogue():
        if entry.dist == DIST and entry.kind in GROUPS:
            reports = check(entry)
            failures = [str(outcome) for report in reports for outcome in report.failures]
            found[f"{entry.kind}:{entry.name}"] = "\n".join(failures) if reports else "nothing was checked"
    return found


def run(*words: str) -> str:
    """What a command prints; it must end well."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        code = main(list(words))
    assert code == 0, f"ldmkit {' '.join(words)} ended with {code}: {text.getvalue()}"
    return text.getvalue()


SECTIONS: list[Callable[[Path], Any]] = [
    listing, own_parts, frozen, mixed, trained, judged, commands, hooks, kit,
]  # fmt: skip


def everything(folder: Path) -> dict[str, Any]:
    """Section -> what it found, or the traceback of its failure."""
    found: dict[str, Any] = {"ldmkit": ldmkit.__file__}
    for section in SECTIONS:
        try:
            found[section.__name__] = section(folder)
        except Exception:
            found[section.__name__] = traceback.format_exc()
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    result = everything(Path(sys.argv[1]))
    print("RESULT", json.dumps(result))
