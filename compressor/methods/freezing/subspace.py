"""Training along a few random directions: nothing is masked, and next to nothing is trained."""

from ....models.seeding.record import KEYED_PRODUCT
from ..declaration import Method, Option

_NOTHING_MASKED = "it moves all weights together, along random directions, and masks none"

INTRINSIC_DIMENSION = Method(
    name="intrinsic-dimension",
    paradigm="freezing",
    paper="Li et al., Measuring the Intrinsic Dimension of Objective Landscapes, ICLR 2018",
    summary="Train the coordinates of a random subspace of all parameters; the file holds them and a seed.",
    mask_from=None,
    weights_from="initial",
    trains_after=True,
    chi=1,
    dynamics="subspace",
    score=None,
    growth=None,
    structures=("element",),
    allocations=("uniform",),
    schedules=("one-shot",),
    needs=("data", "labels", "gradients"),
    parametrisation="projection",
    generator=KEYED_PRODUCT,
    training={"optimiser": "adam", "learning_rate": 1e-3},
    options=(Option("dimension", int, 750, "d: directions that the network moves along", minimum=1),),
    reasons=dict.fromkeys(
        ("N:M", "channel", "global", "erdos-renyi", "erdos-renyi-kernel", "explicit", "iterative", "gradual"),
        _NOTHING_MASKED,
    ),
)
