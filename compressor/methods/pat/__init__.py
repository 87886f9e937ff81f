"""Pruning after training (PaT): mask and weights both come from the trained network."""

from ..declaration import Method
from .layerwise import SPARSEGPT, WANDA
from .magnitude import MAGNITUDE, RANDOM
from .relevance import KARNIN, SKELETONIZATION, TAYLOR, TAYLOR_SECOND_ORDER
from .second_order import DIAGONAL_FISHER, EIGENDAMAGE, MLPRUNE, OBD, OBS, WOODFISHER

METHODS: tuple[Method, ...] = (
    MAGNITUDE,
    RANDOM,
    OBD,
    DIAGONAL_FISHER,
    OBS,
    WOODFISHER,
    MLPRUNE,
    EIGENDAMAGE,
    SKELETONIZATION,
    KARNIN,
    TAYLOR,
    TAYLOR_SECOND_ORDER,
    WANDA,
    SPARSEGPT,
)
