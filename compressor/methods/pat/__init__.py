"""Pruning after training (PaT): mask and weights both come from the trained network."""

from ..declaration import Method
from .magnitude import MAGNITUDE

METHODS: tuple[Method, ...] = (MAGNITUDE,)
