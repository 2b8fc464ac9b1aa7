"""Train a layout-conditional latent diffusion model of blood smears, on a CPU, in half an hour.

    python examples/blood_cells.py --codec taef2 --data bccd --out cells
    ldmkit sample cells --layout boxes.json -n 4 --out out.png

Data: https://github.com/Shenggan/BCCD_Dataset (MIT) as `train/*.jpg` and `train.json` (COCO boxes). Codec: a tiny
autoencoder of the TAESD family (https://github.com/madebyollin/taesd, MIT): encoder.safetensors, decoder.safetensors.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import ldmkit
from ldmkit.loss import diffusion_loss
from ldmkit.pictures import read_picture

NAMES = ("RBC", "WBC", "Platelets")
SIZE = (120, 160)
Boxes = list[tuple[str, list[float]]]
Batch = Callable[[], tuple[Tensor, list[dict[str, Any]]]]


def annotated(json_file: Path) -> list[tuple[Path, Boxes]]:
    """(picture, [(class, [x0, y0, x1, y1] relative to it)]) of a COCO file and the folder that has its name."""
    coco = json.loads(json_file.read_text())
    names = {category["id"]: category["name"] for category in coco["categories"]}
    boxes: dict[int, Boxes] = {image["id"]: [] for image in coco["images"]}
    sides = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
    for note in (note for note in coco["annotations"] if min(note["bbox"][2:]) > 0):
        (x, y, w, h), (width, height) = note["bbox"], sides[note["image_id"]]
        corners = [x / width, y / height, (x + w) / width, (y + h) / height]
        boxes[note["image_id"]].append((names[note["category_id"]], [min(max(v, 0.0), 1.0) for v in corners]))
    return [(json_file.with_suffix("") / image["file_name"], boxes[image["id"]]) for image in coco["images"]]


def view(picture: Image.Image, boxes: Boxes, rng: random.Random) -> tuple[Tensor, list[dict[str, Any]]]:
    """A random crop, mirrored at random: (3,H,W) in [-1,1], and the boxes of which a third or more is left."""
    side = min(rng.uniform(0.6, 1.15), 1.0)
    left, top = rng.uniform(0, 1 - side), rng.uniform(0, 1 - side)
    mirror, flip, kept = rng.random() < 0.5, rng.random() < 0.5, []
    for label, (x0, y0, x1, y1) in boxes:
        a, c = (min(max((x - left) / side, 0.0), 1.0) for x in (x0, x1))
        b, d = (min(max((y - top) / side, 0.0), 1.0) for y in (y0, y1))
        if (c - a) * (d - b) * side * side >= (x1 - x0) * (y1 - y0) / 3:
            a, c = (1 - c, 1 - a) if mirror else (a, c)
            b, d = (1 - d, 1 - b) if flip else (b, d)
            kept.append({"label": label, "box": (a, b, c, d)})
    area = tuple(v * n for v, n in zip((left, top, left + side, top + side), picture.size * 2, strict=True))
    pixels = read_picture(picture.resize(SIZE[::-1], Image.Resampling.LANCZOS, box=area), "view")
    return pixels.flip([axis for axis, wanted in ((2, mirror), (1, flip)) if wanted]), kept


def standardise(codec: ldmkit.Codec, raw: Tensor) -> tuple[ldmkit.Codec, Tensor]:
    """The codec with a scale and shift that give latents (N,C,h,w) mean 0 and deviation 1 per channel; those latents.

    `raw` are latents of the codec as it comes, without scale or shift.
    """
    mean, std = raw.mean((0, 2, 3)), raw.std((0, 2, 3))
    update = {"shift": tuple(mean.tolist()), "scale": tuple((1 / std).tolist())}
    made = type(codec)(codec.config.model_copy(update=update))
    made.load_state_dict(codec.state_dict())
    return made.eval().requires_grad_(False), (raw - mean[:, None, None]) / std[:, None, None]


def train(pipe: ldmkit.Pipeline, batch: Batch, drop: dict[str, float], minutes: float, out: Path) -> None:
    """Train denoiser and conditioners for some CPU minutes; save the running average of their weights.

    AdamW with a short warm-up, the rate falling to zero over the time; each condition is replaced by its null in a
    share `drop[name]` of the rows. `batch` gives latents (B,C,h,w) and B inputs.
    """
    modules = torch.nn.ModuleDict({"denoiser": pipe.denoiser, **pipe.conditioners}).requires_grad_(True).train()
    average = AveragedModel(modules, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    optimiser = torch.optim.AdamW(modules.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01)
    began, step, done, shown = time.process_time(), 0, 0.0, 0.0
    while done < 1:
        x0, inputs = batch()
        sigma = [pipe.process.sigma(u) for u in torch.rand(len(x0)).pow(0.6).tolist()]  # noise decides layouts
        conditions = pipe.conditioning(inputs, size=pipe.defaults.size, grad=True)
        signals = conditions.dropout(drop, {name: torch.rand(len(x0)) for name in drop}.__getitem__)
        loss = diffusion_loss(pipe.denoiser, pipe.process, x0, signals, noise=torch.randn_like(x0), sigma=sigma).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        optimiser.param_groups[0]["lr"] = 1e-3 * min(1, step / 200) * (0.5 + 0.5 * math.cos(math.pi * done))
        optimiser.step()
        average.update_parameters(modules)
        step, done = step + 1, min((time.process_time() - began) / (60 * minutes), 1.0)
        shown += (loss.item() - shown) * max(0.01, 1 / step)
        if step % 200 == 0:
            print(f"step {step}, {done:.0%}, loss {shown:.4f}", flush=True)
        if step % 1000 == 0 or done == 1:
            kept: Any = average.module
            conditioners = {name: kept[name] for name in pipe.conditioners}
            parts: dict[str, Any] = {"codec": pipe.codec, "process": pipe.process, "defaults": pipe.defaults}
            ldmkit.Pipeline.of(denoiser=kept["denoiser"], conditioners=conditioners, **parts).save(out)


def compose(codec: ldmkit.Codec) -> ldmkit.Pipeline:
    """The model to train: a U-Net of 5.6 M parameters that reads boxes by cross-attention and predicts v."""
    unet = {"channels": codec.channels, "widths": (64, 96, 128), "blocks": 1, "heads": 4, "context_dim": 128}
    boxes = {"n_classes": len(NAMES), "names": NAMES, "dim": 128, "frequencies": 6}
    return ldmkit.Pipeline.of(
        codec=codec,
        denoiser=ldmkit.get("denoiser", "unet")({**unet, "attention": ("none", "cross", "cross")}),
        process=ldmkit.get("process", "discrete")(prediction="v", zero_terminal_snr=True),
        conditioners={"layout": ldmkit.get("conditioner", "layout-boxes")(boxes)},
        defaults={"size": SIZE, "grid": {"type": "trailing"}, "guidance": {"type": "cfg", "config": {"scale": 2.0}}},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a layout-conditional model of blood smears.")
    for name in ("--codec", "--data", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30, help="of CPU time")
    options = parser.parse_args()
    began, rng = time.process_time(), random.Random(0)
    torch.manual_seed(0)
    codec, raw, layouts = ldmkit.load_codec(options.codec, dtype="float32"), [], []
    for path, boxes in annotated(options.data / "train.json"):
        picture = Image.open(path).convert("RGB")
        views = [view(picture, boxes, rng) for _ in range(6)]
        raw.append(codec.encode(torch.stack([pixels for pixels, _ in views])))
        layouts += [kept for _, kept in views]
    codec, latents = standardise(codec, torch.cat(raw))
    pipe = compose(codec)
    inputs = [{"layout": pipe.conditioners["layout"].parse(kept, "layout")} for kept in layouts]

    def batch() -> tuple[Tensor, list[dict[str, Any]]]:
        chosen = torch.randint(len(latents), (16,))
        return latents[chosen], [inputs[i] for i in chosen.tolist()]

    train(pipe, batch, {"layout": 0.1}, options.minutes - (time.process_time() - began) / 60, options.out)


if __name__ == "__main__":
    main()
