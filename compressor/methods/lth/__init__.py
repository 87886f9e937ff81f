"""Lottery tickets (LTH): the mask of a trained network on the weights of an early moment, trained again."""

from ..declaration import Method
from .early import CRITICAL_EXAMPLES, EARLY_BIRD
from .found_elsewhere import DUAL_TICKET, ELASTIC_TICKET, MANIFOLD_TICKET
from .local import LOCAL_TICKET, RANDOM_LOCAL_TICKET
from .studies import MASK_CRITERIA, REINITIALISED_TICKET, TICKET_CHECK, TICKET_TRANSFER
from .tickets import LAMP, LEARNING_RATE_REWINDING, LOTTERY_TICKET, PRETRAINED_TICKET

METHODS: tuple[Method, ...] = (
    LOTTERY_TICKET,
    LEARNING_RATE_REWINDING,
    LAMP,
    MASK_CRITERIA,
    REINITIALISED_TICKET,
    TICKET_CHECK,
    TICKET_TRANSFER,
    PRETRAINED_TICKET,
    LOCAL_TICKET,
    RANDOM_LOCAL_TICKET,
    EARLY_BIRD,
    CRITICAL_EXAMPLES,
    ELASTIC_TICKET,
    DUAL_TICKET,
    MANIFOLD_TICKET,
)
