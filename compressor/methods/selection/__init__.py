"""Pruning at initialization, sparse selection (PaI): the mask is trained, the weights never are."""

from ..declaration import Method
from .edge_popup import EDGE_POPUP

METHODS: tuple[Method, ...] = (EDGE_POPUP,)
