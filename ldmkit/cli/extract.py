"""`ldmkit extract`: the hint picture that an extractor makes, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ldmkit.cli.options import Json, Overwrite


def extract(
    extractor: Annotated[str, typer.Argument(help="canny, canny:low=50,high=120; see `ldmkit plugins`.")],
    source: Annotated[str, typer.Argument(help="A picture; keypoints or a map of labels where it takes those.")],
    out: Annotated[Path, typer.Argument(help="PNG to write; .npy for hints with masked pixels.")] = Path("hint.png"),
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write the hint of a picture, as `sample --extract` would make it."""
    from ldmkit.cli.answers import emit
    from ldmkit.cli.words import parse_strategy
    from ldmkit.errors import InputError
    from ldmkit.files.json import check_target, write_new
    from ldmkit.plugins.catalogue import find

    if out.suffix.lower() not in (".png", ".npy"):
        raise InputError("not-png", f"the ending {out.suffix!r} is neither", where=str(out), fits=".png, or .npy")
    check_target(out)
    spelt: Any = parse_strategy(extractor, "EXTRACTOR")
    find("extractor", spelt if isinstance(spelt, str) else spelt["type"])

    from ldmkit.run.extracting import extractor_of, hint_of

    made = extractor_of(spelt)
    hint = hint_of(made, made.parse(type(made).from_text(source), "source"))
    path = write_new(out, lambda place: _write(hint, place, out), overwrite=overwrite)
    height, width = hint.shape[-2:]
    if json:
        emit({"out": str(path), "size": [height, width], "extractor": made.model_dump(mode="json")})
        return
    print(f"{path}: {height} x {width}")


def _write(hint: Any, place: Path, out: Path) -> None:
    """Write a hint to `place`, in the format of `out`.

    Raises:
        InputError: `hint-masked`: a PNG holds no masked pixels.
    """
    import numpy as np

    from ldmkit.errors import InputError
    from ldmkit.files.hints import MASKED
    from ldmkit.files.pictures import to_png_bytes

    if out.suffix.lower() == ".npy":
        with place.open("wb") as file:
            np.save(file, hint.numpy(), allow_pickle=False)
        return
    if bool((hint == MASKED).any()):
        what = "a PNG cannot say that pixels are masked"
        raise InputError("hint-masked", what, where=str(out), fits="an .npy file, which a hint is read from as well")
    place.write_bytes(to_png_bytes((hint + 1) / 2))
