"""Abilities of conditioners are mixins; classes of version 1, which have members without them, work as they did."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

import ldmkit
from ldmkit import Conditioner, HasDefault, KnowsRegion, LdmkitDeprecationWarning, OnGrid, Plane, Vector
from ldmkit.contracts.conditioner_abilities import ABILITIES, members
from ldmkit.contracts.conditioner_v1 import FormerMembers
from ldmkit.models.abilities import able, undeclared
from ldmkit.testing import check_conditioner


class Blank(Conditioner):
    """A number as a plane (B, 1, 2, 2)."""

    Input: ClassVar[Any] = Annotated[float, Field(ge=0, le=1)]
    kind: ldmkit.SignalKind = "plane"
    dim = 1

    def forward(self, inputs: list[float]) -> Plane:
        return Plane(torch.tensor(inputs).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2))


class Old(Blank):
    """As one wrote it for version 1: painted on a grid, with a default and a part of the picture that is kept."""

    api = 1

    def on_grid(self, inputs: list[float], grid: tuple[int, int]) -> Plane:
        return Plane(super().on_grid(inputs, grid).value[..., :1, :1].expand(-1, 1, *grid))

    def default(self, size: tuple[int, int]) -> float:
        return 0.5

    def known(self, value: float) -> tuple[Tensor, Tensor]:
        kept = torch.full((3, 8, 8), value), (torch.arange(8) >= 4).float().expand(1, 8, 8)
        return kept


class Later(Old):
    """Says that it knows of mixins, and inherits none."""

    api = 2


class New(OnGrid, HasDefault, KnowsRegion, Blank):
    """The same, and it says so."""

    api = 2

    def on_grid(self, inputs: list[float], grid: tuple[int, int]) -> Plane:
        return Plane(self(inputs).value[..., :1, :1].expand(-1, 1, *grid))

    default, known = Old.default, Old.known


def pipeline(conditioner: Conditioner) -> ldmkit.Pipeline:
    config = {"channels": 3, "widths": [8], "blocks": 1, "norm_groups": 4, "heads": 2, "in_channels": 4}
    parts = {"codec": ldmkit.get("codec", "identity")(), "denoiser": ldmkit.get("denoiser", "unet")(config)}
    for i, parameter in enumerate(parts["denoiser"].parameters()):
        parameter.data = 0.2 * ldmkit.Noise([7], parameter.shape)(i)[0]
    process = ldmkit.get("process", "discrete")()
    return ldmkit.Pipeline.of(
        **parts, process=process, conditioners={"light": conditioner}, defaults={"size": (8, 8), "steps": 2}
    )


@pytest.mark.parametrize("given", [{}, {"light": 0.25}])
def test_a_class_of_version_1_draws_what_it_drew(given: dict[str, float]) -> None:
    with pytest.warns(LdmkitDeprecationWarning) as told:
        old = pipeline(Old())
    said = " ".join(str(one.message) for one in told)
    for mixin, name in (("OnGrid", "on_grid"), ("HasDefault", "default"), ("KnowsRegion", "known")):
        assert f"Old.{name} of a conditioner that does not inherit ldmkit.{mixin}" in said
    with warnings.catch_warnings():
        warnings.simplefilter("error", LdmkitDeprecationWarning)
        new = pipeline(New())
    first, second = (pipe(given, seeds=[3]) for pipe in (old, new))
    assert torch.equal(first.images, second.images)
    kept = (given.get("light", 0.5) + 1) / 2
    held = first.images[..., :4]
    assert torch.equal(held, torch.full_like(held, kept)) == bool(given), "only what was given is known"


def test_what_a_class_is_able_to_do() -> None:
    assert undeclared(Old()) == {"OnGrid": ("on_grid",), "KnowsRegion": ("known",), "HasDefault": ("default",)}
    assert undeclared(New()) == {} == undeclared(Blank())
    for ability in ABILITIES:
        assert able(Blank(), ability) is None
        assert (able(New(), ability) is not None) == (ability in (OnGrid, HasDefault, KnowsRegion))


def test_a_member_of_an_instance_counts_as_it_did() -> None:
    part = Blank()
    part.propose = lambda given, size, seed: 0.75  # type: ignore[method-assign]
    assert undeclared(part) == {"Proposing": ("propose",)}
    ports = Blank()
    ports.ports = {}
    assert undeclared(ports) == {}, "no ports are no ability"
    ports.ports = {"linear.a": ldmkit.Port()}
    assert undeclared(ports) == {"Ported": ("ports",)}


def test_old_members_answer_callers_as_they_did() -> None:
    part, like = Blank(), Vector(torch.ones(2, 1))
    assert part.propose({}, (8, 8), 0) is None is part.proposer
    assert part.default((8, 8)) is None is part.picture_size(0.5, 2) and part.known(0.5) is None
    assert torch.equal(part.on_grid([1.0], (4, 4)).value, part([1.0]).value)  # type: ignore[union-attr]
    assert part.ports == {} and part.frame is None and part.framed(ldmkit.Frame(like, like, {})).frame is not None  # type: ignore[arg-type]
    with pytest.raises(ldmkit.CompositionError, match="cannot share"):
        part.adopt(Blank())
    with pytest.raises(ldmkit.CompositionError, match="no proposer to train"):
        part.proposal_losses([], "light")


def test_every_former_member_has_a_mixin() -> None:
    public = {name for name in vars(FormerMembers) if not name.startswith("_")}
    assert {name for ability in ABILITIES for name in members(ability)} == public
    assert sum(len(members(ability)) for ability in ABILITIES) == len(public), "each belongs to one"
    four = {"Input", "kind", "dim", "forward"}
    own = {name for name in {**vars(Conditioner), **Conditioner.__annotations__} if not name.startswith("_")}
    assert own == four | {"has_null", "null", "example", "parse", "from_text"}


@pytest.mark.parametrize("ability", ABILITIES)
def test_mixins_are_public_and_documented(ability: type[Conditioner]) -> None:
    assert getattr(ldmkit, ability.__name__) is ability and ability.__doc__
    for name in members(ability):
        member = inspect.getattr_static(ability, name)
        assert not callable(member) or inspect.getdoc(member), f"{ability.__name__}.{name}"


def test_an_inherited_ability_must_be_written() -> None:
    class Forgetful(OnGrid, Blank):
        """Forgot what it inherits."""

    with pytest.raises(TypeError, match=r"abstract.*on_grid"):
        Forgetful()  # type: ignore[abstract]
    with pytest.raises(TypeError, match="consistent method resolution"):
        type("Turned", (Conditioner, OnGrid), {})  # in this order a default would stand before what is written


def test_the_kit_tells_version_1_what_to_inherit() -> None:
    report = check_conditioner(Old)
    [outcome] = [one for one in report.outcomes if one.check.name == "abilities"]
    assert outcome.status == "passed" and "inherit ldmkit.OnGrid for on_grid" in outcome.came
    assert [one.check.name for one in check_conditioner(Later).failures] == ["abilities"]


def test_sharing_with_what_cannot_share() -> None:
    from ldmkit.models.abilities import share

    with pytest.raises(ldmkit.CompositionError, match="Blank cannot share Blank's weights") as caught:
        share(Blank(), Blank())
    assert caught.value.code == "compose.cannot-share"


class Wishing(ldmkit.Proposing, New):
    """Makes a light up."""

    def propose(self, given: Mapping[str, Any], size: tuple[int, int], seed: int) -> float:
        return float(seed)

    @property
    def proposer(self) -> nn.Module | None:
        return None


def test_an_ability_is_asked() -> None:
    pipe = pipeline(Wishing())
    assert torch.equal(pipe({}, seeds=[1]).images, pipe({"light": 1.0}, seeds=[1]).images)
    assert not torch.equal(pipe({}, seeds=[1]).images, pipe({"light": 0.5}, seeds=[1]).images)


def test_what_a_proposal_keeps_is_kept_as_in_its_replay() -> None:
    made = pipeline(Wishing())({}, seeds=[1])
    assert bool((made.images[..., :4] == 1).all()), "the left half of a light of 1 is known"
