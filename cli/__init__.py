"""The command ``compress``: parse, call, print.

Exit codes: 0 all well; 1 something failed, or a requirement is not met; 2 the command line or the recipe is wrong;
130 interrupted (what was done is kept, the same command goes on). Results go to standard output, progress and errors
to standard error. Frameworks are imported inside the commands, so that ``compress --help`` costs nothing.
"""

from __future__ import annotations

import errno
import io
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

import click

from .. import __version__
from ..errors import SparsepackError
from .analyze import analyze
from .export import export, slim
from .lists import formats, methods, runtimes
from .look import inspect, verify
from .measure import measure
from .prune import prune
from .report import report
from .run import run_recipe


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code; no user mistake shows a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that is no text, or a sign that the terminal lacks, is no reason to lose what was found.
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    usual = warnings.formatwarning
    warnings.formatwarning = _warning_line
    try:
        return _run(arguments)
    finally:
        warnings.formatwarning = usual


def _warning_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"compress: warning: {message}\n"


def _run(arguments: Sequence[str] | None) -> int:
    try:
        typed = sys.argv[1:] if arguments is None else list(arguments)
        # The commands are told what was typed, because a report says how to get it again.
        code = commands.main(args=typed, prog_name="compress", standalone_mode=False, obj=typed)
    except click.exceptions.Abort:
        return _interrupted()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SparsepackError as error:
        if _while_interrupted(error):
            return _interrupted()
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:
        # The reader (head, less) has seen enough; Python would complain again when it closes standard output.
        sys.stdout = None
        return 0
    except OSError as error:
        # An error that names a file is about that file; writing to one that is open names none.
        if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror}.", 1)
    except MemoryError:
        return _fail("out of memory; use a smaller model or batch, or a machine with more memory.", 1)
    return int(code or 0)


def _fail(message: str, code: int) -> int:
    click.echo(f"compress: error: {message}", err=True)
    return code


def _while_interrupted(error: BaseException | None) -> bool:
    """Return whether an error came of Ctrl-C: an import that it cuts short goes on to fail in its own words."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _interrupted() -> int:
    click.echo("compress: interrupted; finished work is kept, the same command goes on from it.", err=True)
    return 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="compress")
def commands() -> None:
    """Prune a network, write it small, measure it honestly.

    prune -> export -> measure, or all three from a recipe with run.
    """


for _command in (
    prune,
    export,
    slim,
    measure,
    run_recipe,
    report,
    analyze,
    inspect,
    verify,
    methods,
    runtimes,
    formats,
):
    commands.add_command(_command)
