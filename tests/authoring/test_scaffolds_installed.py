"""What `ldmkit new` writes, installed by pip into a fresh virtual environment: green at once, listed, used together.

Its environment sees this one's packages through a .pth file, so that nothing is downloaded; the whole file takes about
a minute. `pytest -m "not slow"` leaves it out; continuous integration runs it.
"""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest
from ldmkit_authoring.distribution import distribution
from worlds import World, check_typed, installed

from ldmkit.plugins.kinds import GROUPS

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_spec("pip") is None, reason="pip is not installed")]
KINDS = sorted(GROUPS)

COMPOSE = """
import ldmkit

def part(kind, name, **config):
    return ldmkit.get(kind, name)(config)

pipe = ldmkit.Pipeline.of(
    codec=part("codec", "my-codec", channels=3, halvings=1, width=8),
    denoiser=part("denoiser", "my-denoiser", channels=3, width=8, heads=2, vector_dim=5),
    process=ldmkit.get("process", "my-process")(),
    conditioners={
        "numbers": part("conditioner", "my-conditioner", length=3, dim=5),
        "style": part("conditioner", "my-conditioner", length=2, dim=4),
    },
    adapters={"styled": part("adapter", "my-adapter", dim=4, widths=(8, 16))},
    wiring={"numbers": {"slot": "vector"}, "style": {"slot": "styled.vector", "null": "keep"}},
    defaults={
        "size": (16, 24),
        "steps": 3,
        "sampler": {"type": "my-sampler"},
        "grid": {"type": "my-grid"},
        "guidance": {"type": "my-guidance", "config": {"scale": 2.0}},
    },
)
pipe.save("saved")
"""


RECIPES = {
    "codec": """
stage: codec
out: runs/codec
steps: 2
data: {train: {type: my-data, config: {count: 8}}, size: [32, 32], fit: exact, batch: 4}
model: {type: my-codec, config: {width: 8}}
objective: {perceptual: {type: my-perceptual}}
""",
    "denoiser": """
stage: denoiser
out: runs/denoiser
steps: 2
data: {train: {type: my-data, config: {count: 8}}, size: [32, 32], fit: exact, batch: 4}
model:
  codec: {from: runs/codec}
  denoiser: {type: my-denoiser, config: {width: 8, vector_dim: 6}}
  process: {type: my-process}
  conditioners:
    label: {type: label, config: {n_classes: 4, null_class: 3, emit: vector, dim: 6, names: [red, green, blue]}}
  defaults: {size: [32, 32], steps: 2, grid: {type: my-grid}, sampler: {type: my-sampler}}
objective: {dropout: {rates: {label: 0.5}}}
""",
    "adapter": """
stage: denoiser
out: runs/adapter
steps: 2
data: {train: {type: my-data, config: {count: 8}}, size: [32, 32], fit: exact, batch: 4}
model:
  start: runs/denoiser
  adapters: {styled: {type: my-adapter, config: {dim: 4, widths: [8, 16]}}}
  conditioners:
    style:
      type: label
      config: {n_classes: 4, null_class: 3, emit: vector, dim: 4, names: [red, green, blue]}
      slot: styled.vector
      input: label
""",
    "classifier": """
stage: classifier
out: runs/classifier
steps: 2
data: {train: {type: my-data, config: {count: 8}}, size: [32, 32], fit: exact, batch: 4}
model:
  codec: {from: runs/codec}
  type: my-classifier
  config: {channels: 4, classes: 3, names: [red, green, blue], width: 8}
""",
}
"""By each stage of training, from what the one before it left."""

TRAIN = """
from ldmkit.cli import main

for name in ("codec", "denoiser", "adapter", "classifier"):
    assert main(["train", f"{name}.yaml"]) == 0, name
assert main(["sample", "runs/adapter/model", "--label", "red", "--out", "red.png"]) == 0
guidance = 'classifier:model=runs/classifier/model,labels=["blue"],scale=2'
assert main(["sample", "runs/denoiser/model", "--guidance", guidance, "--out", "blue.png"]) == 0
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = [distribution(kind, f"my-{kind}") for kind in KINDS]
    return installed(tmp_path_factory.mktemp("world"), made)


def test_its_tests_are_green(world: World) -> None:
    """One in its own folder, as its README says; to start torch less often, the others together."""
    assert "passed" in world.run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=world.root / "ldmkit-my-sampler")
    others = [str(world.root / f"ldmkit-my-{kind}" / "tests") for kind in KINDS if kind != "sampler"]
    assert "passed" in world.run("-m", "pytest", "-q", "-p", "no:cacheprovider", *others)
    assert "passed" in world.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "--ldmkit", "ldmkit-my-grid")


def test_they_are_listed(world: World) -> None:
    rows = {(row["kind"], row["name"]): row for row in json.loads(world.ldmkit("plugins", "--json"))}
    for kind in KINDS:
        row = rows[kind, f"my-{kind}"]
        assert (row["status"], row["distribution"], row["version"]) == ("ok", f"ldmkit-my-{kind}", "0.1.0")


def test_two_are_used_together_and_all_of_them(world: World) -> None:
    """A sampler of one and a guidance of another with the bundled model; then a pipeline that is nothing else."""
    words = ("--sampler", "my-sampler", "--guidance", "my-guidance:scale=2", "--steps", "2", "--label", "lake")
    world.ldmkit("sample", *words, "--out", "lake.png")
    assert (world.root / "lake.png").is_file()
    world.run("-c", COMPOSE)
    world.ldmkit("sample", "saved", "--numbers", "[0.1, 0, -1]", "--style", "[1, 0.5]", "-n", "2", "--out", "new.png")
    assert (world.root / "new-1.png").is_file()
    spec = json.loads((world.root / "saved" / "pipeline.json").read_text())
    assert spec["codec"]["distribution"] == "ldmkit-my-codec" and spec["codec"]["version"] == "0.1.0"


def test_they_are_trained(world: World) -> None:
    for name, recipe in RECIPES.items():
        (world.root / f"{name}.yaml").write_text(recipe)
    world.run("-c", TRAIN)
    assert (world.root / "red.png").is_file() and (world.root / "blue.png").is_file()


def test_they_are_typed(world: World) -> None:
    check_typed(world, [f"ldmkit-my-{kind}" for kind in KINDS])
