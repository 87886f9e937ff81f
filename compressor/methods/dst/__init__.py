"""Dynamic sparse training (DST): sparse from the first step, while connections move."""

from ..declaration import Method
from .rigl import RIGL

METHODS: tuple[Method, ...] = (RIGL,)
