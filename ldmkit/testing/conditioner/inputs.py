"""Checks of a conditioner's inputs: their schema, JSON, and hostile inputs."""

from __future__ import annotations

import copy
import json
from typing import Any

from ldmkit.contracts.signals import tensors_of
from ldmkit.errors import LdmkitError
from ldmkit.testing.batches import same
from ldmkit.testing.checks import check, expect, fail
from ldmkit.testing.conditioner.subject import Subject, flat, no_grad
from ldmkit.testing.content import content
from ldmkit.testing.refusals import check_refusals, check_texts


@check("conditioner", "input-schema")
def input_schema(s: Subject) -> None:
    """`Input` has a JSON schema that describes an input.

    The command line and other interfaces are generated from it. Pydantic types have one; for a type with a custom
    validator add `WithJsonSchema` (`Annotated[T, PlainValidator(read), WithJsonSchema({...})]`).
    """
    try:
        schema = s.schema()
        again = json.loads(json.dumps(schema))
    except Exception as error:
        fail("a JSON schema of `Input`", f"{type(error).__name__}: {str(error)[:300]}")
    expect(again == schema, "a schema of plain JSON", f"{schema!r:.300}")
    says = schema.keys() & {"type", "anyOf", "oneOf", "allOf", "$ref", "properties", "enum", "const"}
    expect(bool(says), "a schema that says what is valid (type, anyOf, enum ...)", f"{schema!r:.300}")


@check("conditioner", "valid-inputs")
def valid_inputs(s: Subject) -> None:
    """There are at least two valid inputs to check it with.

    They are the `inputs` of the class's `examples`, as a caller would write them, or else generated from the schema of
    `Input`, which does not always say enough (a pattern, a relation between two fields). All other checks need them.
    """
    part = s.make()
    found = s.raws(part)
    if not s.inputs:
        wanted = "`inputs` in the class's `examples`, since the schema does not say enough to make valid ones"
        expect(len(found) >= 2, wanted, f"{len(found)} valid input(s) could be generated from the schema")
        return
    expect(len(found) >= 2, "at least two inputs", f"{len(found)}")
    for number, raw in enumerate(found):
        try:
            part.parse(raw, f"inputs[{number}]")
        except LdmkitError as error:
            fail(f"inputs[{number}] of the example to be valid", str(error))


@check("conditioner", "input-json")
def input_json(s: Subject) -> None:
    """A validated input can be written as JSON and, read back, gives the same signal.

    A picture's recipe stores its inputs as JSON: `TypeAdapter(Input).dump_python(value, mode="json")` of the result of
    `parse`, which `parse` must accept again. Types without a JSON form need a serialiser (`PlainSerializer`).
    """
    part = s.make()
    values = s.given(part)
    again = []
    for number, value in enumerate(values):
        try:
            data = s.json_of(value)
        except Exception as error:
            fail(f"inputs[{number}] as JSON", f"{type(error).__name__}: {str(error)[:300]}")
        try:
            again.append(part.parse(data, "recipe"))
        except LdmkitError as error:
            fail(f"parse to accept the JSON of a valid input, {json.dumps(data):.200}", str(error))
    found = no_grad(lambda: s.signal(part, again))
    same(flat(found), flat(no_grad(lambda: s.signal(part, values))), "the signal of an input read from JSON")


@check("conditioner", "inputs-untouched")
def inputs_untouched(s: Subject) -> None:
    """Neither `parse` nor `forward` modifies its arguments.

    Callers reuse one mapping for many samples, and store it in the recipe. Copy lists and tensors before changing them.
    """
    part = s.make()
    s.given(part)
    for number, raw in enumerate(s.raws(part)):
        before = content(copy.deepcopy(raw))
        value = part.parse(raw, "inputs")
        expect(content(raw) == before, f"inputs[{number}] after parse: {before!r:.200}", f"{content(raw)!r:.200}")
        before = content(copy.deepcopy(value))
        signal = no_grad(lambda value=value: s.signal(part, [value]))  # type: ignore[misc]
        after = content(value)
        expect(after == before, f"inputs[{number}] after forward: {before!r:.200}", f"{after!r:.200}")
        if part.has_null:
            kept = [tensor.clone() for tensor in flat(signal)]
            no_grad(lambda signal=signal: part.null(signal))  # type: ignore[misc]
            same(flat(signal), kept, "the signal that `null` was given")


@check("conditioner", "hostile-inputs")
def hostile_inputs(s: Subject) -> None:
    """Any input either gives a finite signal or is refused with an `InputError`.

    Users may pass anything: empty, huge, of the wrong type, NaN, out of range, damaged, with missing or unknown keys,
    deeply nested. The kit generates such inputs from the schema of `Input` and from valid inputs. The error must say
    what is wrong and where, in at most 1000 characters; anything else (an internal TypeError, NaN in the signal, an
    endless loop) is a bug. Bound numbers and limit the length of texts and lists in the type (`Annotated[float,
    Field(ge=0, le=400)]`), check what else does not depend on the config in validators, and the rest in `parse`,
    where the path is known.
    """
    part = s.make()
    values = s.given(part)
    wanted = flat(no_grad(lambda: s.signal(part, values)))

    def use(value: Any) -> str:
        signal = no_grad(lambda: s.signal(part, [value]))
        finite = all(bool(tensor.isfinite().all()) for tensor in tensors_of(signal))
        return "" if finite else "a signal with NaN or infinity"

    good = [s.json_of(value) for value in values[:2]]
    check_refusals(s.schema(), good, lambda raw: part.parse(raw, "inputs"), use, "a finite signal")
    same(flat(no_grad(lambda: s.signal(part, values))), wanted, "the signal of valid inputs after all of these")


@check("conditioner", "command-line")
def command_line(s: Subject) -> None:
    """`from_text` converts any text, or refuses it with an `InputError`.

    A command-line argument (`--text "a house"`) goes through `from_text` to `parse`. The inherited method accepts JSON,
    the path of a .json file, a number, or the text itself.
    """
    check_texts(s.cls.from_text)
