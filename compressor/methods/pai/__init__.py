"""Pruning at initialization, sparse training (PaI): mask and weights come from the untrained network."""

from ..declaration import Method
from .sensitivity import SNIP

METHODS: tuple[Method, ...] = (SNIP,)
