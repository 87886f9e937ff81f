"""docs/methods.md and the list of methods: as the catalogue has them, and as the literature names them."""

from pathlib import Path

import pytest

from sparsepack.compressor.methods import METHODS
from sparsepack.compressor.scores.magnitude import NORMS
from sparsepack.runtimes.report.listing import describe_method
from sparsepack.runtimes.report.methods_page import methods_page

# What a survey calls a method, and where it is found here: a method, and where that matters an option's value.
PRUNING_AFTER_TRAINING = {
    "magnitude, L1": ("magnitude", "norm=l1"),
    "magnitude, L2": ("magnitude", "norm=l2"),
    "magnitude, L-infinity": ("magnitude", "norm=l-inf"),
    "magnitude, L-minus-infinity": ("magnitude", "norm=l-minus-inf"),
    "random": ("random", None),
    "optimal brain damage": ("obd", None),
    "optimal brain surgeon": ("obs", None),
    "WoodFisher": ("woodfisher", None),
    "diagonal Fisher": ("diagonal-fisher", None),
    "skeletonization": ("skeletonization", None),
    "accumulated sensitivity": ("karnin", None),
    "Taylor, first order": ("taylor", None),
    "Taylor, second order": ("taylor-second-order", None),
    "dynamic network surgery": ("dynamic-network-surgery", None),
    "gradual magnitude pruning": ("magnitude", "schedule=gradual"),
    "L1 filter pruning": ("l1-filters", None),
    "network slimming": ("network-slimming", None),
    "SSL group lasso": ("ssl", None),
    "incremental regularisation": ("increg", None),
    "growing regularisation 1": ("greg-1", None),
    "growing regularisation 2": ("greg-2", None),
    "MLPrune": ("mlprune", None),
    "EigenDamage's criterion": ("eigendamage", None),
    "movement pruning": ("movement", None),
    "soft movement pruning": ("soft-movement", None),
    "soft threshold reparametrisation": ("soft-threshold-reparametrisation", None),
    "dynamic sparse training's thresholds": ("trained-thresholds", None),
    "sparse structure selection": ("sparse-structure-selection", None),
    "global sparse momentum": ("global-sparse-momentum", None),
    "per-layer ratio search": ("ratio-search", None),
    "Wanda": ("wanda", None),
    "SparseGPT": ("sparsegpt", None),
    "SR-STE": ("sr-ste", None),
    "N:M from any score": ("magnitude", "structure=N:M"),
    "fine-tuning, fresh schedule": ("magnitude", "retrain=fresh"),
    "fine-tuning, rewound schedule": ("magnitude", "retrain=rewound"),
    "no fine-tuning": ("magnitude", "retrain=none"),
}

# The same for pruning at initialisation with training after it.
SPARSE_TRAINING = {
    "random, uniform": ("random-at-init", "allocation=uniform"),
    "random, Erdos-Renyi-kernel": ("random-at-init", "allocation=erdos-renyi-kernel"),
    "random, smart ratio": ("random-at-init", "allocation=smart-ratio"),
    "magnitude at initialisation": ("magnitude-at-init", None),
    "SNIP": ("snip", None),
    "iterative SNIP": ("iterative-snip", None),
    "FORCE": ("force", None),
    "SNIP-it": ("snip-it", "spacing=ladder"),
    "SNAP-it": ("snap-it", "structure=channel"),
    "CNIP-it": ("cnip-it", None),
    "approximated isometry": ("snip-isometry", None),
    "edge of chaos": ("sbp-sr", None),
    "GraSP": ("grasp", None),
    "SynFlow": ("synflow", None),
    "L2 path norm": ("synflow-l2", None),
    "COPS": ("cops", None),
    "loss preservation": ("loss-preservation", None),
    "gradient-norm preservation": ("gradient-norm-preservation", None),
    "PHEW": ("phew", None),
    "temporal Jacobian": ("temporal-jacobian", None),
    "ProsPr": ("prospr", None),
    "neural tangent transfer": ("neural-tangent-transfer", None),
    "3SP": ("3sp", "structure=channel"),
    "DCT plus sparse": ("dct-plus-sparse", None),
    "interspace pruning": ("interspace", None),
}


def test_the_page_is_up_to_date() -> None:
    page = (Path(__file__).parent.parent / "docs" / "methods.md").read_text(encoding="utf-8")
    assert page == methods_page(), "run: compress methods --markdown > docs/methods.md"


@pytest.mark.parametrize("named", PRUNING_AFTER_TRAINING)
def test_what_the_literature_names_is_in_the_catalogue(named: str) -> None:
    name, choice = PRUNING_AFTER_TRAINING[named]
    declared = describe_method(METHODS[name])
    assert declared["paradigm"] == "PaT"
    assert declared["paper"]
    assert declared["defaults"]["schedule"] in ("one-shot", "iterative")
    assert set(declared["needs"]) <= {"data", "labels", "gradients", "training"}
    if choice is not None:
        key, _, value = choice.partition("=")
        if key in ("structure", "schedule"):
            assert value in declared[f"{key}s"]
        else:
            (option,) = [option for option in declared["options"] if option["name"] == key]
            assert value in option["allowed"].split(" | ")


def test_every_norm_is_an_option() -> None:
    assert set(NORMS) == {"l1", "l2", "l-inf", "l-minus-inf"}


def test_the_catalogue_of_pruning_after_training_holds_nothing_unnamed() -> None:
    found = {name for name, method in METHODS.items() if method.paradigm == "PaT"}
    assert found == {name for name, _ in PRUNING_AFTER_TRAINING.values()}


@pytest.mark.parametrize("named", SPARSE_TRAINING)
def test_what_is_named_at_initialisation_is_in_the_catalogue(named: str) -> None:
    name, choice = SPARSE_TRAINING[named]
    declared = describe_method(METHODS[name])
    assert declared["paradigm"] == "PaI (sparse training)"
    assert declared["paper"]
    if choice is not None:
        key, _, value = choice.partition("=")
        if key in ("structure", "allocation"):
            assert value in declared[f"{key}s"]
        else:
            (option,) = [option for option in declared["options"] if option["name"] == key]
            assert value in option["allowed"].split(" | ")


def test_the_catalogue_at_initialisation_holds_nothing_unnamed() -> None:
    found = {name for name, method in METHODS.items() if method.paradigm == "PaI (sparse training)"}
    assert found == {name for name, _ in SPARSE_TRAINING.values()}
