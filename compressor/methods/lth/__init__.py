"""Lottery tickets (LTH): the mask of a trained network on the weights of an early moment, trained again."""

from ..declaration import Method
from .tickets import LOTTERY_TICKET

METHODS: tuple[Method, ...] = (LOTTERY_TICKET,)
