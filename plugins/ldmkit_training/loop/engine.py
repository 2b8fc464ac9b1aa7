"""The training loop: from a recipe to a saved model, with checkpoints that resume bit for bit."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ldmkit import Batch, RunError, Turn, get
from ldmkit.models.memory import memory
from ldmkit.run.faults import blaming
from ldmkit_training.before.opening import open_recipe
from ldmkit_training.before.recipe import Recipe, write_recipe
from ldmkit_training.before.rehearsal import rehearse
from ldmkit_training.before.same_run import check_same_run, rate_jumps
from ldmkit_training.before.space import short_of_space
from ldmkit_training.data.batches import Batches, validation_batches
from ldmkit_training.data.identity import identity
from ldmkit_training.loop import checkpoints
from ldmkit_training.loop.best import Best, best_before
from ldmkit_training.loop.checkpoints import Checkpoint
from ldmkit_training.loop.devices import on_device, open_accelerator
from ldmkit_training.loop.digests import digest_of
from ldmkit_training.loop.ema import Ema, averaged_weights
from ldmkit_training.loop.finishing import check_frozen, measure, save_best, save_gathered
from ldmkit_training.loop.interrupts import Interrupts, Outcome, Signalled, at_once, between_calls
from ldmkit_training.loop.rescue import is_resumable, save_before_error, weight_versions, with_last_checkpoint
from ldmkit_training.loop.resuming import check_state, check_tensors
from ldmkit_training.loop.runfolder import CHECKPOINTS, MODEL, RECIPE, check_run_folder, open_folder, released_on_error
from ldmkit_training.loop.sharding import is_sharded, resharded, shard, unsharded
from ldmkit_training.loop.state import checkpoint_of, restore
from ldmkit_training.loop.steps import Steps
from ldmkit_training.loop.together import Stopped, Together
from ldmkit_training.stages.taken_over import parts_of
from ldmkit_training.watch.observe import Callback
from ldmkit_training.watch.progress import Progress
from ldmkit_training.watch.quieter import few_warnings
from ldmkit_training.watch.tracking import Tracker
from ldmkit_training.watch.watchers import intervals, watchers

ASKED_EVERY = 10
"""On GPUs, steps between two checks whether another process was asked to stop."""


class Engine:
    """A run, in one of its processes. Callbacks see it as an `observe.EngineView`.

    Args:
        recipe: what to do.
        folder: the recipe's, from which its paths start.
        fresh: start over even if there are checkpoints; the earlier run's folder is renamed.
        allow_changed_data: resume from a checkpoint even if the training data have changed.

    Attributes:
        main: whether this process writes files.
        sharded: whether weights are sharded among processes (FSDP2).
    """

    def __init__(self, recipe: Recipe, folder: Path, *, fresh: bool = False, allow_changed_data: bool = False) -> None:
        self.recipe, self.folder = recipe, folder
        self.accelerator = open_accelerator()
        self.device: torch.device = self.accelerator.device
        self.main = bool(self.accelerator.is_main_process)
        self.sharded = is_sharded(recipe) and self.accelerator.num_processes > 1
        self.together = Together(self.accelerator)
        self.out = Path(recipe.out)
        check_run_folder(self.out, get("stage", recipe.stage), fresh=fresh)
        self.checkpoints = self.out / CHECKPOINTS
        self.step = 0
        # nothing is written or moved before everything that the recipe names has been found and built
        self.stage, self.train_data, self.validation_data = open_recipe(recipe, folder, self.accelerator)
        self._frozen = {name: digest_of(module.state_dict()) for name, module in self.stage.frozen.items()}
        self._parts = parts_of(self.stage)
        if not self.sharded:  # whole networks may not fit on a device that their shards fit on
            with self.together.agreed():
                rehearse(recipe, self.stage, self.train_data, self.validation_data, self.accelerator, folder)
        self._data = identity(self.train_data) if self.main else {}
        self._allow_changed_data = allow_changed_data
        self.changed: list[str] = []
        self.rate_jumps: list[str] = []
        self._lock = open_folder(self.out, self.accelerator, fresh=fresh)
        if self.main and (said := short_of_space(recipe, self.stage, self.out)) is not None:
            warnings.warn(said, stacklevel=2)
        with released_on_error(self._lock):
            self._open()

    def _open(self) -> None:
        """Set up the run in its folder, from the newest checkpoint if there is one."""
        found, recipe = self._newest_checkpoint(), self.recipe
        self.stage.to(self.device)
        for turn in self.stage.turns.values():
            turn.to(self.device)
            turn.train()
            if self.sharded:
                shard(turn, self.device, self.accelerator.num_processes)
        self.ema = None if recipe.ema is None else Ema(self.stage.averaged, recipe.ema)
        optimisers = {name: recipe.optimiser.build(turn, name) for name, turn in self.stage.turns.items()}
        self.steps = Steps(recipe, self._wrapped(), optimisers, self.accelerator)
        if found is not None:
            restore(found, self.stage, self.steps, self.ema)
            self.step = found.step
        section = recipe.checkpoints.best
        self.best = (
            None
            if section is None
            else Best(section, best_before(None if found is None else found.state, section, self.out))
        )
        self.tracker: Tracker | None = None
        self.callbacks: list[Callback] = []
        self.batches: Batches | None = None
        self._progress: Progress | None = None
        self._changes: int | None = None

    @property
    def has_average(self) -> bool:
        """Whether a running average of the weights is kept."""
        return self.ema is not None

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside the block the networks have the averaged weights; afterwards their own are restored bit for bit."""
        turns = self.stage.turns.values()
        with resharded(turns, self.sharded), averaged_weights(self.stage, self.ema), unsharded(turns, self.sharded):
            yield

    def track(self, figures: Mapping[str, float], step: int) -> None:
        """Figures to the log and the trackers."""
        if self.tracker is not None:
            self.tracker.log(figures, step)

    def picture(self, name: str, image: Image.Image, step: int) -> None:
        """Send a picture to those trackers that accept pictures."""
        if self.tracker is not None:
            self.tracker.picture(name, image, step)

    def say(self, text: str) -> None:
        """Print a line."""
        if self._progress is not None:
            self._progress.say(text)

    def run(self) -> Outcome:
        """Train to the last step or until a signal; save the model.

        Raises:
            RunError: a loss that is NaN, a full disk, memory exhausted; the last good checkpoint is named.
        """
        try:
            try:
                with at_once():
                    self._start_watching()
            except Signalled as signalled:
                return Outcome(self.step, signalled.name, None)
            with Interrupts() as interrupts, Progress(self.recipe.steps, start=self.step, shown=self.main) as progress:
                self._progress = progress
                with suppress(Stopped), few_warnings(self.say):
                    self._loop(interrupts, progress)
                self._report_damaged()
            if self.step < self.recipe.steps:
                return Outcome(self.step, interrupts.asked or "another process", None)
            try:
                with at_once():
                    return Outcome(self.step, None, self._finish())
            except Signalled as signalled:  # the last checkpoint exists: running the same command again saves the model
                return Outcome(self.step, signalled.name, None)
        finally:
            if self.tracker is not None:
                self.tracker.close()
            if self._lock is not None:
                self._lock.close()

    def _start_watching(self) -> None:
        """Set up previews, the probe and the log, and write the resolved recipe."""
        if self.main or self.sharded:
            data = (self.train_data, self.validation_data)
            self.callbacks += watchers(self.recipe, self.stage, *data, self.device, self.step, self.folder)
        if self.main:
            write_recipe(self.recipe, self.out / RECIPE)
            checkpoints.keep_newest(self.checkpoints, self.step, self.recipe.checkpoints.keep)
            config = self.recipe.model_dump(mode="json")
            self.tracker = Tracker(self.recipe.tracking, self.out, start=self.step, config=config)

    def _loop(self, interrupts: Interrupts, progress: Progress) -> None:
        self._saved = self.step
        try:
            with blaming():
                self._train(interrupts, progress)
        except Exception as error:
            buffers = self._changes is not None and self._changes != weight_versions(self.stage.turns.values())
            half = self.steps.half or buffers
            here = self.together.failed if self.sharded else self.main
            if self._saved < self.step and here and is_resumable(error, half):
                save_before_error(error, self.step, self._write)
            raise

    def _train(self, interrupts: Interrupts, progress: Progress) -> None:
        recipe = self.recipe
        often = 1 if self.device.type == "cpu" else recipe.tracking.every
        with self.together.agreed():
            batches = iter(self._batches(interrupts))
        for _ in range(recipe.steps - self.step):
            with self.together.agreed():
                step, parts = self._next_batches(batches)
            self._step(step, parts)
            self.step = step + 1
            last = self.step == recipe.steps
            if self.step % often == 0 or last:
                self.steps.check()
                loss = self.steps.loss
                progress.update(self.step, math.nan if loss is None else float(loss), recipe.data.batch)
            if self.step % recipe.tracking.every == 0 or last:
                self._log(progress)
            self._watch_if_due(interrupts, last)
            stopping = self._stopping(interrupts)
            if self.step % recipe.checkpoints.every == 0 or last or stopping:
                self.save()
                stopping |= self.accelerator.num_processes == 1 and interrupts.asked is not None  # while it was written
            if self.step % often == 0:
                progress.skip()
            if stopping:
                return
        if self._saved < self.step:
            self.save()
        if recipe.steps == 0:  # nothing is trained, but the model as it is can be validated
            self._watch_if_due(interrupts, True)

    def _next_batches(self, batches: Iterator[tuple[int, list[Batch]]]) -> tuple[int, list[Batch]]:
        """The micro-batches of the next step. Each process checks its inputs before the step, because an error in one
        process in the middle of it would leave the others waiting."""
        step, parts = next(batches)
        for part in parts if self.together.count > 1 else ():
            for name, inputs in zip(part.ids, part.inputs, strict=True):
                self.stage.parsed(inputs, name)
        return step, parts

    def _step(self, step: int, parts: list[Batch]) -> None:
        self._changes = weight_versions(self.stage.turns.values())
        try:
            with memory(f"step {step + 1}", f"{sum(len(part.ids) for part in parts)} pictures"):
                self.steps.run(step, parts)
        except RunError as error:
            raise with_last_checkpoint(error, self.checkpoints) from error
        if self.ema is not None:
            self.ema.update()
        self._changes = None

    def _log(self, progress: Progress) -> None:
        figures = self.steps.meter.read(self.accelerator)
        self.track({**figures, "lr": self.steps.rate, "images/s": progress.speed}, self.step)

    def _watch_if_due(self, interrupts: Interrupts, last: bool) -> None:
        """Run the validation, previews and probes that are due. A signal ends them; with sharded weights, which need
        all processes, they are finished first. Whether any is due follows from the recipe: all processes wait."""
        section = self.recipe.validation
        validate = section is not None and self.validation_data is not None and (last or self.step % section.every == 0)
        if not validate and not any(last or self.step % every == 0 for every in intervals(self.recipe)):
            return
        with self.together.agreed():
            if self.main or self.sharded:
                due = [callback for callback in self.callbacks if last or self.step % callback.every == 0]
                self._run_callbacks(interrupts, due, validate)

    def _run_callbacks(self, interrupts: Interrupts, due: list[Callback], validate: bool) -> None:
        asked = (lambda: None) if self.sharded else (lambda: interrupts.asked)
        try:
            with between_calls(asked), unsharded(self.stage.turns.values(), self.sharded):
                if validate:
                    self._validate()
                for callback in due:
                    callback(self, self.step)
        except Signalled as signalled:
            self.say(f"{signalled.name}: what was being looked at after step {self.step} is left out")

    def _validate(self) -> None:
        assert self.recipe.validation is not None and self.validation_data is not None
        count = self.recipe.validation.count
        batches = validation_batches(self.validation_data, self.recipe.data, count, names=self.stage.inputs)
        with self.averaged(), torch.no_grad():
            figures = self.stage.validate(on_device(batch, self.device) for batch in batches)
            if self.best is not None and self.best.improves(figures, self.step) and self.main:
                save_best(self.best, self.stage, self.train_data, self.recipe, self.device, self.out)
        self.track({f"validation/{name}": value for name, value in figures.items()}, self.step)

    def _stopping(self, interrupts: Interrupts) -> bool:
        if self.accelerator.num_processes == 1:
            return interrupts.asked is not None
        if self.device.type != "cpu" and self.step % ASKED_EVERY:
            return False
        asked = torch.tensor(float(interrupts.asked is not None), device=self.device)
        return bool(self.accelerator.reduce(asked, reduction="sum") > 0)

    def _finish(self) -> Path:
        """Let the stage take its final measurements with the weights to be saved, and write the model."""
        target = self.out / MODEL
        if self.sharded:
            save_gathered(self.stage, self.ema, self.recipe, self.folder, target if self.main else None)
        elif self.main:
            check_frozen(self.stage, self._frozen)
            with self.averaged():
                measure(self.stage, self.train_data, self.recipe, self.device)
                self.stage.save(target)
        self.accelerator.wait_for_everyone()
        return target

    def _batches(self, interrupts: Interrupts | None = None) -> Iterable[tuple[int, list[Batch]]]:
        recipe, accelerator = self.recipe, self.accelerator
        cache = self._cache(interrupts)
        self.batches = Batches(
            self.train_data, recipe.data, seed=recipe.seed, rank=accelerator.process_index,
            world=accelerator.num_processes, accumulate=recipe.accumulate, names=self.stage.inputs, cache=cache,
        )  # fmt: skip
        return self.batches.steps(self.step)

    def _report_damaged(self) -> None:
        if self.batches is not None and (report := self.batches.report).skipped:
            self.say(f"{report.skipped} damaged samples were skipped, {len(report.damaged)} of them different, such as")
            for problem in islice(report.damaged.values(), 3):
                self.say(f"  {problem}")

    def _cache(self, interrupts: Interrupts | None) -> Any:
        if self.recipe.data.cache is None:
            return None
        codec = self.stage.frozen_codec
        assert codec is not None, "checked by check_ready"
        from ldmkit_training.data.cache.reading import latent_caches

        def progress(_done: int, _samples: int) -> None:
            if interrupts is not None and interrupts.asked is not None:
                raise Stopped  # the next run continues encoding from here

        return latent_caches(self.train_data, self.recipe.data, codec, self.folder, say=self.say, progress=progress)

    def _wrapped(self) -> dict[str, Turn]:
        if self.accelerator.num_processes == 1 or self.sharded:
            return dict(self.stage.turns)
        return {name: self.accelerator.prepare_model(turn) for name, turn in self.stage.turns.items()}

    def save(self) -> Path | None:
        """Write a checkpoint of the completed steps.

        Raises:
            RunError: `checkpoint-failed`; or the loss was NaN, in which case nothing is written.
        """
        try:
            self.steps.check()
        except RunError as error:
            raise with_last_checkpoint(error, self.checkpoints) from error
        written = self._write() if self.main or self.sharded else None
        self.accelerator.wait_for_everyone()
        self._saved = self.step
        return written

    def _write(self) -> Path | None:
        made = self._checkpoint()
        return checkpoints.write(self.checkpoints, made, self.recipe.checkpoints.keep) if self.main else None

    def _checkpoint(self) -> Checkpoint:
        known = {"frozen": self._frozen, "data": self._data, "parts": self._parts}
        known |= {"best": self.best.note} if self.best is not None and self.best.note is not None else {}
        return checkpoint_of(self.step, self.recipe, self.stage, self.steps, self.ema, known)

    def _newest_checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint this run can resume from, if any; the main process searches for all processes."""
        found = checkpoints.resumable(self.checkpoints, self._check_resumable) if self.main else None
        if self.accelerator.num_processes > 1:
            from accelerate.utils import broadcast_object_list

            steps = [None if found is None else found.step]
            broadcast_object_list(steps)
            if not self.main and steps[0] is not None:
                found = checkpoints.read(checkpoints.folder_of(self.checkpoints, steps[0]))
        return found

    def _check_resumable(self, found: Checkpoint) -> None:
        """Check that a checkpoint is complete and belongs to this run."""
        folder = checkpoints.folder_of(self.checkpoints, found.step)
        check_state(found, folder)
        self.changed = check_same_run(
            found, folder, self.recipe, self._frozen, self._data, self._parts,
            allow_changed_data=self._allow_changed_data,
        )  # fmt: skip
        check_tensors(found, self.stage, self.recipe, folder)
        self.rate_jumps = rate_jumps(found.state["recipe"], self.recipe, found.step)
