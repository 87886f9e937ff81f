"""What follows a mask: fine-tuning with a fresh schedule, a rewound one, or none; and what the plans refuse."""

from typing import Any

import pytest

from sparsepack.compressor.methods import METHODS, find_method
from sparsepack.compressor.plans import Change, Select, Train, make_plan
from sparsepack.compressor.recipe import single_run
from sparsepack.compressor.settings import PruneRecipe
from sparsepack.errors import UsageError


def run_of(method: str, **options: Any) -> PruneRecipe:
    return single_run(
        None, "lenet-300-100", **{"method": method, "data": "digits", "sparsity": 0.5, "epochs": 4} | options
    )


def trainings(recipe: PruneRecipe) -> list[Train]:
    plan = make_plan(recipe, find_method(recipe.method), 0.5)
    return [stage for stage in plan if isinstance(stage, Train)]


def test_fine_tuning_is_fresh_rewound_or_none() -> None:
    fresh = trainings(run_of("magnitude", method_options=("retrain=fresh",)))
    assert [stage.settings.learning_rate for stage in fresh] == [0.1, 0.01]
    assert [stage.settings.epochs for stage in fresh] == [4, 2]
    rewound = trainings(
        run_of(
            "magnitude",
            method_options=(
                "retrain=rewound",
                "retrain_step=30",
            ),
        )
    )
    assert rewound[1].settings == rewound[0].settings
    assert [stage.first_step for stage in rewound] == [0, 30]
    assert rewound[1].dynamics == "static"
    assert len(trainings(run_of("magnitude", method_options=("retrain=none",)))) == 1


def test_a_schedule_that_was_never_gone_through_cannot_be_rewound() -> None:
    with pytest.raises(UsageError, match="retrain is rewound, and there is no training whose schedule"):
        trainings(run_of("magnitude", epochs=0, method_options=("retrain=rewound",)))


def test_a_course_of_training_that_was_never_taken_scores_nothing() -> None:
    with pytest.raises(
        UsageError, match="method 'karnin' scores by the course of the training, and train has no epochs"
    ):
        trainings(run_of("karnin", epochs=0))


def test_methods_that_prune_while_tuning_need_epochs_for_it() -> None:
    recipe = run_of("greg-1")
    assert [stage.dynamics for stage in trainings(recipe)] == ["none", "greg-1", "static"]
    with pytest.raises(UsageError, match="method 'greg-1' prunes while it fine-tunes, and fine_tune has no epochs"):
        trainings(run_of("greg-1", epochs=0))


def test_layerwise_methods_select_nothing_by_scores() -> None:
    recipe = run_of("sparsegpt")
    plan = make_plan(recipe, METHODS["sparsegpt"], 0.5)
    assert [type(stage) for stage in plan] == [Train, Change, Train]
    assert not any(isinstance(stage, Select) for stage in plan)


# Their structure, or their own rule, says how many weights go.
OWN_SPARSITY = {"sr-ste"} | {
    name for name, method in METHODS.items() if method.sparsity is not None or method.mask_from is None
}


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if "data" in method.needs])
def test_a_method_that_needs_data_says_so(name: str) -> None:
    with pytest.raises(UsageError, match=f"method '{name}' needs data; name it with data"):
        run_of(name, data="none", epochs=None, sparsity=None if name in OWN_SPARSITY else 0.5)
