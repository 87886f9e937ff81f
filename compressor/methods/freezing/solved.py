"""Random features with a read-out in closed form: nothing is trained step by step."""

from dataclasses import replace

from ..declaration import Option
from .common import freezing_all

_RIDGE = Option("ridge", float, 0.1, "lambda, the weight of ||beta||^2; the intercept is free", minimum=0)

ELM = freezing_all(
    name="elm",
    paper="Huang et al., Extreme Learning Machine: A New Learning Scheme of Feedforward Neural Networks, IJCNN 2004",
    summary="All layers but the last stay as drawn; the last is the least-squares fit of the labels.",
    trains_after=False,
    dynamics="none",
    needs=("data", "labels"),
    spares_head=True,
    plan="solved",
    transforms=("least-squares",),
    options=(
        _RIDGE,
        Option("direct_link", bool, False, "require that the last layer sees the network's inputs too"),
    ),
)

RVFL = replace(
    ELM,
    name="rvfl",
    paper="Pao et al., Learning and Generalization Characteristics of the Random Vector Functional-Link Net, "
    "Neurocomputing 1994",
    summary="The same for a network whose last layer sees the inputs beside the random features (zoo: rvfl).",
    options=(_RIDGE, replace(ELM.options[1], default=True)),
)
