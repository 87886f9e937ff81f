"""Pruning at initialization, sparse training (PaI): mask and weights come from the untrained network."""

from ..declaration import Method
from .coefficients import DCT_PLUS_SPARSE, INTERSPACE
from .controls import MAGNITUDE_AT_INIT, RANDOM_AT_INIT
from .curvature import COPS, GRADIENT_NORM, GRASP, LOSS_PRESERVATION
from .flow import SYNFLOW, SYNFLOW_L2
from .paths import PHEW
from .propagation import SBP_SR, SNIP_ISOMETRY
from .prospective import PROSPR
from .recurrent import TEMPORAL_JACOBIAN
from .rounds import FORCE, ITERATIVE_SNIP, SNIP_IT
from .sensitivity import SNIP
from .transfer import NEURAL_TANGENT_TRANSFER
from .units import CNIP_IT, SNAP_IT, THREE_SP

METHODS: tuple[Method, ...] = (
    RANDOM_AT_INIT,
    MAGNITUDE_AT_INIT,
    SNIP,
    ITERATIVE_SNIP,
    FORCE,
    SNIP_IT,
    LOSS_PRESERVATION,
    GRADIENT_NORM,
    GRASP,
    COPS,
    SYNFLOW,
    SYNFLOW_L2,
    SNIP_ISOMETRY,
    SBP_SR,
    PROSPR,
    THREE_SP,
    SNAP_IT,
    CNIP_IT,
    PHEW,
    TEMPORAL_JACOBIAN,
    NEURAL_TANGENT_TRANSFER,
    DCT_PLUS_SPARSE,
    INTERSPACE,
)
