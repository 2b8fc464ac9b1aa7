"""The plan of a run as tables."""

from __future__ import annotations

from rich.table import Table

from ldmkit.printable import cell, print_rich, printable
from ldmkit_training.before.plan import TrainingPlan, WireLine
from ldmkit_training.watch.progress import duration


def show(plan: TrainingPlan) -> None:
    """Print it."""
    print_rich(f"[bold]{plan.stage}[/] -> {cell(plan.out)}")
    print_rich(_parts(plan))
    if plan.wiring:
        print_rich(_wiring(plan))
    for line in lines(plan):
        print(printable(line))


def lines(plan: TrainingPlan) -> list[str]:
    """The lines below the tables."""
    shapes = ", ".join(f"{name} {_shape(shape)}" for name, shape in plan.shapes.items())
    used = ", ".join(name if name == new else f"{name} (as {new})" for name, new in plan.used.items())
    processes = f" on each of {plan.processes} processes" if plan.processes > 1 else ""
    parts = f", {plan.accumulate} parts of {plan.rows} rows{processes}" if plan.rows != plan.batch else ""
    memory = ", ".join(f"{name} {mebibytes(size)}" for name, size in plan.memory.items() if name != "total" and size)
    said = [
        f"data     {plan.samples} samples, {plan.held_out or 'none'} held out",
        f"inputs   {used or 'none'}" + (f"; left out: {', '.join(plan.unused)}" if plan.unused else ""),
        f"batch    {plan.batch} rows{parts}: {shapes}",
        f"length   {plan.steps} steps, {plan.steps * plan.batch} samples, {plan.epochs:.3g} epochs",
        f"memory   {mebibytes(plan.memory['total'])}: {memory}",
    ]
    if plan.seconds:
        step, reading = plan.seconds["step"], plan.seconds["reading"]
        pace = f"{plan.batch / step:.3g} images/s" if step else "at once"
        said.append(f"time     {step:.3g} s a step on {plan.device} in {plan.precision} ({pace}), measured once;")
        said.append(f"         reading a batch {reading:.3g} s beside it; all steps {duration(plan.seconds['run'])}")
    said += [f"note     {note}" for note in plan.notes]
    return said


def _parts(plan: TrainingPlan) -> Table:
    table = Table("part", "type", title="parameters", title_justify="left")
    table.add_column("trained", justify="right")
    table.add_column("frozen", justify="right")
    for part in plan.parts:
        table.add_row(cell(part.name), cell(part.type), _count(part.trained), _count(part.frozen))
    trained, frozen = sum(p.trained for p in plan.parts), sum(p.frozen for p in plan.parts)
    table.add_section()
    table.add_row("all", "", _count(trained), _count(frozen))
    return table


def _wiring(plan: TrainingPlan) -> Table:
    heads = ("input", "conditioner", "makes", "slot", "null", "dropped", "in the data")
    table = Table(*heads, title="conditions", title_justify="left")
    for line in plan.wiring:
        given = "yes" if line.given else "[bold red]NO[/]: only its null is ever seen"
        rate = "never" if not line.dropped else f"{line.dropped:.1%}"
        name = line.type if line.conditioner == line.input else f"{line.conditioner} ({line.type})"
        table.add_row(cell(line.input), cell(name), _makes(line), cell(line.slot), cell(str(line.null)), rate, given)
    return table


def _makes(line: WireLine) -> str:
    return f"{line.kind}, dim {line.dim}" + (f": {_shape(line.shape)}" if line.shape else "")


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape)


def _count(number: int) -> str:
    return f"{number:,}" if number else "-"


def mebibytes(size: int) -> str:
    """A size in readable units."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
