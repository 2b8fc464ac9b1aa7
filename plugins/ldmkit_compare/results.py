"""What a comparison found, as values and as a table in a terminal."""

from __future__ import annotations

from ldmkit import Value
from ldmkit.cli.tables import aligned

HEADS = ("sampler", "steps", "calls", "error", "PSNR", "marginals", "spread", "seconds")
DOUBT = 3.0
"""Errors below this multiple of the reference's own are not told apart from it."""
NOISY, DOUBTFUL = "~", "<"


class Figures(Value):
    """How far latents and pictures lie from the reference.

    Args:
        rms: root mean square difference of the latents.
        psnr: of the pictures, in dB; None where they are the reference's.
        marginal: largest difference of the distributions of the latents' values, in [0,1].
        spread: standard deviation of those values, as a multiple of the reference's.
    """

    rms: float
    psnr: float | None
    marginal: float
    spread: float


class DrawnRun(Value):
    """One run.

    Args:
        noisy: whether it drew noise of its own on the way: its distance to the reference is then no error.
        evaluations: calls of the network, counted.
        seconds: of sampling, the decoder left out.
        figures: None where the run failed.
        failure: why.
    """

    sampler: str
    steps: int
    noisy: bool
    evaluations: int
    seconds: float
    figures: Figures | None = None
    failure: str | None = None


class Reference(Value):
    """The tight run that all are measured against, and a second one that says how exact it is.

    Args:
        method, second: sampler, steps and grid, in words.
        doubt: figures of the second run against the first.
        halves: `marginal` of one half of the reference's pictures against the other: what the choice of pictures
            alone does to it; None for one picture.
    """

    method: str
    second: str
    evaluations: int
    seconds: float
    doubt: Figures
    halves: float | None


class Comparison(Value):
    """Runs of one model, from the same noise and conditions."""

    model: str
    inputs: tuple[str, ...]
    seeds: tuple[int, ...]
    size: tuple[int, int]
    grid: str
    guidance: str
    plan: str
    reference: Reference
    runs: tuple[DrawnRun, ...]
    seconds: float

    @property
    def samplers(self) -> tuple[str, ...]:
        """Names in the order asked for."""
        return tuple(dict.fromkeys(run.sampler for run in self.runs))

    @property
    def steps(self) -> tuple[int, ...]:
        """Numbers of steps, in order."""
        return tuple(dict.fromkeys(run.steps for run in self.runs))

    def runs_of(self, sampler: str) -> tuple[DrawnRun, ...]:
        """The runs of one sampler."""
        return tuple(run for run in self.runs if run.sampler == sampler)

    def noisy(self, sampler: str) -> bool:
        """Whether a sampler draws noise."""
        return any(run.noisy for run in self.runs_of(sampler))

    @property
    def failed(self) -> bool:
        """Whether any run failed."""
        return any(run.failure for run in self.runs)

    def cells(self, run: DrawnRun) -> tuple[str, ...]:
        """One row of the table, as `HEADS` names them."""
        first = (run.sampler, str(run.steps))
        if run.figures is None:
            return (*first, "failed", "", "", "", "", "")
        told = run.figures
        sign = NOISY if run.noisy else DOUBTFUL if told.rms < DOUBT * self.reference.doubt.rms else ""
        close = "equal" if told.psnr is None else f"{told.psnr:.1f}"
        figures = (f"{sign}{told.rms:.4f}", f"{sign}{close}", f"{told.marginal:.3f}", f"{told.spread:.3f}")
        return (*first, str(run.evaluations), *figures, f"{run.seconds:.2f}")

    @property
    def facts(self) -> str:
        """What was drawn, in one sentence."""
        size, seeds = "x".join(map(str, self.size)), ", ".join(map(str, self.seeds))
        given = ", ".join(self.inputs) or "no condition"
        return f"{self.model}: {given}; {size} pixels; seeds {seeds}; grid {self.grid}; guidance {self.guidance}."

    @property
    def about_reference(self) -> str:
        """What the reference is, and how exact."""
        told = self.reference
        doubt = "equal pictures" if told.doubt.psnr is None else f"{told.doubt.psnr:.1f} dB"
        return (
            f"Reference: {told.method}, from the same noise. A second tight run, {told.second}, differs from it by "
            f"{told.doubt.rms:.4f} ({doubt}): that is how exact it is."
        )

    @property
    def about_noise(self) -> str:
        """What the distance of a sampler that draws noise is not; nothing where there is none."""
        if not any(run.noisy for run in self.runs):
            return ""
        return (
            f"{NOISY} draws noise on the way: its pictures are other ones of the same distribution. Its distance to "
            "the reference is no error and does not fall to 0; look at marginals and spread."
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What the figures mean."""
        told = self.reference
        halves = "" if told.halves is None else f" Half the reference against the other half: {told.halves:.3f}."
        close = any(run.figures and not run.noisy and run.figures.rms < DOUBT * told.doubt.rms for run in self.runs)
        lines = [
            self.about_reference,
            "Error: root mean square difference to the reference in latents. PSNR: the same in pictures, in dB. Calls: "
            "of the network, each with the batch of all pictures and views. Seconds: of sampling, without decoding.",
            "Marginals: largest difference between the distributions of latent values, 0 to 1. Spread: their standard "
            f"deviation over the reference's. Both ask for no picture in particular.{halves}",
            self.about_noise,
            f"{DOUBTFUL} within {DOUBT:g} times the reference's own doubt: not told apart from exact." if close else "",
            *(f"{run.sampler}, {run.steps} steps, failed: {run.failure}" for run in self.runs if run.failure),
        ]
        return tuple(line for line in lines if line)

    def table(self) -> str:
        """Text for people."""
        return "\n".join([self.facts, "", *aligned([HEADS, *map(self.cells, self.runs)]), "", *self.notes])
