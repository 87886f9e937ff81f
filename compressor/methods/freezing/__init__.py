"""Freezing: most weights keep the value that the seed gave them, the rest are trained."""

from ..declaration import Method
from .freezenet import FREEZENET

METHODS: tuple[Method, ...] = (FREEZENET,)
