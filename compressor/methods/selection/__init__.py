"""Pruning at initialization, sparse selection (PaI): masks, signs or choices are trained, the weights never are."""

from ..declaration import Method
from .edge_popup import BIPROP, EDGE_POPUP, ITERAND, SIGNED_SUPERMASK
from .several import LOTTERY_JACKPOTS, SUPSUP
from .signs import PEEK_A_BOO, SLOT_MACHINES
from .supermask import SUPERMASK

METHODS: tuple[Method, ...] = (
    SUPERMASK,
    EDGE_POPUP,
    BIPROP,
    SIGNED_SUPERMASK,
    PEEK_A_BOO,
    SLOT_MACHINES,
    ITERAND,
    SUPSUP,
    LOTTERY_JACKPOTS,
)
