"""The command line. Importing this package imports neither torch nor any plugin."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from io import TextIOWrapper

from ldmkit.cli.answers import INTERRUPTED, RUN, USAGE, exit_code, report
from ldmkit.errors import InputError, LdmkitError, RunError
from ldmkit.errors import PluginError as PluginError
from ldmkit.printable import escaped_output, printable
from ldmkit.printable import printable_json as printable_json

_NO_PATH = frozenset({errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL})
"""System errors caused by a wrong path rather than by the disk."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    ldmkit's errors are printed as one line, without a traceback; if a plugin failed, its own traceback comes first.
    Printed text cannot control the terminal, wherever it comes from: see `ldmkit.printable`.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names that the terminal's encoding lacks must not abort a listing
            stream.reconfigure(errors="backslashreplace")
    with escaped_output():
        return _main(arguments)


def _main(arguments: list[str] | None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    before = dict(os.environ)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            warnings.simplefilter("always", UserWarning)  # report every truncated prompt, not only the first
            result = _run(given)
        sys.stdout.flush()  # detect a closed pipe here rather than at exit
        if result == INTERRUPTED:  # newer typer releases turn the signal into this code, older ones raise Abort
            print("interrupted", file=sys.stderr)
        return result
    except LdmkitError as error:
        report(error, "--json" in given)
        return exit_code(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # stdout's reader has closed the pipe (`| head`): keep the interpreter from complaining when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno in _NO_PATH:
            report(InputError("no-path", f"{error.strerror}", where=_file_of(error)), "--json" in given)
            return USAGE
        report(RunError("system", f"{error.strerror or error}", where=_file_of(error)), "--json" in given)
        return RUN
    finally:
        for variable in [name for name in os.environ if name.startswith("LDMKIT_") and name not in before]:
            del os.environ[variable]
        os.environ.update({name: value for name, value in before.items() if name.startswith("LDMKIT_")})


def _run(given: list[str]) -> int:
    from ldmkit.cli.listing import quick

    if quick(given):
        return 0
    import typer

    from ldmkit.cli.app import app

    # Some typer releases carry their own click: its base exception is reached through typer.
    usage_error: type[Exception] = typer.BadParameter.mro()[2]
    try:
        result = app(given, prog_name="ldmkit", standalone_mode=False)
    except usage_error as error:
        said = str(error.format_message())  # type: ignore[attr-defined]
        if said.startswith("Usage:"):  # no command at all: the help is the answer
            print(said, file=sys.stderr)
            return USAGE
        command = getattr(getattr(error, "ctx", None), "command_path", "ldmkit")
        what = said.rstrip(".").replace("Value error, ", "")
        report(InputError("usage", what, fits=f"{command} --help"), "--json" in given)
        return USAGE
    except typer.Abort:
        return INTERRUPTED
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # typer's own way out when nobody reads any more
            raise stop.__context__ from None
        raise
    return result if isinstance(result, int) else 0


def _file_of(error: OSError) -> str | None:
    return None if error.filename is None else str(error.filename)


def _warn(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    print(f"warning: {printable(' '.join(str(message).split()))}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
