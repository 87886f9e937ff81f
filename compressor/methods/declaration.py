"""What a method declares: where mask and weights come from, what is trained, and which choices fit it.

A declaration holds no code. It names one of each piece (score, structure, allocation, schedule, dynamics) in the terms
of the general equation w' = f1(w_k1) * f2(w_k2) + chi * theta_0, and the training after it, w* = f3(w').
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ...errors import UsageError, unknown_name
from ...models.seeding.record import PHILOX

# Which checkpoint of the training sequence: before the first step, at a chosen early step, after the last one, or none
# because mask or weights are what the training itself moves.
Checkpoint = Literal["initial", "early", "final", "current"]
Parametrisation = Literal[
    "identity", "frozen", "selected", "signs", "options", "masks", "basis", "offset", "projection"
]


@dataclass(frozen=True)
class Option:
    """One setting of a method's own, as ``options`` in a recipe may give it.

    Attributes:
        name: its key.
        type: bool, int, float or str; a whole number is accepted for a float.
        default: the paper's value.
        doc: one line for ``compress methods``.
        minimum: smallest number allowed.
        maximum: largest number allowed.
        strict: whether the bounds themselves are refused.
        choices: the strings allowed.
    """

    name: str
    type: type
    default: Any
    doc: str
    minimum: float = -math.inf
    maximum: float = math.inf
    strict: bool = False
    choices: tuple[str, ...] = ()

    def validate(self, value: Any) -> Any:
        """Return ``value`` in the option's type.

        Raises:
            UsageError: another type, out of range, or not among the choices.
        """
        whole_for_float = self.type is float and type(value) is int
        if type(value) is not self.type and not whole_for_float:
            raise UsageError(f"option '{self.name}' takes a value of type {self.type.__name__}, not {value!r}.")
        if self.choices and value not in self.choices:
            raise unknown_name(f"value of option '{self.name}'", value, self.choices)
        if self.type in (int, float):
            inside = self.minimum <= value <= self.maximum
            if self.strict:
                inside = self.minimum < value < self.maximum
            if not inside or math.isnan(value):
                raise UsageError(f"option '{self.name}' is {value}; it must lie in {self.range}.")
        return self.type(value)

    @property
    def range(self) -> str:
        """The allowed values as text: an interval, the choices, or the type's name."""
        if self.choices:
            return " | ".join(self.choices)
        if math.isinf(self.minimum) and math.isinf(self.maximum):
            return self.type.__name__
        left, right = ("(", ")") if self.strict else ("[", "]")
        lower = f"{left}{self.minimum:g}" if math.isfinite(self.minimum) else "(-inf"
        upper = f"{self.maximum:g}{right}" if math.isfinite(self.maximum) else "inf)"
        return f"{lower}, {upper}"


@dataclass(frozen=True)
class Method:
    """A pruning method as the papers' summary tables describe it.

    Attributes:
        name: what recipes and the command line call it.
        paradigm: PaT, LTH, PaI (sparse training), PaI (sparse selection), DST, freezing or baseline.
        paper: the source, one citation.
        summary: one sentence.
        mask_from: k1, the checkpoint whose weights or gradients are scored.
        weights_from: k2, the checkpoint that the kept weights are taken from.
        trains_after: f3, whether the kept weights are trained once the mask is known.
        chi: what stands where the mask is 0: 0 nothing, 1 the initial weights, ``fading`` the initial weights until
            the training has brought them to nothing.
        dynamics: what becomes of the mask while training: an entry of ``DYNAMICS`` (``none``, ``static``, ``frozen``,
            ``rigl``, ``selected`` ...).
        score: the entry of ``SCORES`` that ranks the weights; ``learned`` when training moves the scores themselves;
            None without a mask.
        growth: how new connections are found; None when there are none.
        structures: allowed kinds, the default first.
        allocations: allowed allocations (``explicit``: densities given by layer), the default first.
        schedules: allowed schedules, the default first.
        needs: what finding the mask takes, out of ``data``, ``labels``, ``gradients`` and ``training``; with none of
            them the method works on any weights as they are.
        parametrisation: how the checkpoint describes its tensors: an entry of ``PARAMETRISATIONS``. Beyond the first
            three the method's dynamics hand the tensors over.
        initialiser: default of ``init``.
        generator: default of ``generator``.
        training: keys of the recipe's ``train`` section for which the paper has its own value.
        options: the method's own settings.
        plan: the entry of ``PLANS`` that turns the declaration into stages.
        prepares: the dynamics of the training that leads to the mask: an entry of ``DYNAMICS``, for a penalty or a
            record that the score relies on.
        saliency: what ranks coupled units where the recipe does not say; None: the sum of the method's own scores.
        transforms: f1 and f2, entries of ``TRANSFORMS``: what is done to mask and kept weights once they are chosen,
            in order, before anything is trained.
        resurrects: whether a later round of an iterative schedule may keep a weight that an earlier one removed; the
            weights are then set back to the dense ones before each round.
        spares_head: whether the last prunable tensor, the task's head, stays dense and out of the count.
        only_head: whether that tensor is all that the mask is of.
        sparsity: the share that the mask leaves out where the method's rule gives it; None: the user's choice.
        exact: whether the asked sparsity is met to the weight; False where it comes out of thresholds, penalties or
            rounds of whole groups that the method itself counts, and is reported as it came.
        reasons: why a structure, allocation or schedule that exists is not allowed here, by its name; where none is
            given, the paradigm's general one stands (see ``choices``).
    """

    name: str
    paradigm: str
    paper: str
    summary: str
    mask_from: Checkpoint | None
    weights_from: Checkpoint
    trains_after: bool
    chi: Literal[0, 1, "fading"]
    dynamics: str
    score: str | None
    growth: str | None
    structures: tuple[str, ...]
    allocations: tuple[str, ...]
    schedules: tuple[str, ...]
    needs: tuple[str, ...]
    parametrisation: Parametrisation = "identity"
    initialiser: str = "uniform"
    generator: str = PHILOX
    training: Mapping[str, Any] = field(default_factory=dict)
    options: tuple[Option, ...] = ()
    plan: str = "standard"
    prepares: str = "none"
    saliency: str | None = None
    transforms: tuple[str, ...] = ()
    resurrects: bool = False
    spares_head: bool = False
    only_head: bool = False
    sparsity: float | None = None
    exact: bool = True
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def frozen(self) -> bool:
        """Whether weights outside the mask keep their initial value."""
        return self.chi == 1

    @property
    def zeroes(self) -> bool:
        """Whether weights outside the mask are zero from the moment when it is chosen."""
        return self.chi == 0 and not self.masks_coefficients

    @property
    def masks_coefficients(self) -> bool:
        """Whether the mask is of coefficients, and the weights that they make are dense."""
        return self.parametrisation in ("basis", "offset")

    @property
    def defaults(self) -> dict[str, Any]:
        """The default of every option, by name."""
        return {option.name: option.default for option in self.options}

    def resolve_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return every option's value: those given, checked, and the defaults of the rest.

        Raises:
            UsageError: an option that the method does not have (the near miss is suggested), or a value out of range.
        """
        known = {option.name: option for option in self.options}
        for name in given:
            if name not in known:
                if not known:
                    raise UsageError(f"method '{self.name}' has no options; '{name}' was given.")
                raise unknown_name(f"option of method '{self.name}'", name, known)
        return {name: option.validate(given.get(name, option.default)) for name, option in known.items()}
