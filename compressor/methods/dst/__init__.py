"""Dynamic sparse training (DST): sparse from the first step, while connections move."""

from ..declaration import Method
from .moving import DEEP_REWIRING, DSR, ITOP, SET, SNFS, TOP_KAST
from .power import POWERPROPAGATION
from .rigl import RIGL

METHODS: tuple[Method, ...] = (DEEP_REWIRING, SET, DSR, SNFS, RIGL, ITOP, TOP_KAST, POWERPROPAGATION)
