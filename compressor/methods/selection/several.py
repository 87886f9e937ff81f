"""Sparse selection beyond one random network for one task: a mask a task, and masks over trained weights."""

from ..declaration import Option
from .common import ANY_DENSITY, REASONS, SCORE_TRAINING, selecting

SUPSUP = selecting(
    name="supsup",
    paper="Wortsman et al., Supermasks in Superposition, NeurIPS 2020",
    summary="One random network, one edge-popup mask for each of several tasks, which are views of the data.",
    plan="several-tasks",
    dynamics="tasks",
    transforms=("first-task",),
    allocations=ANY_DENSITY,
    training=SCORE_TRAINING,
    parametrisation="masks",
    options=(
        Option("tasks", int, 3, "how many masks are trained", minimum=1, maximum=4096),
        Option(
            "view",
            str,
            "permuted-pixels",
            "what a task is: the data with its pixels in another order (the first: as they are), or a share of the "
            "classes",
            choices=("permuted-pixels", "split-classes"),
        ),
    ),
    reasons=REASONS,
)

LOTTERY_JACKPOTS = selecting(
    name="lottery-jackpots",
    paper="Zhang et al., Lottery Jackpots Exist in Pre-trained Models, 2021",
    summary="Over trained weights that stay as they are, train scores that begin as magnitudes; the best compute.",
    plan="selected-from-trained",
    weights_from="final",
    dynamics="jackpots",
    allocations=("global", *(name for name in ANY_DENSITY if name != "global")),
    parametrisation="identity",
    initialiser="uniform",
    reasons=REASONS,
)
