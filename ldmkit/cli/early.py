"""Checks of a command line before torch is imported, which takes seconds: names, paths, numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ldmkit.cli.words import chosen_guidance, parse_size, parse_strategy, words_of
from ldmkit.contracts.arguments import (
    check_dtype_name,
    check_png,
    check_scale,
    check_seed,
    check_sides,
    check_steps,
)
from ldmkit.contracts.axes import PICTURE, VIDEO
from ldmkit.errors import InputError, suggest
from ldmkit.files.json import check_target, check_writable, read_json
from ldmkit.models.locate import check_config, default_model, locate
from ldmkit.models.spec import SPEC_FILE, check_verify
from ldmkit.plugins.catalogue import find


def check_model(
    model: str | None, config: Path | None = None, dtype: str | None = None, verify: str = "fast"
) -> Path | None:
    """The model's path, or None if it would have to be downloaded.

    Raises:
        SourceError: no such model or config file.
        InputError: invalid dtype or way to verify.
    """
    check_reading(dtype, verify)
    check_config(config)
    named = default_model() if model is None else model
    return None if named.startswith("hf:") else locate(named)[0]


def check_reading(dtype: str | None, verify: str) -> None:
    """Check how weights are to be read.

    Raises:
        InputError: invalid dtype or way to verify.
    """
    check_verify(verify)
    if dtype is not None:
        check_dtype_name(dtype)


def check_suffix(out: Path) -> None:
    """Check that results can be written to a file or folder, as far as possible before the model is known.

    Raises:
        InputError: neither .png nor .safetensors, or the folder does not exist or is not writable.
    """
    if out.is_dir() or not out.suffix:
        check_writable(out if out.is_dir() else out.absolute().parent)
    elif out.suffix.lower() == ".safetensors":
        check_target(out)
    else:
        check_png(out)


def check_call(
    folder: Path | None,
    words: Sequence[str],
    *,
    size: str | None = None,
    strategies: Iterable[tuple[str, str | None]],
    guidance: str | None = None,
    scales: Sequence[str] = (),
    pictures: Mapping[str, Sequence[Path]] | None = None,
) -> None:
    """Check a call as far as possible before its model is loaded.

    Args:
        folder: the model's folder, if known.
        words: the arguments that are not options of the command itself.
        strategies: (kind, name with or without config): sampler, grid.
        pictures: option -> files that will be read.

    Raises:
        InputError, PluginError: as the pipeline would.
    """
    if (sides := parse_size(size)) is not None:
        check_sides(sides, axes=VIDEO if isinstance(sides, tuple) and len(sides) == 3 else PICTURE)
    named_words = list(words_of(words))
    options = [name for name, _ in named_words if name is not None]
    pairs = [word for name, word in named_words if name is None and word is not None]
    chosen = chosen_guidance(guidance, [*scales, *pairs])
    for scale in chosen.values() if isinstance(chosen, dict) and "type" not in chosen else [chosen]:
        if isinstance(scale, float):
            check_scale(scale, "guidance")
    named = guidance if isinstance(chosen, str) or (isinstance(chosen, dict) and "type" in chosen) else None
    for kind, text in (*strategies, ("guidance", named)):
        parsed = parse_strategy(text, f"--{kind}")
        if parsed is not None:
            find(kind, parsed if isinstance(parsed, str) else parsed["type"])
    check_pictures(pictures or {})
    if folder is None or (known := _inputs(folder)) is None:
        return
    for name in options:
        if name not in known:
            what = f"neither the command nor the model {folder.name} has an option --{name}"
            raise InputError("unknown-option", what, fits=suggest(name, known))


def check_pictures(pictures: Mapping[str, Sequence[Path]]) -> None:
    """Check that files exist.

    Args:
        pictures: option, or argument -> files that will be read.

    Raises:
        InputError: `picture-missing`.
    """
    for option, path in ((option, path) for option, paths in pictures.items() for path in paths):
        if not path.exists():
            raise InputError("picture-missing", "no such file", where=f"{option} {str(path)[:200]}".strip())


def check_draws(steps: int | None, seed: int, number: int = 1) -> None:
    """Check the number of steps, and `number` seeds from `seed` on.

    Raises:
        InputError: `steps-range`, `seed-range`.
    """
    if steps is not None:
        check_steps(steps)
    for drawn in (seed, seed + number - 1):
        check_seed(drawn, "seeds[0]" if drawn == seed else f"seeds[{number - 1}]")


def _inputs(folder: Path) -> set[str] | None:
    """Names of a saved pipeline's inputs; None if its spec cannot be read, which loading will report."""
    spec = folder / SPEC_FILE
    data = read_json(spec) if spec.is_file() else None
    wired = data.get("conditioners", {}) if isinstance(data, dict) else None
    if not isinstance(wired, dict) or not all(isinstance(wire, dict) for wire in wired.values()):
        return None
    return {str(wire.get("input") or name) for name, wire in wired.items()}
