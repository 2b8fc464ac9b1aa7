"""What networks that read hints cost on a mid-size U-Net: attaching them, and a run with each, paired with one without.

A U-Net with Stable Diffusion 1's blocks at 0.4 of its widths (128, 256, 512, 512; random weights), latents of 32x32,
guidance. ControlNet, T2I-Adapter (full) and GLIGEN's gates as diffusers' folders and files; plans eager and prepacked.

    python benchmarks/control.py [rounds]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from common import over, paired, write
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import ldmkit

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5
WIDTHS, WORDS = (128, 256, 512, 512), 256
CALL: dict[str, Any] = {"steps": 3, "guidance": 4.0, "seeds": [0], "size": 256}
TEXT = {"text": "a red house"}
HINT = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
INPUTS: dict[str, dict[str, Any]] = {
    "ControlNet": {"hint": HINT},
    "T2I-Adapter": {"hint": HINT},
    "GLIGEN": {"layout": [{"label": "a house", "box": [0.1, 0.2, 0.6, 0.8]}]},
}


def network(**changes: Any) -> Any:
    """The U-Net, as diffusers builds it."""
    return diffusers.UNet2DConditionModel(
        sample_size=32, block_out_channels=WIDTHS, cross_attention_dim=WORDS, attention_head_dim=8, **changes
    )


def saved(folder: Path) -> Path:
    """A Stable Diffusion of that size."""
    words = ["th", *"abcdefghijklmnopqrstuvwxyz", *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz")]
    vocabulary = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    count = len(vocabulary)
    text = CLIPTextConfig(
        vocab_size=count, hidden_size=WORDS, intermediate_size=4 * WORDS, num_hidden_layers=4, num_attention_heads=4,
        projection_dim=WORDS, bos_token_id=count - 2, eos_token_id=count - 1, pad_token_id=count - 1,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=(16, 16, 16, 16), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, norm_num_groups=8,
    )  # fmt: skip
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, clip_sample=False
    )
    diffusers.StableDiffusionPipeline(
        vae=vae, text_encoder=CLIPTextModel(text), tokenizer=CLIPTokenizer(vocab=vocabulary, merges=[("t", "h")]),
        unet=network(), scheduler=scheduler, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def adapters(folder: Path) -> dict[str, Path]:
    """One of each, with random weights in place of its zeros."""
    from safetensors.torch import save_file

    control = diffusers.ControlNetModel.from_unet(network())
    t2i = diffusers.T2IAdapter(channels=list(WIDTHS), num_res_blocks=2, downscale_factor=8)
    gated = network(attention_type="gated")
    for module in (control, t2i, gated):
        with torch.no_grad():
            for parameter in module.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.02)
    control.save_pretrained(folder / "ControlNet")
    t2i.save_pretrained(folder / "T2I-Adapter")
    own = {k: v.contiguous() for k, v in gated.state_dict().items() if ".fuser." in k or k.startswith("position_net.")}
    save_file(own, folder / "gligen.safetensors")
    return {"ControlNet": folder / "ControlNet", "T2I-Adapter": folder / "T2I-Adapter",
            "GLIGEN": folder / "gligen.safetensors"}  # fmt: skip


def main() -> None:
    """Measure and write the rows."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = Path(tempfile.mkdtemp())
    base, files = saved(folder / "model"), adapters(folder)
    rows: list[dict[str, Any]] = []
    for name, file in files.items():
        plain, own = ldmkit.load(base), ldmkit.load(base)  # packed blocks with taps run eagerly, for all
        began = time.perf_counter()
        attached = own.with_adapter_file(file, **({"end": 1.0} if name == "GLIGEN" else {}))
        rows.append({"what": f"attach {name}", "ms": round((time.perf_counter() - began) * 1e3)})
        inputs = {**TEXT, **INPUTS[name]}
        for plan in ("eager", "prepacked"):
            with_adapter, without = attached.planned(plan), plain.planned(plan)
            calls = {
                "with": lambda pipe=with_adapter, inputs=inputs: pipe(inputs, **CALL),
                "plain": lambda pipe=without: pipe(TEXT, **CALL),
            }
            times = paired(calls, ROUNDS, warmup=1)
            rows.append({"what": f"{name}, {plan}: a run over one without", "ratio": over(times, "with", "plain")})
            print(rows[-1], flush=True)
    write("control", rows, rounds=ROUNDS)


if __name__ == "__main__":
    main()
