"""The catalogue: every method is a declaration of a few lines and a citation; no method has code of its own here."""

from __future__ import annotations

from ...errors import unknown_name
from . import dst, freezing, lth, pai, pat, selection
from .choices import Choice, check, check_initialiser, choose
from .declaration import Method, Option
from .dense import DENSE

__all__ = ["METHODS", "Choice", "Method", "Option", "check", "check_initialiser", "choose", "find_method"]

# In the order of the paradigms: after, lottery, at initialisation, during, freezing.
METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        DENSE,
        *pat.METHODS,
        *lth.METHODS,
        *pai.METHODS,
        *selection.METHODS,
        *dst.METHODS,
        *freezing.METHODS,
    )
}


def find_method(name: str) -> Method:
    """Return the method called ``name``.

    Raises:
        UnknownNameError: there is none; the near miss is suggested.
    """
    if name not in METHODS:
        raise unknown_name("method", name, METHODS)
    return METHODS[name]
