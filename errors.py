"""The error tree: every mistake a user can make, and every file that cannot be trusted, ends in one of these.

    SparsepackError                 exit code 1
    |-- UsageError                  exit code 2: the command or recipe asks for something that cannot be
    |   |-- UnknownNameError        no such model, method, format ...; the near miss is suggested
    |   |-- RecipeError             a recipe that does not fit the schema
    |   `-- OutputExistsError       the output is there already and --force was not given
    |-- ModelError                  a model source that cannot be built, or weights that do not fit it
    |-- DataError                   data that cannot be read or does not fit the model
    |-- UnsupportedError            a combination that the theory or a format does not allow, with the reason
    |-- FileFormatError             an unreadable, truncated, corrupt or foreign file
    |   `-- HashMismatchError       a tensor that decodes to other bytes than were written
    |-- TrainingDivergedError       a loss that is not finite
    |-- RuntimeUnavailableError     a runtime that cannot run here, with the reason
    `-- RequirementError            a requirement on the measurement that is not met

A message says what was wrong, what was expected, which tensor, layer or file, and what to do next; it never needs a
traceback to be understood.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SparsepackError(Exception):
    """The root of the tree; ``exit_code`` is what the command line returns."""

    exit_code = 1


class UsageError(SparsepackError):
    """A command or recipe that asks for something that cannot be."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that is in no table; built by :func:`unknown_name`."""


class RecipeError(UsageError):
    """A recipe that does not fit the schema."""


class OutputExistsError(UsageError):
    """An output that exists already, and ``--force`` was not given."""


class ModelError(SparsepackError):
    """A model source that cannot be built, or weights that do not fit it."""


class DataError(SparsepackError):
    """Data that cannot be read or does not fit the model."""


class UnsupportedError(SparsepackError):
    """A combination that the theory or a format does not allow."""


class FileFormatError(SparsepackError):
    """An unreadable, truncated, corrupt or foreign file."""


class HashMismatchError(FileFormatError):
    """A tensor that decodes to other bytes than were written."""


class TrainingDivergedError(SparsepackError):
    """A loss that is not finite; the last good state was kept."""


class RuntimeUnavailableError(SparsepackError):
    """A runtime that cannot run here."""


class RequirementError(SparsepackError):
    """A requirement on the measurement that is not met."""


def near_miss(name: str, choices: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest of ``choices``, or an empty string when none is close."""
    close = difflib.get_close_matches(name.lower(), list(choices), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> UnknownNameError:
    """Build the error for a name that is in no table.

    Args:
        kind: what was asked for, in the singular ("method", "format").
        name: what the user wrote.
        choices: every name that would have been accepted.
    """
    known = list(choices)
    listed = ", ".join(known)
    return UnknownNameError(f"unknown {kind} '{name}'.{near_miss(name, known)} Choose from: {listed}.")
