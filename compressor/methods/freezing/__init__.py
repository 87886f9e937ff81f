"""Freezing: most weights keep the value that the seed gave them, the rest are trained."""

from ..declaration import Method
from .freezenet import FISH, FREEZENET, FREEZENET_WD
from .layers import BATCHNORM_ONLY, FIXED_CLASSIFIER, RANDOM_FILTERS
from .solved import ELM, RVFL
from .subspace import INTRINSIC_DIMENSION

METHODS: tuple[Method, ...] = (
    ELM,
    RVFL,
    FIXED_CLASSIFIER,
    RANDOM_FILTERS,
    BATCHNORM_ONLY,
    FREEZENET,
    FREEZENET_WD,
    FISH,
    INTRINSIC_DIMENSION,
)
