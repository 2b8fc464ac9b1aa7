"""How well a first stage reproduces real photographs: PSNR and SSIM per set, and a contact sheet to look at.

    python benchmarks/real_codec.py WEIGHTS FOLDER [FOLDER ...] --out DIR [--count 20]

WEIGHTS is anything `ldmkit.load_codec` reads. Pictures are taken evenly spaced from each folder's sorted names, at
their own size; where a side is no multiple of the codec's, the border is repeated to the next one and the result is
cropped back before it is compared. Pictures with alpha are put on white.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

import ldmkit

SUFFIXES = {".png", ".jpg", ".jpeg"}
CELL = 192


def read_picture(path: Path) -> Tensor:
    """(1, 3, H, W) in [-1, 1]."""
    with Image.open(path) as picture:
        if picture.mode in ("RGBA", "LA", "P", "PA"):
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        pixels = np.array(picture.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1


def reproduce(codec: ldmkit.Codec, image: Tensor) -> tuple[Tensor, Tensor]:
    """Picture after encoding and decoding, rounded to 8 bits as a viewer would see it; and its latent."""
    height, width = image.shape[-2:]
    padded = F.pad(image, (0, -width % codec.multiple, 0, -height % codec.multiple), mode="replicate")
    latent = codec.encode(padded)
    decoded = codec.decode(latent)[..., :height, :width].clamp(-1, 1)
    return ((decoded + 1) * 127.5).round() / 127.5 - 1, latent


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of two pictures in [-1, 1]: 10 log10(range^2 / mean squared error), range 2."""
    error = (a.double() - b.double()).square().mean().item()
    return math.inf if error == 0 else 10 * math.log10(4 / error)


def ssim(a: Tensor, b: Tensor) -> float:
    """Structural similarity (Wang et al. 2004, eq. 13) of two pictures (1, 3, H, W) in [-1, 1], mean over RGB.

    Gaussian window of 11 x 11 with sigma 1.5, population moments, K1 = 0.01, K2 = 0.03, range 2; windows that would
    leave the picture are left out.
    """
    offsets = torch.arange(11, dtype=torch.float64) - 5
    window = torch.exp(-offsets.square() / (2 * 1.5**2))
    window = window / window.sum()

    def blur(x: Tensor) -> Tensor:
        x = F.conv2d(x.flatten(0, 1)[:, None], window.view(1, 1, 11, 1))
        return F.conv2d(x, window.view(1, 1, 1, 11))

    a, b = a.double(), b.double()
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return float((luminance * (2 * covariance + c2) / (var_a + var_b + c2)).mean())


def chosen(folder: Path, count: int) -> list[Path]:
    """`count` pictures evenly spaced over the sorted names."""
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise SystemExit(f"no pictures in {folder}")
    return [paths[i * len(paths) // count] for i in range(count)] if count < len(paths) else paths


def measure(codec: ldmkit.Codec, folder: Path, count: int) -> tuple[dict[str, float], list[tuple[Tensor, Tensor]]]:
    """Figures of one set, and its pictures before and after."""
    pairs, values, latents = [], [], []
    started = time.perf_counter()
    for path in chosen(folder, count):
        image = read_picture(path)
        again, latent = reproduce(codec, image)
        pairs.append((image, again))
        latents.append(latent.double().flatten())
    seconds = time.perf_counter() - started
    values = [(psnr(a, b), ssim(a, b)) for a, b in pairs]
    psnrs, ssims = zip(*values, strict=True)
    together = torch.cat(latents)
    return {
        "pictures": len(pairs),
        "psnr": float(np.mean(psnrs)),
        "psnr_std": float(np.std(psnrs)),
        "psnr_lowest": min(psnrs),
        "ssim": float(np.mean(ssims)),
        "ssim_std": float(np.std(ssims)),
        "ssim_lowest": min(ssims),
        "latent_mean": float(together.mean()),
        "latent_std": float(together.std()),
        "seconds_per_picture": seconds / len(pairs),
    }, pairs


def cell(image: Tensor) -> Image.Image:
    """The picture's centre at its own scale, so that nothing is smoothed away by shrinking."""
    height, width = image.shape[-2:]
    top, left = max(0, (height - CELL) // 2), max(0, (width - CELL) // 2)
    cut = image[0, :, top : top + CELL, left : left + CELL]
    return Image.fromarray(((cut + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())


def sheet(sets: dict[str, list[tuple[Tensor, Tensor]]], columns: int = 6) -> Image.Image:
    """For each set a row of originals, of reproductions, and of differences four times enlarged around grey."""
    canvas = Image.new("RGB", (columns * CELL, len(sets) * (3 * CELL + 16)), "white")
    write = ImageDraw.Draw(canvas)
    for index, (name, pairs) in enumerate(sets.items()):
        top = index * (3 * CELL + 16)
        write.text((4, top + 2), f"{name}: original, reproduced, difference x4", fill="black")
        for column in range(min(columns, len(pairs))):
            before, after = pairs[column * len(pairs) // columns if len(pairs) >= columns else column]
            rows = (before, after, (4 * (after - before)).clamp(-1, 1))
            for row, image in enumerate(rows):
                canvas.paste(cell(image), (column * CELL, top + 16 + row * CELL))
    return canvas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=20, help="pictures a set")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    codec = ldmkit.load_codec(options.weights, device=options.device, dtype="float32")
    figures, pictures = {}, {}
    with torch.inference_mode():
        for folder in options.folders:
            name = "/".join(folder.parts[-2:])
            figures[name], pictures[name] = measure(codec, folder, options.count)
            print(name, json.dumps({key: round(value, 4) for key, value in figures[name].items()}))
    sheet(pictures).save(options.out / "real_codec.png")
    (options.out / "real_codec.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
