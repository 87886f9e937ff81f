"""Regressions against an earlier record: what is named, what is too little to be named, and the order."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from records import LAYERS, artifact

from sparsepack.runtimes.measure.reading import LooseArtifact
from sparsepack.runtimes.measure.record import Accuracy, ArtifactRecord, Latency, to_plain
from sparsepack.runtimes.measure.regressions import LISTED, regressions


def earlier(record: ArtifactRecord) -> LooseArtifact:
    return msgspec.convert(to_plain(record), LooseArtifact)


def slower(record: ArtifactRecord, **changes: Any) -> ArtifactRecord:
    latency = record.latency["onnxruntime-cpu"]
    assert isinstance(latency, Latency)
    return msgspec.structs.replace(
        record, latency={**record.latency, "onnxruntime-cpu": msgspec.structs.replace(latency, **changes)}
    )


NOW = artifact("fast/onnx", (400, 300), 0.972, 1.0)


def test_the_same_again_is_no_regression() -> None:
    assert regressions(NOW, earlier(NOW)) == []


def test_what_became_better_is_no_regression() -> None:
    assert regressions(artifact("a", (300, 200), 0.98, 0.5), earlier(NOW)) == []


def test_a_tensor_that_grew_is_named_the_worst_first() -> None:
    found = regressions(artifact("a", (800, 500), 0.972, 1.0), earlier(NOW))
    assert found[0] == "the file takes 1360 bytes, 760 before (+78.9 %)."
    assert found[1] == "tensor 'fc.weight' takes 800 bytes, 400 before."
    assert found[2].endswith("takes 500 bytes, 300 before.")


def test_a_new_tensor_is_named() -> None:
    before = earlier(NOW)
    before.storage.tensors.pop(0)
    assert "tensor 'fc.weight' takes 400 bytes and was not there before." in regressions(NOW, before)


@pytest.mark.parametrize(("grown", "named"), [(16, False), (17, True)])
def test_a_few_bytes_are_no_regression(grown: int, named: bool) -> None:
    found = regressions(artifact("a", (400 + grown, 300), 0.972, 1.0), earlier(NOW))
    assert any("fc.weight" in line for line in found) is named


def test_a_run_is_slower_only_where_the_spreads_do_not_meet() -> None:
    assert regressions(slower(NOW, median_ms=1.3, p10_ms=1.19, p90_ms=1.4), earlier(NOW)) == []
    found = regressions(slower(NOW, median_ms=1.3, p10_ms=1.21, p90_ms=1.4), earlier(NOW))
    assert found == ["onnxruntime-cpu takes 1.3 ms a run, 1 ms before."]


def test_a_node_that_became_slower_is_named() -> None:
    layers = [LAYERS[0], {**LAYERS[1], "ms": 0.56}]
    assert regressions(slower(NOW, layers=layers), earlier(NOW)) == [
        "onnxruntime-cpu: node 'fc' takes 0.56 ms, 0.5 ms before."
    ]


def test_other_conditions_are_not_compared() -> None:
    assert regressions(slower(NOW, median_ms=9.0, p10_ms=9.0, p90_ms=9.0, threads=2), earlier(NOW)) == []


def test_lost_accuracy_is_named() -> None:
    now = msgspec.structs.replace(NOW, accuracy=Accuracy("top-1", 0.96, None, None, "torch-cpu"))
    assert regressions(now, earlier(NOW)) == ["accuracy is 96.00 %, 97.20 % before."]


def test_a_long_list_is_cut_and_counted() -> None:
    layers = [{"name": f"n{number}", "operator": "Conv", "ms": 1.0 + number, "share": 0.1} for number in range(14)]
    before = [{**layer, "ms": 0.5} for layer in layers]
    found = regressions(slower(NOW, layers=layers), earlier(slower(NOW, layers=before)))
    assert len(found) == LISTED + 1
    assert found[0].startswith("onnxruntime-cpu: node 'n13'")
    assert found[-1] == "4 more nodes on onnxruntime-cpu became worse."
