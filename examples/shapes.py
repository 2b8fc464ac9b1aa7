"""Train the bundled model `shapes`: coloured shapes in boxes, by day, at dusk or at night; codec and U-Net, on a CPU.

    python examples/shapes.py --out shapes
    ldmkit sample shapes --layout examples/boxes.json --label night -n 4 --out out.png

The pictures are drawn here, so the model knows nothing but this toy world. First a KL autoencoder with f = 4 is
trained, then a U-Net in its latent space, on boxes (tokens for cross-attention) and a label (added to the time).
"""

from __future__ import annotations

import argparse
import math
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from blood_cells import standardise, train
from PIL import Image, ImageDraw
from torch import Tensor

import ldmkit

SIDE, FINE = 64, 4
"""Pixels of a picture's side, and how many times finer it is drawn, for soft edges."""
SHAPES = ("circle", "square", "triangle", "star")
COLOURS = {"red": (225, 45, 45), "green": (40, 165, 70), "blue": (45, 95, 230), "yellow": (250, 215, 45)}
LABELS = {
    "day": ((150, 205, 250), (225, 240, 252)),
    "dusk": ((120, 85, 150), (240, 160, 120)),
    "night": ((12, 14, 40), (45, 45, 85)),
}
"""Colours of the sky at the top and at the bottom."""
CLASSES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
Scene = dict[str, Any]


def scene(rng: random.Random) -> Scene:
    """A label and one to five boxes that hardly overlap: raw inputs of the model."""
    boxes: list[tuple[float, float, float, float]] = []
    wanted = rng.randint(1, 5)
    for _ in range(60):
        size, stretch = rng.uniform(0.2, 0.5), math.exp(rng.uniform(-0.25, 0.25))
        w, h = size * stretch, size / stretch
        x, y = rng.uniform(0, 1 - w), rng.uniform(0, 1 - h)
        if len(boxes) < wanted and all(_apart((x, y, x + w, y + h), other) for other in boxes):
            boxes.append((x, y, x + w, y + h))
    return {"label": rng.choice(list(LABELS)), "layout": [{"label": rng.choice(CLASSES), "box": b} for b in boxes]}


def _apart(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return wide < 0.02 or high < 0.02


def draw(scene: Scene) -> np.ndarray:
    """The picture of a scene: (64, 64, 3) uint8."""
    top, bottom = (np.array(c, float) for c in LABELS[scene["label"]])
    sky = top + (bottom - top) * np.linspace(0, 1, SIDE)[:, None, None]
    canvas = Image.fromarray(np.broadcast_to(sky, (SIDE, SIDE, 3)).astype(np.uint8))
    canvas = canvas.resize((SIDE * FINE, SIDE * FINE), Image.Resampling.NEAREST)
    brush = ImageDraw.Draw(canvas)
    for box in scene["layout"]:
        colour, shape = box["label"].split()
        fill(brush, shape, [v * SIDE * FINE for v in box["box"]], COLOURS[colour])
    return np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.BOX))


def fill(brush: ImageDraw.ImageDraw, shape: str, box: list[float], colour: Any) -> None:
    """A shape that fills its box (x0, y0, x1, y1) in pixels."""
    x0, y0, x1, y1 = box
    if shape == "circle":
        brush.ellipse(box, fill=colour)
    elif shape == "square":
        brush.rectangle(box, fill=colour)
    elif shape == "triangle":
        brush.polygon([((x0 + x1) / 2, y0), (x1, y1), (x0, y1)], fill=colour)
    else:
        angles = [math.pi * k / 5 for k in range(10)]
        points = [(math.sin(a) * r, -math.cos(a) * r) for a, r in zip(angles, (1, 0.45) * 5, strict=True)]
        low, high = (np.array(points).min(0), np.array(points).max(0))
        unit = (np.array(points) - low) / (high - low)
        brush.polygon([(x0 + (x1 - x0) * u, y0 + (y1 - y0) * v) for u, v in unit], fill=colour)


def train_codec(pictures: Tensor, minutes: float) -> ldmkit.Codec:
    """A KL autoencoder of 0.23 M parameters: L1 and squared error, and a slight pull of the posterior to a normal.

    `pictures` are (N,64,64,3) uint8.
    """
    config = {"widths": (16, 32, 32), "blocks": 1, "mid_attention": "none", "norm_groups": 8, "z_channels": 4}
    codec = ldmkit.get("codec", "kl")(config)
    optimiser = torch.optim.AdamW(codec.parameters(), lr=2e-3, betas=(0.9, 0.99))
    began, step, done, shown = time.process_time(), 0, 0.0, 0.0
    while done < 1:
        images = pixels(pictures[torch.randint(len(pictures), (16,))])
        made = codec.reconstruct(images, torch.randn(16, codec.channels, SIDE // codec.factor, SIDE // codec.factor))
        wrong = made.images - images
        loss = wrong.abs().mean() + wrong.square().mean() + 1e-6 * made.losses["kl"]
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
        optimiser.param_groups[0]["lr"] = 2e-3 * min(1, step / 100) * (0.5 + 0.5 * math.cos(math.pi * done))
        optimiser.step()
        step, done = step + 1, min((time.process_time() - began) / (60 * minutes), 1.0)
        shown += (wrong.detach().square().mean().item() - shown) * max(0.02, 1 / step)
        if step % 200 == 0:
            print(f"codec step {step}, {done:.0%}, PSNR {10 * math.log10(4 / shown):.1f} dB", flush=True)
    return codec.eval().requires_grad_(False)


def pixels(pictures: Tensor) -> Tensor:
    """(N,H,W,3) uint8 -> (N,3,H,W) in [-1,1]."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def compose(codec: ldmkit.Codec) -> ldmkit.Pipeline:
    """The model to train: 1.4 M parameters, boxes by cross-attention, the label beside the time."""
    unet = {"widths": (32, 48, 64), "blocks": 1, "attention": ("none", "cross", "cross"), "heads": 4}
    more = {"norm_groups": 16, "context_dim": 64, "time_dim": 128, "vector": "identity"}
    boxes = {"n_classes": len(CLASSES), "names": CLASSES, "dim": 64, "max_objects": 16}
    label = {"n_classes": len(LABELS) + 1, "null_class": len(LABELS), "names": tuple(LABELS), "emit": "vector"}
    return ldmkit.Pipeline.of(
        codec=codec,
        denoiser=ldmkit.get("denoiser", "unet")({"channels": codec.channels, **unet, **more}),
        process=ldmkit.get("process", "discrete")(prediction="v", zero_terminal_snr=True),
        conditioners={
            "layout": ldmkit.get("conditioner", "layout-boxes")(boxes),
            "label": ldmkit.get("conditioner", "label")({**label, "dim": 128}),
        },
        defaults={
            "size": (SIDE, SIDE),
            "steps": 20,
            "grid": {"type": "trailing"},
            "guidance": {"type": "cfg", "config": {"scale": 2.0}},
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--minutes", type=float, default=45, help="of CPU time, a quarter of it for the codec")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=16000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", type=Path, help="train this model's U-Net on, with its codec as it is")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    torch.manual_seed(options.seed)
    scenes = [scene(rng) for _ in range(options.scenes)]
    pictures = torch.from_numpy(np.stack([draw(s) for s in scenes]))
    minutes = options.minutes
    if options.resume is None:
        codec, minutes = train_codec(pictures, minutes / 4), minutes * 3 / 4
        raw = torch.cat([codec.encode(pixels(some)) for some in pictures.split(64)])
        codec, latents = standardise(codec, raw)
        pipe = compose(codec)
    else:
        pipe = ldmkit.load(options.resume, dtype="float32")
        with torch.no_grad():
            latents = torch.cat([pipe.codec.encode(pixels(some)) for some in pictures.split(64)])
    inputs = [{name: pipe.conditioners[name].parse(s[name], name) for name in s} for s in scenes]

    def batch() -> tuple[Tensor, list[dict[str, Any]]]:
        chosen = torch.randint(len(latents), (32,))
        return latents[chosen], [inputs[i] for i in chosen.tolist()]

    train(pipe, batch, {"layout": 0.12, "label": 0.12}, minutes, options.out)
    pipe = ldmkit.load(options.out)
    pipe.denoiser.to(torch.bfloat16)
    pipe.save(options.out)


if __name__ == "__main__":
    main()
