"""The contracts of the kinds (sources of data: `ldmkit.data`). Plugins implement these ABCs and receive the Protocols.

Modules (codec, denoiser, conditioner, adapter) own weights and have a frozen `Config`; strategies (process, sampler,
grid, guidance) are frozen values. A run's state is in the frame x = x0 + sigma * n, always; sigmas are floats.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from ldmkit.data import Data as Data
from ldmkit.errors import CompositionError
from ldmkit.examples import Example
from ldmkit.guides import Evaluate as Evaluate
from ldmkit.guides import Guidance as Guidance
from ldmkit.guides import View as View
from ldmkit.jsonio import raw_input
from ldmkit.judges import Classifier as Classifier
from ldmkit.judges import Perceptual as Perceptual
from ldmkit.latents import Latents as Latents
from ldmkit.latents import Reconstruction as Reconstruction
from ldmkit.parts import Part as Part
from ldmkit.plans import Network, network_of
from ldmkit.ports import Port, Tap
from ldmkit.runs import Arrivals as Arrivals
from ldmkit.runs import Context as Context
from ldmkit.runs import Denoise as Denoise
from ldmkit.runs import Frame as Frame
from ldmkit.runs import Run as Run
from ldmkit.runs import Step as Step
from ldmkit.signals import Join as Join
from ldmkit.signals import Signal, SignalKind, zeros_like
from ldmkit.signals import Slot as Slot
from ldmkit.value import Value, parse
from ldmkit.work import Direction as Direction
from ldmkit.work import Work as Work


class Codec(Part, ABC):
    """First stage: pictures (B,3,H,W) in [-1,1] <-> latents (B,channels,H/factor,W/factor) of about unit variance.

    Scale, shift, posterior and quantiser are its own business."""

    channels: int
    factor: int

    @property
    def multiple(self) -> int:
        """Heights and widths of pictures must be multiples of this."""
        return self.factor

    @property
    def standardises(self) -> bool:
        """Whether the scale of its latents is known: a first stage's own file may not say it."""
        return True

    @abstractmethod
    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latents of pictures; `noise` (unit normal, latent shape) samples the posterior, None takes its mode.

        Sides that are no multiples of `multiple` are an `InputError`."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures of latents; differentiable; not clipped. A VQ codec quantises in here."""

    def raw(self, latents: Tensor) -> Tensor:
        """Standardised latents in the encoder's own units; the same where a codec neither scales nor shifts."""
        return latents

    def preview(self, latents: Tensor) -> Tensor:
        """A cheap decode for progress pictures; may be small. Defaults to `decode`."""
        return self.decode(latents)

    def footprint(self, batch: int, size: tuple[int, int], direction: Direction) -> Work:
        """What one `encode` or `decode` of `batch` pictures of (height, width) takes, without running it. Optional."""
        return Work()

    def reconstruct(self, images: Tensor, noise: Tensor | None = None) -> Reconstruction:
        """Encode and decode with the regulariser's loss, for training. Optional."""
        raise CompositionError("not-trainable", f"{type(self).__name__} cannot be trained: it has no reconstruct()")

    @property
    def last_layer(self) -> nn.Parameter:
        """Weight of the decoder's last convolution, for the adaptive adversarial weight. Optional."""
        raise CompositionError("not-trainable", f"{type(self).__name__} names no last layer")


class Denoiser(Part, ABC):
    """The raw network F(x, t, context). It publishes slots (conditions) and ports (places for adapters)."""

    channels: int
    slots: Mapping[str, Slot]
    ports: Mapping[str, Port]
    latents: Latents | None = None
    """Those of the codec that it was loaded with."""
    smallest: int = 1
    """Latents must have at least this many rows and columns."""
    plans: tuple[str, ...] = ("eager", "auto", "compiled", "graphed")
    """Execution plans that `plan` takes; "auto" is the fastest one for the device by what was measured."""
    regions: tuple[type[nn.Module], ...] = ()
    """Classes of the repeated blocks, which the plan "compiled" compiles one by one; (): the whole network at once."""

    @abstractmethod
    def prepare(self, signals: Mapping[str, Signal]) -> Context:
        """Once per run: project cross-attention K and V, embed vectors. Absent optional slots are allowed."""

    @abstractmethod
    def forward(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        """F. x (B,channels,h,w) already scaled; t (B,) float; -> (B,channels,h,w). `sigma` is passed on to taps.

        Nothing is kept on the module, not even for the length of a call: threads share it."""

    def footprint(self, rows: int, size: tuple[int, int]) -> Work:
        """What one call for x (rows, channels, *size) takes, without running it. Optional."""
        return Work()

    def plan(self, name: str) -> Network:
        """The network to call by an execution plan, with `forward`'s arguments; "eager" is the denoiser itself.

        A plan is made from the weights as they are now; it refuses a run after they changed, moved or were converted.

        Raises:
            CompositionError: `unknown-plan` (with those on offer), or `plan-unavailable` on this device or dtype.
        """
        return network_of(self, name)


class Conditioner(Part, ABC):
    """Raw input -> one signal, and its null.

    `Input` is the type of ONE sample's raw input, anything pydantic validates; its JSON schema is what the
    command line is made from.
    """

    Input: ClassVar[Any]
    kind: SignalKind
    """Set on the class, or by `__init__` where the config decides."""
    dim: int
    has_null: bool = True
    """False where leaving the condition out has no meaning (a picture to enlarge): the input is then required."""

    @abstractmethod
    def forward(self, inputs: list[Any]) -> Signal:
        """Encode a batch of validated inputs: one row each."""

    def on_grid(self, inputs: list[Any], grid: tuple[int, int]) -> Signal:
        """`forward` for latents of grid = (h, w) cells; for planes whose inputs do not tell their size (boxes)."""
        signal: Signal = self(inputs)
        return signal

    def null(self, like: Signal) -> Signal:
        """The signal that means "no condition", with the rows of `like`. Zeros by default."""
        return zeros_like(like)

    def default(self, size: tuple[int, int]) -> Any | None:
        """The input to assume where the caller gave none, for pictures of (height, width); None: use the null."""
        return None

    def example(self, size: tuple[int, int]) -> Any | None:
        """Some valid raw input for pictures of (height, width), whatever it says: it gives the null its shape
        where the caller left the condition out. None: there is no such input, and leaving it out is an error."""
        return None

    def propose(self, given: Mapping[str, Any], size: tuple[int, int], seed: int) -> Any | None:
        """The parsed input to draw with where the caller gave none, made up from those that it gave; None: nothing.

        Asked once a picture, with its seed, where no picture is started from; the same for the same arguments.
        `given` holds parsed inputs by name.
        """
        return None

    @property
    def proposer(self) -> nn.Module | None:
        """The network behind `propose`, which is trained apart from the rest; None: there is none."""
        return None

    def proposal_losses(self, rows: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Tensor]:
        """What trains `proposer`: scalars to be added up, means over rows of parsed inputs; `name` is its own input."""
        raise CompositionError("not-trainable", f"{type(self).__name__} has no proposer to train")

    def picture_size(self, value: Any, factor: int) -> tuple[int, int] | None:
        """(height, width) of the pictures that a parsed input of a plane asks for, for a codec of that factor."""
        return None

    def known(self, value: Any) -> tuple[Tensor, Tensor] | None:
        """Picture (3,H,W) in [-1,1] of a parsed input that the result must keep where its mask (1,H,W) is 0."""
        return None

    def bind(self, codec: Codec) -> None:
        """Called once when a pipeline is composed, for conditioners that use its codec, or must fit its latents."""

    def adopt(self, other: Conditioner) -> None:
        """Use `other`'s weights (spec: `shares`). Optional."""
        raise CompositionError("cannot-share", f"{type(self).__name__} cannot share {type(other).__name__}'s weights")

    def parse(self, raw: Any, where: str) -> Any:
        """One raw input, validated; subclasses may add checks that need the config (class counts ...).

        Raises:
            InputError: with the path of the offending item.
        """
        return parse(self.Input, raw, where)

    @classmethod
    def from_text(cls, text: str) -> Any:
        """A command-line argument as a raw input: JSON, the path of a .json file, a number, or the text itself."""
        return raw_input(text)


class Adapter(Part, ABC):
    """Extends a denoiser through its ports. A new, zero-initialised one is the identity, bit for bit."""

    slots: Mapping[str, Slot]

    @abstractmethod
    def taps(self, name: str) -> Mapping[str, Tap]:
        """Port name -> tap, for the adapter attached under `name` (its key in `Context.adapters`).

        Equal taps at every call, of tuned copies too; without an entry of that name they return what they get."""

    def prepare(self, context: Context, name: str) -> Any:
        """Once per run: what the taps need, kept in `context.adapters[name]`. `context.run` tells the sigmas.

        The signals of its slots are in `context.signals` under `<name>.<slot>`; they may be absent. Rows in which
        `context.present["<name>.<slot>"]` is False get what they would get without the condition."""
        return None

    def drops(self, slot: str) -> bool:
        """Whether the input of a slot is dropped with the others although its wiring says `keep`."""
        return False

    def tuned(self, **changes: Any) -> Self:
        """The same weights with other options; which ones may change after building is the adapter's to say."""
        other = copy.copy(self)
        other.config = self.Config.of({**dict(self.config), **changes}, f"{type(self).__name__} config")
        return other


class Process(Value, ABC):
    """The forward process and what F predicts: D(x, sigma) = skip * x + out * F(scale * x, time)."""

    examples: ClassVar[tuple[Example, ...]] = (Example(),)
    api: ClassVar[int]  # both as `Part` has them

    @property
    @abstractmethod
    def sigma_min(self) -> float:
        """Smallest noise level, finite and > 0."""

    @property
    @abstractmethod
    def sigma_max(self) -> float:
        """Largest noise level, finite; flow and zero-terminal-SNR schedules clamp."""

    @abstractmethod
    def time(self, sigma: float) -> float:
        """What the network reads for a noise level."""

    def time_between(self, sigma: float) -> float:
        """What the network reads for a noise level that a sampler visits between those of the grid."""
        return self.time(sigma)

    @property
    def timesteps(self) -> int | None:
        """T where the schedule is a table over the integers 0 ... T-1; None where time is continuous."""
        return None

    def sigma_of_time(self, time: float) -> float:
        """Inverse of `time`: the noise level for what the network reads. Optional; grids over timesteps need it."""
        raise CompositionError("no-timesteps", f"{type(self).__name__} has no noise level for a given time")

    @abstractmethod
    def sigma(self, u: float) -> float:
        """Noise level at quantile u in [0, 1] of the training distribution; increasing in u."""

    @abstractmethod
    def scalings(self, sigma: float) -> tuple[float, float, float]:
        """(skip, out, scale) at a noise level."""

    def alpha(self, sigma: float) -> float:
        """Factor between this frame and the process's own: VP sqrt(alpha_bar) = (1+sigma^2)^-1/2, flow 1/(1+sigma)."""
        return 1.0

    def prior(self, noise: Tensor, sigma: float) -> Tensor:
        """The state to start a run from: unit noise in the process's own frame, brought to x = x0 + sigma * n."""
        return noise * max(1.0 / self.alpha(sigma), sigma)

    def settled(self, x: Tensor, sigma: float) -> Tensor:
        """The latents that a run's last state x = x0 + sigma * n stands for: by default in the process's own frame."""
        return x * self.alpha(sigma)

    def target(self, x0: Tensor, noise: Tensor, sigma: Sequence[float]) -> Tensor:
        """What F should return for x = x0 + sigma * n, one sigma a row: the F at which D equals x0."""
        rows = [self.scalings(s) for s in sigma]
        on_x0 = [(1 - skip) / out for skip, out, _ in rows]
        on_noise = [-skip * s / out for (skip, out, _), s in zip(rows, sigma, strict=True)]
        return column(on_x0, x0) * x0 + column(on_noise, x0) * noise


class Sampler(Value, ABC):
    """A generator of steps over `denoise`. Stateless: run-time state lives in the generator."""

    examples: ClassVar[tuple[Example, ...]] = (Example(),)
    api: ClassVar[int]  # both as `Part` has them
    if TYPE_CHECKING:  # for them a class attribute may take a property's place, and a property too

        @property
        def order(self) -> int | None: ...
    else:
        order: ClassVar[int | None] = None
        """Order of convergence; None for a sampler that draws noise. A property where the fields decide (eta = 0)."""
    estimate: ClassVar[Literal["mean", "end", "distilled"]] = "mean"
    """What `denoise` must return: the posterior mean E[x0 | x]; "end", the point at sigma 0 of the path through x, as
    consistency models do; "distilled", what only a model trained for this sampler does, so that no law is known."""

    @abstractmethod
    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        """One `Step` for each of the len(sigmas) - 1 transitions. `noise(i)` is unit normal of x's shape.

        An index i >= 0 is drawn at most once a run. A sampler that draws once a step takes the step's index, one that
        draws k times takes k i ... k i + k - 1. All indices are the sampler's: nothing else of a run draws from them.
        x is never written to; the last sigma may be 0. No `torch.no_grad()` around a `yield`.
        """

    def evaluations(self, steps: int) -> int:
        """How often `denoise` is called in a run of `steps` transitions that ends at sigma 0."""
        return steps

    def arriving(self, arrivals: Arrivals) -> Sampler:
        """This sampler with its steps going where `arrivals` says; itself where it goes from level to level anyway."""
        return self


class Grid(Value, ABC):
    """Which sigmas a run visits."""

    examples: ClassVar[tuple[Example, ...]] = (Example(),)
    api: ClassVar[int]  # both as `Part` has them

    @property
    def own_steps(self) -> int | None:
        """The only number of steps it makes, whatever is asked for; None: any."""
        return None

    @abstractmethod
    def sigmas(self, process: Process, steps: int) -> list[float]:
        """steps + 1 strictly decreasing values; the last may be 0 or the process's smallest."""

    def arrivals(self, process: Process, steps: int) -> Arrivals | None:
        """Where the steps from these sigmas go; None: each to the next."""
        return None


def column(values: Sequence[float], like: Tensor) -> Tensor:
    """One number a row, shaped to multiply a batch (B, ...)."""
    if not all(math.isfinite(v) for v in values):
        raise CompositionError("not-finite", f"a schedule value is not finite: {list(values)}")
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, *[1] * (like.ndim - 1))
