"""`ldmkit encode` and `ldmkit decode`: pictures to latents and back through a model's codec."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ldmkit.cli.options import Config, Device, Dtype, Ema, Json, Model, Overwrite, Scale, Variant, Verify, Yes


def encode(
    model: Model,
    picture: Annotated[Path, typer.Argument(help="Picture to encode.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Safetensors file to write.")] = Path("latents.safetensors"),
    overwrite: Overwrite = False,
    yes: Yes = False,
    config: Config = None,
    ema: Ema = None,
    variant: Variant = None,
    device: Device = None,
    dtype: Dtype = None,
    verify: Verify = "fast",
    scale: Scale = None,
    json: Json = False,
) -> None:
    """Encode a picture; sizes that do not fit the codec are padded, and the original size is stored as well."""
    from ldmkit.cli.answers import emit
    from ldmkit.cli.early import check_model, check_pictures
    from ldmkit.errors import InputError
    from ldmkit.files.json import check_target, write_new

    check_target(out)
    check_model(model, config, dtype, verify)
    check_pictures({"": [picture]})

    from ldmkit.files.pictures import read_picture
    from ldmkit.loading import load_codec
    from ldmkit.models.weights import write_safetensors
    from ldmkit.run.latent_files import about_codec
    from ldmkit.run.latents import check_codec, encode_pictures
    from ldmkit.run.sizes import fitted

    codec = load_codec(
        model, config=config, ema=ema, variant=variant, device=device, dtype=dtype, scale=scale, verify=verify
    )
    if len(codec.axes) != 2:
        what = f"a picture, for a codec of {len(codec.axes)} axes"
        raise InputError("start-rank", what, where=str(picture), fits="Pipeline.encode with a tensor")
    image = read_picture(picture, str(picture)).unsqueeze(0)
    check_codec(codec, 1, (image.shape[-2], image.shape[-1]), "encode", yes)
    latents = encode_pictures(codec, fitted(image, codec))
    size = [int(side) for side in image.shape[-2:]]
    about = {"height": str(size[0]), "width": str(size[1]), **about_codec(codec)}
    out = write_new(out, lambda path: write_safetensors(path, {"latents": latents}, about), overwrite=overwrite)
    stats = {"out": str(out), "shape": list(latents.shape), "mean": float(latents.mean()), "std": float(latents.std())}
    if json:
        emit(stats)
        return
    print(f"{out}: latents {stats['shape']}, mean {stats['mean']:.3f}, std {stats['std']:.3f}")


def decode(
    model: Model,
    latents: Annotated[Path, typer.Argument(help="Safetensors file written by `ldmkit encode`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG to write.")] = Path("decoded.png"),
    seed: Annotated[int, typer.Option(help="Seed of the picture, for decoders that draw noise.")] = 0,
    overwrite: Overwrite = False,
    yes: Yes = False,
    config: Config = None,
    ema: Ema = None,
    variant: Variant = None,
    device: Device = None,
    dtype: Dtype = None,
    verify: Verify = "fast",
    scale: Scale = None,
    json: Json = False,
) -> None:
    """Decode latents into a picture."""
    from ldmkit.cli.answers import emit
    from ldmkit.cli.early import check_model
    from ldmkit.cli.starting import stored_latents
    from ldmkit.contracts.arguments import check_seed
    from ldmkit.contracts.axes import shown_size
    from ldmkit.files.json import write_new

    check_model(model, config, dtype, verify)

    from ldmkit.loading import load_codec
    from ldmkit.models.weights import read_metadata
    from ldmkit.run.latent_files import check_codec_of, size_of
    from ldmkit.run.latents import check_latents, decode_latents
    from ldmkit.run.written import FRAMES_PER_SECOND, check_out, write_sample

    check_out(out)
    check_seed(seed, "--seed")
    found, about = stored_latents(latents), read_metadata(latents)
    codec = load_codec(
        model, config=config, ema=ema, variant=variant, device=device, dtype=dtype, scale=scale, verify=verify
    )
    stored = found.read(True)
    size = size_of(about, codec, stored, str(latents))
    check_codec_of(about, codec, stored, str(latents))
    visual = codec.visual
    check_out(out, visual=visual)
    check_latents(codec, stored, yes)
    images = decode_latents(codec, stored, size, seeds=(seed,))
    write = partial(write_sample, sample=images[0], visual=visual, recipe=None, fps=FRAMES_PER_SECOND)
    out = write_new(out, write, overwrite=overwrite)
    if json:
        emit({"out": str(out), "size": list(images.shape[2:])})
        return
    print(f"{out}: {shown_size(images.shape[2:])}")
