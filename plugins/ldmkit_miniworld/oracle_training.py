"""Trains the oracle on renders of the world: `python -m ldmkit_miniworld.oracle_training --work FOLDER`.

Some seven minutes on one core. The run goes on from its last checkpoint when it is started again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ldmkit_miniworld.oracle import FOLDER, Oracle, as_tensor
from ldmkit_miniworld.oracle_accuracy import held_out, tuned
from ldmkit_miniworld.oracle_losses import Targets, losses, targets_of, total
from ldmkit_miniworld.oracle_network import OracleNetwork
from ldmkit_miniworld.oracle_views import spoiled
from ldmkit_miniworld.world import World

BATCH, DECAY, RATE = 64, 0.998, 3e-3
_EVERY = 250


def rendered(folder: Path, count: int) -> tuple[np.ndarray, Targets]:
    """Pictures (count,64,64,3) uint8 of the training split and what is in them, drawn once and kept in a folder."""
    path = folder / f"renders-{count}.npz"
    if not path.is_file():
        world, began = World(size=64), time.perf_counter()
        pictures = [world.sample("train", index) for index in range(count)]
        targets = targets_of(pictures)
        arrays = {name: value.numpy() for name, value in targets._asdict().items()}
        np.savez(path, images=np.stack([picture.image for picture in pictures]), **arrays)
        print(f"{count} pictures drawn, {count / (time.perf_counter() - began):.0f} a second", flush=True)
    with np.load(path) as kept:
        images = kept["images"]
        return images, Targets(**{name: torch.from_numpy(kept[name]) for name in Targets._fields})


class TrainingRun:
    """Network, its running average and the optimiser, in one file that a later run goes on from."""

    def __init__(self, folder: Path, steps: int, seed: int):
        torch.manual_seed(seed)
        self.folder, self.steps, self.seed, self.step = folder, steps, seed, 0
        self.network = OracleNetwork().to(memory_format=torch.channels_last)
        self.average = OracleNetwork()
        self.average.load_state_dict(self.network.state_dict())
        self.optimiser = torch.optim.AdamW(self.network.parameters(), RATE, weight_decay=1e-2)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimiser, RATE, total_steps=steps + 1)
        if (folder / "state.pt").is_file():
            state = torch.load(folder / "state.pt", weights_only=True)
            self.step = state["step"]
            for name in ("network", "average", "optimiser", "schedule"):
                getattr(self, name).load_state_dict(state[name])

    def save(self) -> None:
        """Replace the checkpoint."""
        names = ("network", "average", "optimiser", "schedule")
        state = {"step": self.step, **{name: getattr(self, name).state_dict() for name in names}}
        torch.save(state, self.folder / "state.part")
        (self.folder / "state.part").replace(self.folder / "state.pt")

    def advance(self, images: Tensor, targets: Targets) -> dict[str, float]:
        """One optimiser step; the loss terms."""
        self.network.train()
        with torch.autocast("cpu", torch.bfloat16):
            signs = self.network(images.contiguous(memory_format=torch.channels_last))
        terms = losses(type(signs)(*(field.float() for field in signs)), targets, self.network.centres)
        self.optimiser.zero_grad(set_to_none=True)
        total(terms).backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimiser.step()
        self.schedule.step()
        self.step += 1
        self._follow(min(DECAY, (1 + self.step) / (10 + self.step)))
        return {name: float(value.detach()) for name, value in terms.items()}

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        for mine, theirs in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs.to(mine.dtype), 1 - decay)
            else:
                mine.copy_(theirs)


def train(run: TrainingRun, images: np.ndarray, targets: Targets, until: int, batch: int = BATCH) -> None:
    """Up to a step of the schedule. Which pictures a step sees depends on seed and step alone."""
    began, seen = time.perf_counter(), dict[str, float]()
    while run.step < min(until, run.steps):
        generator = torch.Generator().manual_seed(run.seed * 1_000_003 + run.step)
        rows = torch.randint(len(images), (batch,), generator=generator)
        views = spoiled(as_tensor(list(images[rows.numpy()])), generator)
        terms = run.advance(views, Targets(*(field[rows] for field in targets)))
        seen = {name: 0.98 * seen.get(name, value) + 0.02 * value for name, value in terms.items()}
        if run.step % _EVERY == 0:
            run.save()
            shown = " ".join(f"{name} {value:.3f}" for name, value in seen.items())
            print(f"{run.step:6d} {time.perf_counter() - began:5.0f} s {shown}", flush=True)
    run.save()


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="renders and checkpoints")
    parser.add_argument("--pictures", type=int, default=24000)
    parser.add_argument("--steps", type=int, default=1700, help="length of the schedule of the learning rate")
    parser.add_argument("--until", type=int, default=750, help="step to stop at")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out", type=int, default=400, help="pictures of the test split to be judged by")
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    images, targets = rendered(options.work, options.pictures)
    run = TrainingRun(options.work, options.steps, options.seed)
    train(run, images, targets, options.until)
    oracle = tuned(Oracle(run.average))
    oracle.save(options.out)
    oracle.held_out = held_out(Oracle.load(options.out), "test", options.held_out)  # as rounded to what is in the file
    oracle.save(options.out)
    print("\n".join(f"{name:24s} {value:.4f}" for name, value in oracle.held_out.items()))


if __name__ == "__main__":
    main()
