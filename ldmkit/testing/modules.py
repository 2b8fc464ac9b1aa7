"""What all modules promise, whatever their kind: the checks that suites of codecs, denoisers, conditioners ... share.

A suite describes its part by a subclass of `ModuleSubject` (how inputs are made, how the part is run on them), and
registers the shared checks for its kind with `share(kind)`.
"""

from __future__ import annotations

import copy
import pickle
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ldmkit.models.meta import on_meta
from ldmkit.models.weights import LazyTensor, assign, open_safetensors, write_safetensors
from ldmkit.testing.batches import close, differ, expect_keys, expect_state, leaves, rows_of, same, snapshot
from ldmkit.testing.checks import NotApplicable, check, expect, fail, told
from ldmkit.testing.opened import files_opened
from ldmkit.testing.rng import without_draws

ROWS = 3
"""Samples in the kit's batches."""


@dataclass(frozen=True)
class ModuleSubject(ABC):
    """A part that owns weights, one configuration of it, and how it is run.

    Args:
        cls: the part's class.
        config: of the module that is checked.
        trained: whether it has anything to learn (`Example.trained`).
    """

    cls: type[Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    trained: bool = True

    def build(self) -> Any:
        """A new one as its class makes it, from the same seed each time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.cls(dict(self.config))

    def make(self, seed: int = 0) -> Any:
        """A new one, ready to use, in which no layer is left at zero: such a layer hides what lies behind it."""
        return stirred(self.build(), seed).eval()

    @abstractmethod
    def given(self, part: Any) -> Any:
        """Inputs of `ROWS` samples that all differ: new objects with the same values at every call.

        Tensors (rows first, floating ones in the part's dtype, on its device), lists of one item a sample, and
        mappings and tuples of these.
        """

    @abstractmethod
    def outputs(self, part: Any, given: Any) -> tuple[Tensor, ...]:
        """All that the part makes of the inputs, rows first, in a fixed order."""

    def output_dtype(self, part: Any) -> torch.dtype:
        """What its floating outputs must have."""
        dtype: torch.dtype = part.dtype
        return dtype

    def learning(self, part: Any, given: Any) -> tuple[Tensor, ...]:
        """What training would put into a loss: every parameter that is trained must take part in it."""
        return self.outputs(part, given)


def share(kind: str, leave_out: Sequence[str] = ()) -> None:
    """Register the shared checks for a kind, except those that its suite has in a form of its own."""
    for name, function in SHARED.items():
        if name not in leave_out:
            check(kind, name, cause=name in CAUSES)(function)


def stirred(part: Any, seed: int = 0) -> Any:
    """The part, with noise added to every parameter: half of a usual layer's spread, 0.5 / sqrt(fan-in)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in part.parameters():
            if not parameter.is_floating_point() or not parameter.numel():
                continue
            spread = 0.5 * (parameter.shape[0] / parameter.numel()) ** 0.5 if parameter.ndim > 1 else 0.1
            parameter.add_(spread * torch.randn(parameter.shape, generator=generator).to(parameter))
    return part


def ran(subject: ModuleSubject, part: Any, given: Any) -> tuple[Tensor, ...]:
    """The outputs, without gradients."""
    with torch.no_grad():
        return subject.outputs(part, given)


def meta(s: ModuleSubject) -> None:
    """It is built on the meta device, without reading a file.

    Pipelines are built without memory first, to compare shapes with a weight file before anything is read; then the
    weights take the place of the empty tensors. So `__init__` may not read files (that is what `load_assets` is
    for), nor look at numbers in tensors. Buffers that no file holds (`persistent=False`) need their numbers at
    once: make them with `device="cpu"` and move them where they are used, or compute them at use. What is frozen by
    design (`requires_grad_(False)`, `eval()`) is read off a part that is built so: training leaves it as it is.
    """
    real = s.build()
    with on_meta(), files_opened() as opened:
        bare = s.cls(dict(s.config))
    expect(not opened, "no file to be read while it is built", f"{opened[:3]}")
    state = bare.state_dict()
    there = [key for key, tensor in state.items() if not tensor.is_meta]
    expect(not there, "every tensor of the state dict on the meta device", f"{there[:4]} elsewhere")
    expect_keys(state, real.state_dict(), "built on the meta device")
    differ = sorted(_frozen(bare) ^ _frozen(real))
    expect(not differ, "the same to be frozen there as anywhere", f"{differ[:4]} in one of them alone")


def _frozen(part: nn.Module) -> set[str]:
    """Parameters and modules that the author froze, by name."""
    tensors = {name for name, parameter in part.named_parameters() if not parameter.requires_grad}
    return tensors | {f"{name or 'the part'}.eval()" for name, module in part.named_modules() if not module.training}


def state_keys(s: ModuleSubject) -> None:
    """State-dict keys and shapes are the same in every build, and a run changes neither them nor the numbers.

    Weight files are read by key. Keys that depend on a counter, on the order of a set, or that appear with the first
    call (lazy layers), make files that cannot be read again. Statistics that change while the part is used would make
    results depend on what it was used for before.
    """
    first = s.make()
    before = snapshot(first)
    expect_keys(s.make().state_dict(), before, "a second build")
    ran(s, first, s.given(first))
    expect_state(first.state_dict(), before, "after a run")


def weights(s: ModuleSubject) -> None:
    """Saved to a safetensors file and loaded again, it gives the same results.

    What counts for the results has to be in the state dict (parameters and buffers), in the config, or in what
    `save_assets` writes; a plain tensor attribute is lost. The second one is built on the meta device, as pipelines
    are.
    """
    part = s.make()
    given = s.given(part)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        write_safetensors(path, part.state_dict())
        part.save_assets(Path(folder))
        with on_meta():
            again = s.cls(part.config.model_dump(mode="json"))
        found = open_safetensors(path)
        assign(again, {key: LazyTensor.of(lazy.read(True)) for key, lazy in found.items()}, s.cls.__name__)
        again.load_assets(Path(folder))
        again.eval()
        lost = [name for name, value in plain_tensors(again) if value.is_meta]
        expect(not lost, "every tensor in the state dict, the config or a file", f"only as an attribute: {lost[:4]}")
        expect_state(again.state_dict(), part.state_dict(), "loaded again")
        close(ran(s, again, s.given(again)), ran(s, part, given), "outputs of the loaded one", 1e-6)


def plain_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Tensors that are plain attributes of modules, by path."""
    for path, inner in module.named_modules():
        for name, value in vars(inner).items():
            if isinstance(value, Tensor):
                yield f"{path}.{name}" if path else name, value


def copies(s: ModuleSubject) -> None:
    """It can be pickled and deep-copied; the copy gives the same results and shares nothing with the original.

    Training with several processes pickles parts; averaged weights and tests copy them. Lambdas and open files as
    attributes cannot be pickled: use methods and open files when they are needed.
    """
    part = s.make()
    wanted = ran(s, part, s.given(part))
    for how, copied in (("pickled", _pickled), ("deep-copied", copy.deepcopy)):
        try:
            again = copied(part)
        except Exception as error:
            fail(f"a {how} one", told(error))
        same(ran(s, again, s.given(again)), wanted, f"outputs of a {how} one")
        with torch.no_grad():
            for parameter in again.parameters():
                parameter.zero_()
        same(ran(s, part, s.given(part)), wanted, f"outputs after the {how} one's weights were changed")


def _pickled(part: Any) -> Any:
    return pickle.loads(pickle.dumps(part))


def determinism(s: ModuleSubject) -> None:
    """The same inputs give the same results, bit for bit, whatever was computed before.

    A picture is made again from its recipe. Nothing may be kept from one call to the next that changes a result, and
    nothing may be drawn at random but from noise that the caller hands in.
    """
    part = s.make()
    first = ran(s, part, s.given(part))
    same(ran(s, part, s.given(part)), first, "a second call")
    ran(s, part, rows_of(s.given(part), [1, 0]))
    same(ran(s, part, s.given(part)), first, "a call after other inputs")


def no_global_rng(s: ModuleSubject) -> None:
    """A run neither moves nor reads the global random generators of torch, numpy and Python.

    Random numbers come from `ldmkit.Noise`, by seed of the sample, so that a sample does not depend on what else was
    drawn. `torch.randn(...)` without a generator (within `fork_rng` too), `dropout` that is active in eval mode, and
    `torch.manual_seed` all break this.
    """
    part = s.make()

    def run(seed: int) -> tuple[Tensor, ...]:
        return without_draws(lambda: ran(s, part, s.given(part)), seed)

    first, again, other = run(1), run(1), run(2)
    if differ(again, first):
        raise NotApplicable("it gives other results at every call: see the check determinism")
    same(other, first, "a run with another global seed")


def inputs_untouched(s: ModuleSubject) -> None:
    """What the caller hands in is not written to.

    Samplers keep the tensors they pass, and one input may serve several parts. In-place operations (`x += y`,
    `x.mul_(2)`, `relu(inplace=True)`) are for tensors that the part made itself; lists and mappings are copied
    before they are changed.
    """
    part = s.make()
    given, untouched = s.given(part), s.given(part)
    ran(s, part, given)
    found, wanted = dict(leaves(given)), dict(leaves(untouched))
    expect(list(found) == list(wanted), f"inputs {list(wanted)}", f"after the call: {list(found)}")
    for path, value in wanted.items():
        expect(_unchanged(found[path], value), f"input {path or 'tensor'} as it was handed in", "it was changed")


def _unchanged(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, Tensor):
        return found.dtype == wanted.dtype and found.shape == wanted.shape and torch.equal(found, wanted)
    if isinstance(wanted, np.ndarray):
        return bool(np.array_equal(found, wanted))
    return bool(found is wanted or found == wanted)


def dtype(s: ModuleSubject) -> None:
    """Converted to bfloat16, it takes and returns bfloat16, and the results stay finite.

    `part.to(torch.bfloat16)` converts parameters and buffers; constants made in `forward` have to follow them
    (`torch.zeros(..., dtype=x.dtype, device=x.device)`), and what needs more digits is computed in float32 inside.
    """
    part = s.make().to(torch.bfloat16)
    try:
        outputs = ran(s, part, s.given(part))
    except RuntimeError as error:
        fail("a run in bfloat16", told(error))
    for found in outputs:
        if found.is_floating_point():
            wanted = s.output_dtype(part)
            expect(found.dtype == wanted, f"outputs of {wanted}", f"{found.dtype}")
            expect(bool(found.isfinite().all()), "finite outputs in bfloat16", "NaN or infinity")


def device(s: ModuleSubject) -> None:
    """It works on the device that it was moved to, and its results stay there.

    Checked on an accelerator where there is one, and on the meta device otherwise, where a tensor that was made
    elsewhere is found just the same. A part whose steps depend on numbers in tensors cannot run there, and is not
    checked then.
    """
    where = torch.device("cuda" if torch.cuda.is_available() else "meta")
    part = s.make().to(where)
    if part.device.type != where.type:
        raise NotApplicable("it has no tensors of its own")
    try:
        found = ran(s, part, s.given(part))
    except (RuntimeError, NotImplementedError, TypeError) as error:
        if where.type == "meta" and any(words in str(error) for words in _NEEDS_NUMBERS):
            raise NotApplicable("its steps depend on numbers, and there is no accelerator here") from None
        fail(f"a run on {where}", told(error))
    for tensor in found:
        expect(tensor.device.type == where.type, f"outputs on {where}", f"on {tensor.device}")


_NEEDS_NUMBERS = (
    "cannot be called on meta tensors",
    "no data",
    "can't convert meta",
    "meta tensor",
    "Meta tensor",
    "'Meta' backend",
    "not implemented for 'Meta'",
)


def batch_invariance(s: ModuleSubject) -> None:
    """A sample alone gives what it gives within a batch, up to rounding.

    Sample b of a seed is the same picture whatever it is sampled with. Statistics over the batch (batch norm in
    training mode, a mean over all rows), and padding that is not masked, break this.
    """
    part = s.make()
    whole = ran(s, part, s.given(part))
    for row in range(ROWS):
        alone = ran(s, part, rows_of(s.given(part), [row]))
        close(alone, [out[row : row + 1] for out in whole], f"sample {row} alone, and in a batch of {ROWS}")


def training_rows(s: ModuleSubject) -> None:
    """In training mode too, a sample gives the same whatever the other samples of its batch are.

    Batch norm and other statistics over the batch make a batch in parts (`accumulate`, several processes) another
    training than a whole one, and their running averages are another model than the one that was trained: use group
    or layer norm. Dropout draws the same numbers in both runs, and is no fault.
    """
    part, runs = s.make().train(), []
    for rows in ([0, 1, 1, 1], [0, 1, 0, 0]):  # the same samples, as others might be longer; another mean
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            runs.append([out[:2] for out in ran(s, part, rows_of(s.given(part), rows))])
    close(runs[1], runs[0], "samples 0 and 1 in training mode, with others beside them")


def order(s: ModuleSubject) -> None:
    """Samples in another order give the same results in that order.

    No row may know its place in the batch.
    """
    part = s.make()
    whole = ran(s, part, s.given(part))
    turned = list(reversed(range(ROWS)))
    close(ran(s, part, rows_of(s.given(part), turned)), [out[turned] for out in whole], "the batch in reverse order")


def gradients(s: ModuleSubject) -> None:
    """Gradients reach every parameter that asks for one, and are finite.

    A parameter without a gradient is never trained: it was left out of the forward pass, or a `detach`, a `no_grad`,
    or a conversion to numbers cut it off. What is frozen by design says so with `requires_grad_(False)`.
    """
    if not s.trained:
        raise NotApplicable("its example says that it has nothing to learn")
    part = s.make().train()
    wanted = {name: p for name, p in part.named_parameters() if p.requires_grad}
    if not wanted:
        raise NotApplicable("no parameter asks for a gradient")
    losses = [out.float().square().mean() for out in s.learning(part, s.given(part)) if out.requires_grad]
    expect(bool(losses), "outputs that gradients can start from", "none of the outputs requires a gradient")
    torch.autograd.backward(losses)
    without = [name for name, p in wanted.items() if p.grad is None]
    expect(not without, "a gradient for every parameter", f"none for {len(without)}: {without[:4]}")
    broken = [name for name, p in wanted.items() if p.grad is not None and not bool(p.grad.isfinite().all())]
    expect(not broken, "finite gradients", f"NaN or infinity for {broken[:4]}")


SHARED: dict[str, Callable[[ModuleSubject], None]] = {
    "meta": meta,
    "state-keys": state_keys,
    "safetensors": weights,
    "copies": copies,
    "no-global-rng": no_global_rng,
    "determinism": determinism,
    "inputs-untouched": inputs_untouched,
    "dtype": dtype,
    "device": device,
    "batch-invariance": batch_invariance,
    "training-rows": training_rows,
    "order": order,
    "gradients": gradients,
}
"""The shared checks by name, in the order in which they are registered."""

CAUSES = ("no-global-rng", "determinism")
"""Shared checks that others depend on: what gives other numbers at every call can be compared with nothing."""
