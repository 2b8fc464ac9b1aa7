"""Run in an environment with the second frozen distribution installed: each ability in a run, what came as JSON.

python thirdparty_use_v2.py FOLDER
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import thirdparty_use as first
import torch
from thirdparty_use import run, stirred

import ldmkit

DIST = "thirdparty-v2"
WORDS = {"words": "hello"}


def listing(folder: Path) -> dict[str, str]:
    first.DIST = DIST
    return first.listing(folder)


def kit(folder: Path) -> dict[str, str]:
    first.DIST = DIST
    return first.kit(folder)


def frozen(folder: Path) -> dict[str, Any]:
    """The saved model draws what it drew, its picture is drawn again, and its locks are told of."""
    import thirdparty_v2
    from safetensors.torch import load_file

    home = Path(thirdparty_v2.__file__).parent
    expected = load_file(home / "expected.safetensors")
    pipe = ldmkit.load("v2-tiny")
    inputs = [{**WORDS, "shift": 0.5}, {"words": "b", "halves": [0.0, 1.0]}]
    out = pipe(inputs, seeds=[5, 6])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        pipe(WORDS, steps=2)
    alone = pipe(inputs[1], seeds=6)
    return {
        "latents": float((out.latents - expected["latents"]).abs().max() / expected["latents"].abs().max()),
        "images": float((out.images - expected["images"]).abs().max()),
        "alone": float((out.images[1:] - alone.images).abs().max()),
        "replay": json.loads(run("replay", str(home / "drawn.png"), "--json"))["largest_difference"],
        "proposed": sorted(out.recipes[1].get("proposed", {})) + sorted(out.recipes[0].get("proposed", {})),
        "locked": any("steps" in str(one.message) for one in told),
        "saved": sorted(path.name for path in (home / "tiny" / "conditioners").iterdir()),
        "again": torch.equal(ldmkit.load(pipe.save(folder / "tiny"))(inputs, seeds=[5, 6]).latents, out.latents),
    }


def made(codec: str, denoiser: str, config: dict[str, Any] | None = None, **conditioners: Any) -> ldmkit.Pipeline:
    """A pipeline whose layers are not at zero."""
    parts = {name: stirred(part) for name, part in conditioners.items()}
    network = {"variance": True, "map": 1} if denoiser == "v2-ladder" else None
    return ldmkit.Pipeline.of(
        codec=stirred(ldmkit.get("codec", codec)(config)),
        denoiser=stirred(ldmkit.get("denoiser", denoiser)(network)),
        process=ldmkit.get("process", "flow")(),
        conditioners=parts,
        wiring={name: {"slot": name} for name in parts},
        defaults={"steps": 4, "grid": {"type": "karras"}, "guidance": {"type": "cfg", "config": {"scale": 1.0}}},
    )


def part(kind: str, name: str, config: dict[str, Any] | None = None) -> Any:
    return ldmkit.get(kind, name)(config)


def saved(pipe: ldmkit.Pipeline, given: dict[str, Any], folder: Path, **options: Any) -> dict[str, Any]:
    """Drawn, changed by its condition, and the same after a trip through a folder and through its recipe."""
    out, none = pipe(given, seeds=[1, 2], **options), pipe({}, seeds=[1, 2], **options)
    path = pipe.save(folder)
    loaded = ldmkit.load(path)
    again = loaded(given, seeds=[1, 2], **options)
    written = out.save(folder / ("out.png" if out.visual else "out.safetensors"))
    replayed = ldmkit.replay(loaded, ldmkit.read_recipe(written[1]))
    return {
        "shape": list(out.images.shape),
        "listens": not torch.equal(out.latents, none.latents),
        "same": torch.equal(out.latents, again.latents) and torch.equal(out.images, again.images),
        "replayed": close(replayed.latents, out.latents[1:]),
        "written": written[1].suffix,
    }


def ranks(folder: Path) -> dict[str, Any]:
    mood = part("conditioner", "v2-mood", {"dim": 3})
    vectors = made("v2-embedding", "v2-prior", mood=mood)
    videos = made("v2-causal", "v2-cube", mood=part("conditioner", "v2-mood", {"dim": 3}))
    return {
        "vector": saved(vectors, {"mood": "ab"}, folder / "vector", sampler="ddim"),
        "video": saved(videos, {"mood": "ab"}, folder / "video", sampler="dpmpp-2m", size=(5, 8, 8)),
    }


def pictures(**conditioners: Any) -> ldmkit.Pipeline:
    return made("v2-two-step", "v2-ladder", {"channels": 3}, **conditioners)


def drawn(folder: Path) -> dict[str, bool]:
    """The decoder's noise is that of each picture's seed."""
    pipe = pictures(words=part("conditioner", "v2-words"))
    out = pipe(WORDS, seeds=[3, 4], size=(8, 8))
    both = pipe.decode(out.latents.flip(0), seeds=[4, 3])
    same = pipe.decode(out.latents[:1].expand(2, -1, -1, -1), seeds=[3, 4])
    return {"order": torch.equal(both.flip(0), out.images), "seeds": not torch.equal(same[0], same[1])}


def strategies(folder: Path) -> dict[str, Any]:
    pipe = pictures(words=part("conditioner", "v2-words"))
    options: dict[str, Any] = {"seeds": [1], "size": (8, 16), "grid": "v2-sized"}
    plain = pipe(WORDS, sampler="euler", **options)
    renoised = {
        str(scale): [pipe(WORDS, sampler=name, guidance=scale, **options).latents for name in ("euler", "v2-renoise")]
        for scale in (1.0, 2.0)
    }
    small, large = (ldmkit.get("grid", "v2-sized")().at_size(size) for size in ((8, 8), (16, 16)))
    spread = pipe(WORDS, sampler="v2-spread", **options)
    narrow = ldmkit.get("denoiser", "v2-ladder")({"map": 1})
    try:
        pipe.with_(denoiser=stirred(narrow))(WORDS, sampler="v2-spread", **options)
        refused = "drawn"
    except ldmkit.RunError as error:
        refused = error.code
    pushed = {name: pipe(WORDS, guidance={"type": "v2-pushed", "config": config}, sampler="euler", **options).latents
              for name, config in PUSHED.items()}  # fmt: skip
    cached = pipe(WORDS, sampler="euler", cache="v2-alternate", **options)
    return {
        "cfg++": {scale: close(*found) for scale, found in renoised.items()},
        "grid": [small.power, large.power],
        "spread": bool(spread.latents.isfinite().all()) and not close(spread.latents, plain.latents),
        "refused": refused,
        "pushed": {name: close(found, plain.latents) for name, found in pushed.items()},
        "spaces": close(pushed["x0"], pushed["output"]),
        "reused": [cached.evaluations.made, cached.evaluations.reused, close(cached.latents, plain.latents)],
    }


PUSHED: dict[str, dict[str, Any]] = {
    "off": {"scale": 1.0},
    "never": {"start": 1.0, "end": 1.0},
    "x0": {"momentum": 0.0},
    "output": {"momentum": 0.0, "space": "output"},
    "remembered": {"momentum": -0.5},
    "weaker": {"momentum": 0.0, "weaker": 2.0},
}


def adapters(folder: Path) -> dict[str, Any]:
    pipe = pictures(words=part("conditioner", "v2-words"))
    options: dict[str, Any] = {"seeds": [1], "size": (8, 8), "sampler": "euler"}
    plain = pipe(WORDS, **options).latents
    layers = {"linear.query": (8, 8), "linear.key": (6, 8), "conditioners.words.linear.last": (4, 6)}
    rank = pipe.with_adapter("lora", stirred(part("adapter", "v2-low-rank", {"layers": layers})), {})
    loose, fused = rank(WORDS, **options).latents, rank.fused()
    gated = pipe.with_adapter("often", part("adapter", "v2-every-other"), {})(WORDS, **options)
    shift = pipe.with_adapter(
        "shift", stirred(part("adapter", "v2-shift", {"width": 8})), {"level": part("conditioner", "v2-guess")}
    )
    said = {value: shift({**WORDS, "shift": value}, **options).latents for value in (0.0, 1.0)}
    return {
        "fused": close(fused(WORDS, **options).latents, loose) and not close(loose, plain),
        "unfused": torch.equal(fused.unfused()(WORDS, **options).latents, loose),
        "detached": torch.equal(pipe(WORDS, **options).latents, plain),
        "shortened": [gated.evaluations.made, gated.evaluations.shortened, close(gated.latents, plain)],
        "shift": not close(said[0.0], said[1.0]),
        "proposal": "shift" in shift(WORDS, **options).recipes[0]["proposed"],
    }


def known(folder: Path) -> dict[str, Any]:
    """A hole's surroundings are kept, and set the size."""
    pipe = pictures(map=part("conditioner", "v2-around"))
    image = torch.linspace(-1, 1, 3 * 8 * 12).reshape(3, 8, 12)
    mask = (torch.arange(12) >= 6).float().expand(1, 8, 12)
    out = pipe({"map": {"image": image, "mask": mask}}, seeds=[1])
    kept = (image + 1) / 2
    return {"size": list(out.images.shape[2:]), "kept": torch.equal(out.images[0][..., :6], kept[..., :6])}


TRAINED = {"codec": "identity", "denoiser": "v2-ladder", "process": "flow"}


def trained(folder: Path) -> dict[str, Any]:
    """Its stage and a denoiser of its own, two steps each, on its data."""
    base = {"seed": 1, "steps": 2, "ema": None, "previews": None, "tracking": {"to": []}, "validation": None}
    base["data"] = {"train": {"type": "v2-bars", "config": {"count": 8, "size": 8}}, "size": [8, 8], "batch": 4}
    colours = first.train({"stage": "v2-colours", "out": str(folder / "colours"), "width": 4, **base}, folder)
    parts: dict[str, Any] = {
        "codec": {"type": "identity"},
        "denoiser": {"type": "v2-ladder"},
        "process": {"type": "flow"},
    }
    parts["conditioners"] = {"words": {"type": "v2-words"}}
    parts["defaults"] = {"sampler": {"type": "v2-renoise"}, "grid": {"type": "v2-sized"}, "size": [8, 8], "steps": 2}
    recipe = {"stage": "denoiser", "out": str(folder / "denoiser"), "model": parts, "probe": None, **base}
    model = ldmkit.load(first.train(recipe, folder))
    return {
        "stage": sorted(path.name for path in Path(colours).iterdir()),
        "denoiser": bool(model(WORDS).latents.isfinite().all()),
    }


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Up to rounding of float32 through a few evaluations."""
    return float((one - other).abs().max()) <= 1e-4 * float(other.abs().max())


SECTIONS: list[Callable[[Path], Any]] = [
    listing, frozen, ranks, drawn, strategies, adapters, known, trained, kit,
]  # fmt: skip

if __name__ == "__main__":
    torch.set_num_threads(1)
    first.SECTIONS[:] = SECTIONS
    print("RESULT", json.dumps(first.everything(Path(sys.argv[1]).resolve())))
