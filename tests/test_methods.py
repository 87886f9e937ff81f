"""The catalogue: its declarations against the papers' summary table, and the choices it refuses with a reason."""

import math
import subprocess
import sys
from typing import Any

import pytest

from sparsepack.compressor.allocation import ALLOCATIONS
from sparsepack.compressor.evidence import EVIDENCE
from sparsepack.compressor.methods import METHODS, Method, Option, check, check_initialiser, choose, find_method
from sparsepack.compressor.methods.choices import reason_against
from sparsepack.compressor.plans import PLANS
from sparsepack.compressor.schedule import SCHEDULES
from sparsepack.compressor.scores import SCORES
from sparsepack.compressor.structure import STRUCTURES, Channel, Element, NofM
from sparsepack.compressor.training.table import DYNAMICS
from sparsepack.compressor.transforms import TRANSFORMS
from sparsepack.errors import UnknownNameError, UnsupportedError, UsageError

every_method = pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))


# The names are those of the surveys' tables (Wang et al. 2022; Wimmer et al., arXiv 2205.08099), by paradigm.
CATALOGUE = {
    "baseline": {"dense"},
    "LTH": {
        "lottery-ticket",
        "learning-rate-rewinding",
        "local-ticket",
        "random-local-ticket",
        "lamp",
        "mask-criteria",
        "reinitialised-ticket",
        "ticket-sanity-check",
        "ticket-transfer",
        "bert-ticket",
        "early-bird",
        "prac",
        "elastic-ticket",
        "dual-lottery-ticket",
        "inertial-manifold",
    },
    "PaI (sparse training)": {
        "random-at-init",
        "magnitude-at-init",
        "snip",
        "iterative-snip",
        "force",
        "snip-it",
        "loss-preservation",
        "gradient-norm-preservation",
        "grasp",
        "cops",
        "synflow",
        "synflow-l2",
        "snip-isometry",
        "sbp-sr",
        "prospr",
        "3sp",
        "snap-it",
        "cnip-it",
        "phew",
        "temporal-jacobian",
        "neural-tangent-transfer",
        "dct-plus-sparse",
        "interspace",
    },
    "PaT": {
        "magnitude",
        "random",
        "obd",
        "diagonal-fisher",
        "obs",
        "woodfisher",
        "mlprune",
        "eigendamage",
        "skeletonization",
        "karnin",
        "taylor",
        "taylor-second-order",
        "wanda",
        "sparsegpt",
        "l1-filters",
        "network-slimming",
        "ssl",
        "sparse-structure-selection",
        "increg",
        "greg-1",
        "greg-2",
        "movement",
        "soft-movement",
        "dynamic-network-surgery",
        "global-sparse-momentum",
        "soft-threshold-reparametrisation",
        "trained-thresholds",
        "sr-ste",
        "ratio-search",
    },
    "PaI (sparse selection)": {
        "supermask",
        "edge-popup",
        "biprop",
        "signed-supermask",
        "peek-a-boo",
        "slot-machines",
        "iterand",
        "supsup",
        "lottery-jackpots",
    },
    "DST": {"deep-rewiring", "set", "dsr", "snfs", "rigl", "rigl-itop", "top-kast", "powerpropagation"},
    "freezing": {
        "elm",
        "rvfl",
        "fixed-classifier",
        "intrinsic-dimension",
        "random-filters",
        "batchnorm-only",
        "freezenet",
        "freezenet-wd",
        "fish",
    },
}


def test_the_catalogue_holds_these_methods_and_no_others() -> None:
    found: dict[str, set[str]] = {}
    for name, method in METHODS.items():
        assert name == method.name
        found.setdefault(method.paradigm, set()).add(name)
    assert found == CATALOGUE


@pytest.mark.parametrize(
    ("name", "mask_from", "weights_from", "trains_after", "chi", "parametrisation"),
    [
        ("magnitude", "final", "final", True, 0, "identity"),
        ("lottery-ticket", "final", "early", True, 0, "identity"),
        ("snip", "initial", "initial", True, 0, "identity"),
        ("edge-popup", "current", "initial", False, 0, "selected"),
        ("rigl", "current", "current", True, 0, "identity"),
        ("freezenet", "initial", "initial", True, 1, "frozen"),
        ("freezenet-wd", "initial", "initial", True, "fading", "identity"),
        ("elm", "initial", "initial", False, 1, "frozen"),
    ],
)
def test_the_table_of_paradigms(
    name: str, mask_from: str, weights_from: str, trains_after: bool, chi: int | str, parametrisation: str
) -> None:
    method = METHODS[name]
    assert (method.mask_from, method.weights_from, method.trains_after) == (mask_from, weights_from, trains_after)
    assert (method.chi, method.parametrisation) == (chi, parametrisation)
    assert method.frozen == (chi == 1)


@every_method
def test_declarations_name_existing_pieces(method: Method) -> None:
    assert method.score in (*SCORES, "learned", None)
    assert set(method.structures) <= set(STRUCTURES)
    assert set(method.allocations) <= {*ALLOCATIONS, "explicit"}
    assert set(method.schedules) <= set(SCHEDULES)
    assert set(method.needs) <= {"data", "labels", "gradients", "training"}
    assert method.summary.endswith(".")
    assert method.paper
    if method.score in SCORES:
        for kind in SCORES[method.score].evidence:
            assert set(EVIDENCE[kind].needs) <= set(method.needs)
    for name in method.transforms:
        assert set(TRANSFORMS[name].needs) <= set(method.needs)
    assert method.plan in PLANS
    assert method.dynamics in DYNAMICS
    assert method.prepares in DYNAMICS


@every_method
def test_every_choice_is_allowed_or_has_a_reason(method: Method) -> None:
    allowed = {*method.structures, *method.allocations, *method.schedules}
    every = {*STRUCTURES, *ALLOCATIONS, "explicit", *SCHEDULES}
    assert allowed.isdisjoint(method.reasons)
    assert set(method.reasons) <= every
    assert all(reason_against(method, choice) for choice in every - allowed)


@every_method
def test_every_allowed_choice_is_accepted_with_the_defaults(method: Method) -> None:
    sparsity = (
        (0.0 if method.mask_from is None else {"sr-ste": 0.5}.get(method.name, 0.9))
        if method.sparsity is None
        else method.sparsity
    )
    default = choose(method, sparsity=sparsity)
    assert default.structure.kind == method.structures[0]
    assert (default.allocation, default.schedule) == (method.allocations[0], method.schedules[0])
    for kind in method.structures:
        if kind == "N:M":
            choice = choose(method, structure="2:4")
            assert (choice.allocation, choice.schedule, choice.sparsity) == ("uniform", "one-shot", 0.5)
            check(method, choice.structure, choice.allocation, choice.schedule, choice.sparsity)
        else:
            choose(method, structure="block:4x1" if kind == "block" else kind, sparsity=sparsity)
    for name in method.allocations:
        choose(method, allocation={"*": 0.1} if name == "explicit" else name, sparsity=sparsity)
    for name in method.schedules:
        choose(method, schedule=name, sparsity=sparsity)


@every_method
def test_every_refused_choice_says_why(method: Method) -> None:
    sparsity = (
        (0.0 if method.mask_from is None else {"sr-ste": 0.5}.get(method.name, 0.75))
        if method.sparsity is None
        else method.sparsity
    )
    allowed = {*method.structures, *method.allocations, *method.schedules}
    for choice in {*STRUCTURES, *ALLOCATIONS, "explicit", *SCHEDULES} - allowed:
        reason = reason_against(method, choice)
        options: dict[str, Any] = {"sparsity": sparsity}
        if choice in STRUCTURES:
            options["structure"] = {"N:M": "1:4", "block": "block:4x1"}.get(choice, choice)
            options["sparsity"] = 0.75 if choice == "N:M" and method.sparsity is None else sparsity
        elif choice in SCHEDULES:
            options["schedule"] = choice
        else:
            options["allocation"] = {"*": 0.25} if choice == "explicit" else choice
        if method.mask_from is None and choice == "N:M":
            with pytest.raises(UsageError, match=f"method '{method.name}' prunes nothing; its sparsity is 0"):
                choose(method, **options)
            continue
        with pytest.raises(UnsupportedError) as caught:
            choose(method, **options)
        assert f"method '{method.name}' does not go with" in str(caught.value)
        assert f"'{choice}': {reason}. Choose from: " in str(caught.value)


@pytest.mark.parametrize("sparsity", [1.0, -0.1, 1.5, math.nan])
def test_a_sparsity_out_of_range_is_refused(sparsity: float) -> None:
    with pytest.raises(UsageError, match=r"must lie in \[0, 1\)"):
        choose(METHODS["magnitude"], sparsity=sparsity)


def test_a_sparsity_that_a_method_has_of_its_own_needs_no_other() -> None:
    assert choose(METHODS["elm"]).sparsity == 1.0
    with pytest.raises(UsageError, match=r"method 'elm' has a sparsity of its own, 1; leave out 0\.9\."):
        choose(METHODS["elm"], sparsity=0.9)


def test_a_missing_sparsity_is_refused_unless_something_implies_it() -> None:
    with pytest.raises(UsageError, match="method 'snip' needs a sparsity"):
        choose(METHODS["snip"])
    assert choose(METHODS["snip"], allocation={"*": 0.1}).sparsity is None
    assert choose(METHODS["snip"], structure="1:4").sparsity == 0.75
    assert choose(METHODS["dense"]).sparsity == 0.0


def test_n_of_m_has_one_sparsity_one_allocation_and_one_schedule() -> None:
    magnitude = METHODS["magnitude"]
    with pytest.raises(UsageError, match=r"its sparsity is 0\.5, not 0\.9.*0\.25 \(3:4\), 0\.5 \(2:4\), 0\.75 \(1:4\)"):
        choose(magnitude, structure="2:4", sparsity=0.9)
    with pytest.raises(
        UnsupportedError, match="structure 2:4 does not go with allocation 'global': every block keeps 2"
    ):
        choose(magnitude, structure="2:4", allocation="global")
    with pytest.raises(UnsupportedError, match="does not go with schedule 'gradual': it has one sparsity only"):
        choose(magnitude, structure="2:4", schedule="gradual")
    # The default schedule of lottery tickets gives way; asking for it does not.
    assert choose(METHODS["lottery-ticket"], structure="2:4").schedule == "one-shot"
    with pytest.raises(UnsupportedError, match="does not go with schedule 'iterative'"):
        choose(METHODS["lottery-ticket"], structure="2:4", schedule="iterative")


def test_unknown_names_suggest_the_near_miss() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown method 'magnitud'\. Did you mean 'magnitude'"):
        find_method("magnitud")
    assert find_method("rigl") is METHODS["rigl"]
    with pytest.raises(UnknownNameError, match=r"unknown allocation 'globl'\. Did you mean 'global'"):
        choose(METHODS["magnitude"], allocation="globl", sparsity=0.5)
    with pytest.raises(UnknownNameError, match=r"unknown schedule 'oneshot'\. Did you mean 'one-shot'"):
        choose(METHODS["magnitude"], schedule="oneshot", sparsity=0.5)
    with pytest.raises(UsageError, match="unknown structure 'filter'"):
        choose(METHODS["magnitude"], structure="filter", sparsity=0.5)


def test_a_seed_can_only_stand_for_what_rebuilds() -> None:
    for name in ("edge-popup", "freezenet"):
        check_initialiser(METHODS[name], METHODS[name].initialiser)
        assert METHODS[name].generator == "keyed-product"
        with pytest.raises(
            UnsupportedError, match=f"method '{name}' stores its initial weights as a seed; 'kaiming-no"
        ):
            check_initialiser(METHODS[name], "kaiming-normal")
    check_initialiser(METHODS["magnitude"], "kaiming-normal")


def test_options_are_checked_and_filled_in() -> None:
    rigl = METHODS["rigl"]
    assert rigl.resolve_options({}) == rigl.defaults
    assert rigl.defaults == {"drop_fraction": 0.3, "update_interval": 100, "update_end": 0.75}
    resolved = rigl.resolve_options({"update_interval": 20, "update_end": 1})
    assert resolved == {"drop_fraction": 0.3, "update_interval": 20, "update_end": 1.0}
    assert type(resolved["update_end"]) is float


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (
            "rigl",
            {"update_intervall": 5},
            "unknown option of method 'rigl' 'update_intervall'. Did you mean 'update_in",
        ),
        ("dense", {"rate": 0.2}, "method 'dense' has no options; 'rate' was given"),
        ("rigl", {"update_interval": 0}, r"option 'update_interval' is 0; it must lie in \[1, inf\)"),
        ("rigl", {"update_interval": 2.5}, r"option 'update_interval' takes a value of type int, not 2\.5"),
        ("rigl", {"update_interval": True}, "takes a value of type int, not True"),
        ("rigl", {"drop_fraction": 1.0}, r"option 'drop_fraction' is 1\.0; it must lie in \(0, 1\)"),
        ("rigl", {"drop_fraction": math.nan}, r"is nan; it must lie in \(0, 1\)"),
        ("snip", {"mode": "evall"}, "unknown value of option 'mode' 'evall'. Did you mean 'eval'"),
        ("snip", {"mode": 3}, "option 'mode' takes a value of type str, not 3"),
        ("lottery-ticket", {"rewind_step": -1}, r"option 'rewind_step' is -1; it must lie in \[0, inf\)"),
    ],
)
def test_impossible_options_are_refused(method: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        METHODS[method].resolve_options(options)


@every_method
def test_defaults_of_options_are_valid(method: Method) -> None:
    for option in method.options:
        assert option.validate(option.default) == option.default
        assert option.doc
        assert option.range


def test_ranges_read_as_intervals() -> None:
    assert Option("a", float, 0.0, "x").range == "float"
    assert Option("a", float, 0.0, "x", minimum=0).range == "[0, inf)"
    assert Option("a", float, 0.0, "x", maximum=0).range == "(-inf, 0]"
    assert Option("a", str, "b", "x", choices=("b", "c")).range == "b | c"


def test_the_scores_of_edge_popup_are_trained_as_in_the_paper() -> None:
    assert METHODS["edge-popup"].training == {
        "optimiser": "sgd",
        "learning_rate": 0.1,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "rate_schedule": "cosine",
    }
    assert METHODS["edge-popup"].initialiser == "signed-constant"


def test_structures_of_the_choices() -> None:
    assert choose(METHODS["magnitude"], structure="channel", sparsity=0.5).structure == Channel()
    assert choose(METHODS["magnitude"], structure="1:2").structure == NofM(1, 2)
    assert choose(METHODS["rigl"], sparsity=0.5).structure == Element()


def test_the_pure_core_needs_no_framework() -> None:
    code = (
        "import sys, sparsepack.compressor.methods, sparsepack.compressor.scores, sparsepack.compressor.selection, "
        "sparsepack.compressor.space, sparsepack.compressor.schedule, sparsepack.compressor.cost; "
        "sys.exit(int(bool({'torch', 'onnx', 'onnxruntime', 'scipy'} & set(sys.modules))))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
