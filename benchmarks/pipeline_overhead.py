"""What a whole pipeline costs a step beside its network: microseconds, ours and diffusers', with guidance.

python benchmarks/pipeline_overhead.py [--rounds 15] [--steps 50]

The network returns one fixed tensor, the conditions are given as embeddings (diffusers) or one tiny class table (ours),
and nothing is decoded. A step's cost is the run's, preparation included, divided by its steps. Thread time, which a
busy machine does not stretch; the two take turns; medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import diffusers
import torch
from common import write
from ldmkit_codecs.identity import IdentityCodec
from ldmkit_conditioners.label import Label
from ldmkit_processes.discrete import Discrete
from torch import Tensor, nn

import ldmkit
from ldmkit import Context, Denoiser, Signal, Slot

SIDE = 16
SD: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
CASES = {
    "ddim": ("ddim", diffusers.DDIMScheduler(**SD, clip_sample=False, set_alpha_to_one=False, steps_offset=1)),
    "euler": ("euler", diffusers.EulerDiscreteScheduler(**SD)),
    "dpmpp-2m": ("dpmpp-2m", diffusers.DPMSolverMultistepScheduler(**SD)),
}


class FixedDenoiser(Denoiser):
    """The same tensor for every call."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.ports = 3, {}
        self.slots = {"context": Slot("tokens", 8)}
        self.answer = nn.Parameter(torch.randn(2, 3, SIDE, SIDE), requires_grad=False)

    def prepare(self, signals: Mapping[str, Signal]) -> Context:
        return Context(signals)

    def forward(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        return self.answer


def ours(name: str, steps: int) -> Callable[[], Any]:
    """A run of our pipeline."""
    label = Label({"n_classes": 3, "dim": 8, "null_class": 2}).eval().requires_grad_(False)
    parts: dict[str, Any] = {"codec": IdentityCodec({}), "denoiser": FixedDenoiser(), "process": Discrete()}
    pipe = ldmkit.Pipeline.of(**parts, conditioners={"label": label}, defaults={"size": (SIDE, SIDE)})

    def run() -> None:
        for _ in pipe.stream({"label": 1}, sampler=name, steps=steps, guidance=7.5):
            pass

    return run


def theirs(scheduler: Any, steps: int) -> Callable[[], Any]:
    """A run of diffusers' StableDiffusionPipeline."""
    vae = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=2, latent_channels=3)
    pipe = diffusers.StableDiffusionPipeline(
        vae, None, None, diffusers.UNet2DConditionModel(block_out_channels=(8, 8), norm_num_groups=2,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, in_channels=3, out_channels=3,
        sample_size=SIDE), scheduler, None, None, requires_safety_checker=False,
    )  # fmt: skip
    config = pipe.unet.config
    answer = (torch.randn(2, 3, SIDE, SIDE),)
    pipe.unet.forward = lambda *inputs, **more: answer
    pipe.set_progress_bar_config(disable=True)
    rows = torch.randn(1, 2, config.cross_attention_dim)

    def run() -> None:
        pipe(
            prompt_embeds=rows, negative_prompt_embeds=rows, num_inference_steps=steps, guidance_scale=7.5,
            output_type="latent", height=SIDE, width=SIDE,
        )  # fmt: skip

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--name", default="pipeline_overhead")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for case, (name, scheduler) in CASES.items():
        runs = {"ldmkit": ours(name, options.steps), "diffusers": theirs(scheduler, options.steps)}
        times: dict[str, list[float]] = {who: [] for who in runs}
        for i in range(options.rounds + 2):
            for who, run in runs.items():
                began = time.thread_time()
                run()
                if i >= 2:
                    times[who].append((time.thread_time() - began) / options.steps * 1e6)
        medians = {who: round(statistics.median(values), 1) for who, values in times.items()}
        rows.append({"sampler": case, "latents": [1, 3, SIDE, SIDE], "steps": options.steps, "microseconds": medians})
        print(rows[-1], flush=True)
    write(options.name, rows, limit_microseconds=120)


if __name__ == "__main__":
    main()
