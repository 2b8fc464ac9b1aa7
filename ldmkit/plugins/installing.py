"""Installing distributions into the environment of the running interpreter: by which command, and when not."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from ldmkit.errors import PluginError

Manager = Literal["pipx", "uv tool", ""]


def environment() -> Path:
    """The folder of the running interpreter's environment."""
    return Path(sys.prefix)


def manager() -> Manager:
    """The tool that made this environment for one program alone; "" for an ordinary one."""
    if (environment() / "pipx_metadata.json").is_file():
        return "pipx"
    return "uv tool" if (environment() / "uv-receipt.toml").is_file() else ""


def install_command(wanted: Sequence[str], options: Sequence[str] = ()) -> list[str]:
    """The command that installs distributions beside ldmkit.

    Args:
        wanted: requirements, paths of wheels, sdists or projects, addresses.
        options: for pip, as they are.

    Raises:
        PluginError: `externally-managed`, `no-installer`.
    """
    return [*_installer("install"), *options, *wanted]


def uninstall_command(names: Sequence[str], options: Sequence[str] = ()) -> list[str]:
    """The command that removes distributions.

    Raises:
        PluginError: `externally-managed`, `no-installer`.
    """
    installer = _installer("uninstall")
    return [*installer, *(["--yes"] if "uv" not in Path(installer[0]).name else []), *options, *names]


def _installer(action: str) -> list[str]:
    if is_externally_managed():
        what = f"the Python in {environment()} belongs to the operating system, which does not allow pip to change it"
        fits = "python3 -m venv ENV && ENV/bin/pip install ldmkit, then ENV/bin/ldmkit install ..."
        raise PluginError("externally-managed", what, fits=fits)
    if find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", action]
    if (uv := shutil.which("uv")) is not None:
        return [uv, "pip", action, "--python", sys.executable]
    if manager() == "pipx" and (pipx := shutil.which("pipx")) is not None:
        return [pipx, "runpip", environment().name, action]
    what = f"{sys.executable} has no pip, and there is no uv"
    raise PluginError("no-installer", what, fits=f"{sys.executable} -m ensurepip, or install uv")


def is_externally_managed() -> bool:
    """Whether the environment is one that its operating system keeps (PEP 668); a virtual one never is."""
    if sys.prefix != sys.base_prefix:
        return False
    marker = Path(sysconfig.get_path("stdlib", sysconfig.get_default_scheme())) / "EXTERNALLY-MANAGED"
    return marker.is_file() and not os.environ.get("PIP_BREAK_SYSTEM_PACKAGES")


def remark() -> str | None:
    """What to know of an environment that a tool made for one program: it may be made anew without the plugins."""
    tool = manager()
    if not tool:
        return None
    again = f"pipx inject {environment().name} ..." if tool == "pipx" else "uv tool install ldmkit --with ..."
    return f"{environment()} was made by {tool}: `{again}` keeps what is installed when ldmkit is upgraded"
