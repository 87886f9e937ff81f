"""The exporter's choice of sparse layers over a grid of 200 layer shapes at five sparsities, against measured times.

Beside the 200 stand 24 products with the weight on the left (``--lefts``).

Each shape is measured dense and at every sparsity (``sparsepack.runtimes.tune``) into a table that the same command
goes on from; ``--minutes`` bounds one call. The record says how far the built-in choice is from the better form, and
what rates a fit to these measurements gives (non-negative, the least absolute relative errors). ``--adopt`` makes them
the built-in ones (``exporters/sparse_graph/rates.json``) where they lose less over the grid. Target: within 5 % of the
better form everywhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from layers import grid, lefts, measured
from record import RESULTS, arguments, write

from sparsepack.exporters.sparse_graph.cost_model import FORMS, RATES_FILE, CostModel, form_of, quantities
from sparsepack.files import write_bytes
from sparsepack.models.layer_costs import CostTable, LayerCost

# Iterations of reweighted least squares, which end at the least absolute errors.
_REWEIGHTINGS = 20
SPARSITIES = (0.6, 0.7, 0.8, 0.9, 0.95)


def fitted(table: CostTable) -> dict[str, tuple[float, ...]]:
    """Return the nanoseconds of every quantity, by form, that predict the measured times best."""
    import numpy as np
    from scipy.optimize import nnls

    rates = {}
    for form in FORMS:
        costs = [cost for cost in table.costs.values() if form_of(cost.layer) == form]
        if not costs:
            continue
        # Relative errors: what matters is how wrong a small layer is for its size, too.
        rows = np.array([quantities(cost.layer) for cost in costs]) / np.array([[cost.ms] for cost in costs])
        scale = rows.max(axis=0) + 1e-30
        weights = np.ones(len(costs))
        for _ in range(_REWEIGHTINGS):
            found, _ = nnls(rows / scale * weights[:, None], weights)
            # What a busy moment slowed down stands far off, and must not pull.
            weights = 1 / np.sqrt(np.maximum(np.abs(rows / scale @ found - 1), 0.02))
        rates[form] = tuple(float(f"{1e6 * rate:.3g}") for rate in found / scale)
    return rates


def judged(table: CostTable, model: CostModel) -> dict[str, Any]:
    """Compare a model's choice with the better form, case by case."""
    cases = []
    for cost in table.costs.values():
        dense = table.find(cost.layer.dense())
        if cost.layer.density is None or dense is None:
            continue
        sparse = (
            model.prefers_sparse(model.ms(dense.layer), model.ms(cost.layer)) and cost.layer.density <= model.most_kept
        )
        chosen = cost if sparse else dense
        cases.append((chosen.ms / min(cost.ms, dense.ms), sparse, cost, dense))
    losses = sorted(case[0] for case in cases)
    slower = [case[0] for case in cases if case[1] and case[0] > 1.05]
    worst = sorted(cases, key=lambda case: -case[0])[:10]
    return {
        "cases": len(cases),
        "sparse_is_faster": sum(sparse.ms < dense.ms for _, _, sparse, dense in cases),
        "within_5_percent": sum(loss <= 1.05 for loss in losses),
        "sparse_chosen_and_slower_by_5_percent": len(slower),
        "p95_loss": round(losses[int(0.95 * (len(losses) - 1))], 3),
        "worst_loss": round(losses[-1], 3),
        "mean_loss": round(sum(losses) / len(losses), 4),
        "whole_grid_loss": round(_total(cases) / sum(min(c[2].ms, c[3].ms) for c in cases), 4),
        "worst": [_row(*case) for case in worst],
    }


def _total(cases: list[tuple[float, bool, LayerCost, LayerCost]]) -> float:
    return sum((sparse if chosen else dense).ms for _, chosen, sparse, dense in cases)


def _row(loss: float, sparse: bool, cost: LayerCost, dense: LayerCost) -> dict[str, Any]:
    layer = cost.layer
    return {
        "layer": f"{layer.operator} {'x'.join(map(str, layer.input))} by {'x'.join(map(str, layer.weight))}"
        f"{f' stride {layer.strides[0]}' if layer.strides and layer.strides[0] > 1 else ''}",
        "density": layer.density,
        "dense_ms": dense.ms,
        "sparse_ms": cost.ms,
        "chosen": "sparse" if sparse else "dense",
        "loss": round(loss, 3),
    }


def main() -> None:
    """Measure what is missing, judge, fit, and write the record."""
    options = arguments(
        __doc__,
        shapes=200,
        lefts=24,
        threads=1,
        minutes=30.0,
        table=str(RESULTS / "layer_grid_costs.json"),
        fresh=False,
        adopt=False,
    )
    table = measured(
        Path(options.table),
        [*grid(options.shapes), *lefts(options.lefts)],
        SPARSITIES,
        threads=options.threads,
        minutes=options.minutes,
        fresh=options.fresh,
    )
    if table is None:
        return
    rates = {**CostModel().rates, **fitted(table)}
    built_in, refitted = judged(table, CostModel()), judged(table, CostModel(rates=rates))
    if options.adopt and refitted["mean_loss"] < built_in["mean_loss"]:
        lines = [f" {json.dumps(form)}: {json.dumps(rates[form])}" for form in FORMS]
        write_bytes(RATES_FILE, ("{\n" + ",\n".join(lines) + "\n}\n").encode())
        built_in = refitted
    write(
        options.json,
        {
            "conditions": table.conditions,
            "shapes": options.shapes,
            "lefts": options.lefts,
            "sparsities": SPARSITIES,
            "built_in": built_in,
            "fitted": refitted,
            "fitted_rates": rates,
        },
    )


if __name__ == "__main__":
    main()
