"""The public surface: importable, documented, and not shadowed by a module of the same name."""

from __future__ import annotations

import ast
import inspect
import pkgutil
from operator import attrgetter
from pathlib import Path
from types import ModuleType

import pytest

import ldmkit
import ldmkit.testing

PUBLIC = [name for name in ldmkit.__all__ if name != "__version__"]


@pytest.mark.parametrize("name", [*PUBLIC, *(f"testing.{name}" for name in ldmkit.testing.__all__)])
def test_public_name_imports_and_is_documented(name: str) -> None:
    value = attrgetter(name)(ldmkit)
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return  # type aliases and pluggy's marker carry no docstring of their own
    doc = inspect.getdoc(value)
    assert doc and len(doc) > 20, f"{name} has no docstring"


@pytest.mark.parametrize("name", [n for n in PUBLIC if inspect.isclass(getattr(ldmkit, n))])
def test_public_methods_are_documented(name: str) -> None:
    cls = getattr(ldmkit, name)
    own = {n: m for n, m in vars(cls).items() if not n.startswith("_") and inspect.isfunction(m)}
    silent = [n for n, method in own.items() if not inspect.getdoc(method) and n not in ("forward", "model_post_init")]
    assert not silent, f"{name}: {silent} have no docstring"


@pytest.mark.parametrize("module", [ldmkit, ldmkit.testing], ids=lambda module: module.__name__)
def test_type_checkers_see_the_same_names(module: ModuleType) -> None:
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    (block,) = (n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname: node.module for node in imports for alias in node.names}
    assert seen == module._HOMES, "an import under TYPE_CHECKING, `as` its own name, for every public name"


def test_no_module_hides_a_public_name() -> None:
    # importing a submodule sets it as an attribute of the package: one called `load` would replace `ldmkit.load`
    modules = {module.name for module in pkgutil.iter_modules(ldmkit.__path__)}
    assert modules.isdisjoint(ldmkit.__all__)


def test_dir_is_the_public_surface() -> None:
    assert dir(ldmkit) == sorted(ldmkit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        ldmkit.laod  # noqa: B018


def test_deterministic_samplers_declare_their_order() -> None:
    orders = {name: ldmkit.get("sampler", name)().order for name in ldmkit.components("sampler")}
    assert {"ddim", "euler", "heun", "dpmpp-2m", "unipc", "plms"} <= {n for n, order in orders.items() if order}
    assert {n for n, order in orders.items() if order is None} >= {"ddpm", "euler-ancestral"}


def test_files_are_of_readable_length() -> None:
    root = Path(ldmkit.__path__[0])
    long = [path.name for path in root.rglob("*.py") if len(path.read_text("utf-8").splitlines()) > 400]
    assert not long
