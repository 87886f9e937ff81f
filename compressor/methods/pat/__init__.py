"""Pruning after training (PaT): mask and weights both come from the trained network."""

from ..declaration import Method
from .channels import L1_FILTERS, NETWORK_SLIMMING, SSL, SSS
from .layerwise import SPARSEGPT, WANDA
from .learned import GSM, MOVEMENT, SOFT_MOVEMENT, SR_STE, STR, SURGERY, THRESHOLDS
from .magnitude import MAGNITUDE, RANDOM
from .regularised import GREG_1, GREG_2, INCREG
from .relevance import KARNIN, SKELETONIZATION, TAYLOR, TAYLOR_SECOND_ORDER
from .searched import RATIO_SEARCH
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
    L1_FILTERS,
    NETWORK_SLIMMING,
    SSL,
    SSS,
    INCREG,
    GREG_1,
    GREG_2,
    MOVEMENT,
    SOFT_MOVEMENT,
    SURGERY,
    GSM,
    STR,
    THRESHOLDS,
    SR_STE,
    RATIO_SEARCH,
)
