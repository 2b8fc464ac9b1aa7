"""A full-size Stable Diffusion 1.5 folder, written by diffusers with random weights: load, sample, decode.

    python benchmarks/sd15_end_to_end.py --vocab bpe_simple_vocab_16e6.txt.gz

Each library is a process of its own, on one thread: wall time from process start, load time, time of the run, peak
resident memory (mapped file pages included), and the largest difference between the latents, which start from the same
noise. DDIM with guidance 7.5 at 256x256.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import write
from loading import write_folder

PROMPT = "a photograph of a red house by a lake, at dusk"

OURS = """
import ldmkit
pipe = ldmkit.load({folder!r}).planned({plan!r})
loaded = time.time()
out = pipe({{"text": {prompt!r}}}, size=256, seeds=[0], steps={steps}, guidance=7.5, sampler="ddim")
latents, pictures = out.latents, out.images
"""
THEIRS = """
import diffusers
diffusers.utils.logging.disable_progress_bar()
pipe = diffusers.StableDiffusionPipeline.from_pretrained({folder!r}, local_files_only=True)
pipe.set_progress_bar_config(disable=True)
config = pipe.scheduler.config
pipe.scheduler = diffusers.DDIMScheduler.from_config(config, clip_sample=False, set_alpha_to_one=False)
loaded = time.time()
from ldmkit.run.noise import normal
latents = pipe({prompt!r}, height=256, width=256, num_inference_steps={steps}, guidance_scale=7.5,
               latents=normal(0, "start", 0, (4, 32, 32))[None], output_type="latent").images
with torch.no_grad():
    pictures = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
"""
CHILD = """
import json, resource, sys, time
began = float(sys.argv[1])
import torch
torch.set_num_threads(1)
{code}
done = time.time()
assert pictures.shape[-2:] == (256, 256) and pictures.isfinite().all()
torch.save(latents, sys.argv[2])
print(json.dumps({{"load_s": loaded - began, "run_s": done - loaded, "whole_s": done - began,
                   "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}}))
"""


def measured(code: str, latents: Path) -> dict[str, Any]:
    """One process; its times and memory."""
    command = [sys.executable, "-W", "ignore", "-c", CHILD.format(code=code), str(time.time()), str(latents)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {key: round(value, 2) for key, value in json.loads(shown.splitlines()[-1]).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocab", type=Path, help="the real CLIP vocabulary; without it a small one is made up")
    parser.add_argument("--steps", type=int, default=5)
    given = parser.parse_args()
    import torch

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "sd15"
        write_folder(folder, given.vocab)
        values: dict[str, Any] = {"folder": str(folder), "prompt": PROMPT, "steps": given.steps}
        cases = {"diffusers": THEIRS.format(**values)}
        cases |= {f"ldmkit, {plan}": OURS.format(plan=plan, **values) for plan in ("eager", "prepacked")}
        rows, latents = [], {}
        for name, code in cases.items():
            path = Path(temporary) / "latents.pt"
            rows.append({"what": name, **measured(code, path)})
            latents[name] = torch.load(path, weights_only=True)
            want = latents["diffusers"]
            rows[-1]["deviation"] = float((latents[name] - want).abs().max() / want.abs().max())
            print(json.dumps(rows[-1]), flush=True)
    write("sd15_end_to_end", rows, size="256x256", steps=given.steps)


if __name__ == "__main__":
    main()
