"""Loading a Stable Diffusion 1.5 folder, ours and diffusers'; and from process start to the first step of a tiny model.

python benchmarks/loading.py [--rounds 5] [--vocab bpe_simple_vocab_16e6.txt.gz] [--folder /tmp/sd15]

The folder is written by diffusers with random weights (4.3 GB) and deleted afterwards. Every load is a process of its
own, the two take turns, files are in the page cache. `ready_s`: from process start, imports included. `again_s`: a
second load in that process, imports done. `touched_s`: reading the first number of every page of the U-Net's weights
afterwards. `peak_bytes`: largest resident memory, mapped file pages included, of processes that load once and touch
nothing.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import write

OURS = "import ldmkit; load = lambda: ldmkit.load({folder!r}, dtype={dtype!r}); unet = lambda p: p.denoiser"
THEIRS = (
    "import torch, diffusers; from diffusers import StableDiffusionPipeline as P; "
    "diffusers.utils.logging.disable_progress_bar(); "
    "load = lambda: P.from_pretrained({folder!r}, torch_dtype=getattr(torch, {dtype!r}), local_files_only=True); "
    "unet = lambda p: p.unet"
)
CHILD = """
import json, sys, time
began = float(sys.argv[1])
{code}
pipe = load()
ready = time.time()
out = {{"ready_s": ready - began}}
if {again}:
    del pipe
    start = time.time(); pipe = load(); out["again_s"] = time.time() - start
    start = time.time()
    for p in unet(pipe).parameters():
        p.detach().view(-1)[::1024].sum()
    out["touched_s"] = time.time() - start
status = open("/proc/self/status").read()
out["peak_bytes"] = int(status.split("VmHWM:")[1].split()[0]) * 1024
print(json.dumps(out))
"""


FIRST_STEP = """
import os
from ldmkit.cli import main
from ldmkit.plugins.hooks import hookimpl, manager
class Stop:
    @hookimpl
    def ldmkit_step(self, pipeline, step):
        os._exit(0)
manager().register(Stop())
main()
os._exit(1)
"""


def write_folder(folder: Path, vocabulary: Path | None) -> None:
    """Stable Diffusion 1.5 with random weights, written by diffusers."""
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    channels = (128, 256, 512, 512)
    vae = diffusers.AutoencoderKL(
        block_out_channels=channels, layers_per_block=2, latent_channels=4, sample_size=512,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    text = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
                          projection_dim=768, vocab_size=49408, bos_token_id=49406, eos_token_id=49407)  # fmt: skip
    scheduler = diffusers.PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    pipe = diffusers.StableDiffusionPipeline(
        vae, CLIPTextModel(text), tokenizer(vocabulary), diffusers.UNet2DConditionModel(cross_attention_dim=768,
        sample_size=64), scheduler, None, None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.save_pretrained(folder)


def tokenizer(vocabulary: Path | None) -> Any:
    """CLIP's tokenizer from its merges, or one of single bytes."""
    from transformers import CLIPTokenizer

    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(b) for b in visible] + [chr(256 + i) for i in range(256 - len(visible))]
    merges: list[tuple[str, str]] = []
    if vocabulary is not None:
        lines = gzip.decompress(vocabulary.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
        merges = [(a, b) for a, b in (line.split() for line in lines)]
    words = [*letters, *(c + "</w>" for c in letters), *(a + b for a, b in merges)]
    words += [f"<unused{i}>" for i in range(49406 - len(words))] + ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=merges, model_max_length=77)


def child(code: str, again: bool) -> dict[str, float]:
    """One load in a process of its own."""
    program = CHILD.format(code=code, again=again)
    command = [sys.executable, "-W", "ignore", "-c", program, str(time.time())]
    one = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=one)
    if done.returncode:
        raise SystemExit(done.stderr)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def loads(folder: Path, dtype: str, rounds: int) -> dict[str, Any]:
    """Medians of alternating loads."""
    codes = {"ldmkit": OURS, "diffusers": THEIRS}
    seen: dict[str, list[dict[str, float]]] = {who: [] for who in codes}
    for i in range(rounds):
        for who, code in codes.items():
            answer = child(code.format(folder=str(folder), dtype=dtype), again=i % 2 == 1)
            seen[who].append(answer)
            print(dtype, who, answer, flush=True)
    row: dict[str, Any] = {"what": "load SD 1.5 folder", "file": "float32", "as": dtype}
    for who, answers in seen.items():
        # a second load would raise the peak of the first: peaks are of processes that load once
        once = [a["peak_bytes"] for a in answers if "again_s" not in a]
        row[who] = {key: round(statistics.median(a[key] for a in answers if key in a), 3) for key in
                    ("ready_s", "again_s", "touched_s")} | {"peak_bytes": int(statistics.median(once))}  # fmt: skip
    row["ready_speedup"] = round(row["diffusers"]["ready_s"] / row["ldmkit"]["ready_s"], 2)
    row["peak_ratio"] = round(row["ldmkit"]["peak_bytes"] / row["diffusers"]["peak_bytes"], 2)
    return row


def first_step(rounds: int) -> dict[str, Any]:
    """`ldmkit sample` of a tiny model until its first step is done, against a process that imports torch."""
    import ldmkit

    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        kl = {"widths": (4, 4, 4), "norm_groups": 2, "blocks": 1, "z_channels": 2, "mid_attention": "none"}
        net = {"channels": 2, "widths": (8, 16), "blocks": 1, "norm_groups": 4, "heads": 2, "context_dim": 8,
               "attention": ("none", "cross")}  # fmt: skip
        toy = ldmkit.Pipeline.of(
            codec=ldmkit.get("codec", "kl")(kl),
            denoiser=ldmkit.get("denoiser", "unet")(net),
            process=ldmkit.get("process", "discrete")(),
            conditioners={"label": ldmkit.get("conditioner", "label")({"n_classes": 3, "dim": 8, "null_class": 2})},
            defaults={"size": (16, 16)},
        )
        count = sum(p.numel() for part in (toy.codec, toy.denoiser) for p in part.parameters())
        toy.save(Path(folder) / "model")
        sample = ["-c", FIRST_STEP, "sample", f"{folder}/model", "--label", "1", "--out", f"{folder}/out.png"]
        one = {**os.environ, "OMP_NUM_THREADS": "1"}
        times: dict[str, list[float]] = {"import_torch_s": [], "sample_s": []}
        for _ in range(rounds + 1):
            for name, arguments in (("import_torch_s", ["-c", "import os, torch; os._exit(0)"]), ("sample_s", sample)):
                began = time.perf_counter()
                subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env=one)
                times[name].append(time.perf_counter() - began)
    row: dict[str, Any] = {name: round(statistics.median(values[1:]), 3) for name, values in times.items()}
    extra = statistics.median(b - a for a, b in zip(*(values[1:] for values in times.values()), strict=True))
    return {
        "what": f"ldmkit sample of a toy model ({count} weights), process start to the end of its first step",
        **row,
        "beyond_torch_s": round(extra, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--vocab", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--name", default="loading")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [first_step(2 * options.rounds + 1)]
    print(rows[0], flush=True)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="ldmkit-sd15-"))
    try:
        if not (folder / "model_index.json").exists():
            code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from pathlib import Path; "
            vocabulary = f"Path({str(options.vocab)!r})" if options.vocab else "None"
            code += f"import loading; loading.write_folder(Path({str(folder)!r}), {vocabulary})"
            subprocess.run([sys.executable, "-c", code], check=True)
        rows += [loads(folder, dtype, options.rounds) for dtype in ("float32", "bfloat16")]
    finally:
        if options.folder is None:
            shutil.rmtree(folder)
    write(options.name, rows)


if __name__ == "__main__":
    main()
