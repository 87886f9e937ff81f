"""Requirements: what is parsed, what is refused, and that noise is neither a pass nor a failure."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsepack.errors import SparsepackError, UnknownNameError, UsageError
from sparsepack.runtimes.measure import gates
from sparsepack.runtimes.measure.gates import PATHS, judge, judge_all, parse, verdict
from sparsepack.runtimes.measure.record import to_plain


def latency(**changes: Any) -> dict[str, Any]:
    entry = {"median_ms": 2.0, "p10_ms": 1.9, "p90_ms": 2.3, "speedup": 1.5, "speedup_low": 1.4, "speedup_high": 1.6}
    return {**entry, "load_ms": 10.0, "peak_rss_bytes": 10**8, **changes}


def artifact(**changes: Any) -> dict[str, Any]:
    storage = {"bytes": 1000, "size_ratio": 8.5, "overhead_bytes": {"header": 90, "graph": 0, "other": 0}}
    entry: dict[str, Any] = {
        "artifact": "m.spk",
        "storage": storage,
        "latency": {"onnxruntime-cpu": latency()},
        "accuracy": {"metric": "top-1", "value": 0.97, "baseline": 0.98, "drop": 0.01, "runtime": "torch-cpu"},
        "parity": {"error": 1e-6, "max_abs_error": 1e-5, "argmax_agreement": 1.0, "inputs": 64},
        "training": None,
    }
    return {**entry, **changes}


@pytest.mark.parametrize(
    ("expression", "met"),
    [
        ("storage.size_ratio>=8", True),
        ("storage.size_ratio >= 8.5", True),
        ("storage.size_ratio>8.5", False),
        ("size_ratio<=8.5", True),
        ("storage.overhead_bytes.header<100", True),
        ("overhead_bytes.header==90", True),
        ("accuracy.drop<=0.01", True),
        ("accuracy.drop<=5e-3", False),
        ("parity.error<=1e-4", True),
        ("error<1e-7", False),
        ("latency[onnxruntime-cpu].median_ms<=2", True),
        ("latency.median_ms<2", False),
        ("p90_ms<2.5", True),
    ],
)
def test_decided_requirements(expression: str, met: bool) -> None:
    result = judge(parse(expression), artifact())
    assert result.met is met
    assert result.reason is None
    assert result.expression == expression


@pytest.mark.parametrize(
    ("expression", "met"),
    [
        ("speedup>=1.4", True),
        ("speedup>=1.5", None),
        ("speedup>=1.7", False),
        ("speedup<=1.6", True),
        ("speedup<=1.5", None),
        ("speedup<1.4", False),
        ("speedup>1.4", None),
        ("speedup==1.5", None),
        ("speedup==2", False),
    ],
)
def test_a_speedup_is_held_against_its_whole_interval(expression: str, met: bool | None) -> None:
    result = judge(parse(f"latency[onnxruntime-cpu].{expression}"), artifact())
    assert result.met is met
    assert result.value == 1.5
    assert (result.reason is None) == (met is not None)
    if met is None:
        assert result.reason is not None
        assert "interval 1.400 to 1.600 straddles" in result.reason


@pytest.mark.parametrize(
    ("expression", "entry", "reason"),
    [
        ("accuracy.drop<=0.01", artifact(accuracy=None), "accuracy was not measured; give data"),
        ("accuracy.drop<=0.01", artifact(accuracy={"value": 0.9, "drop": None}), "give --baseline"),
        ("parity.error<=1e-4", artifact(parity=None), "parity was not measured"),
        ("parity.error<=1e-4", artifact(parity={"error": None}), "the artifact's notes say why"),
        ("training.training_flops<=1e9", artifact(), "training cost is not known"),
        ("speedup>=1", artifact(latency={}), "no runtime ran it"),
        ("latency[torch-cuda].speedup>=1", artifact(), "torch-cuda was not asked to run it"),
        (
            "latency[torch-cuda].speedup>=1",
            artifact(latency={"torch-cuda": {"unavailable": "PyTorch finds no CUDA device"}}),
            "no CUDA device",
        ),
        ("speedup>=1", artifact(latency={"onnxruntime-cpu": latency(speedup=None)}), "give --baseline"),
    ],
)
def test_what_was_not_measured_is_open_and_says_why(expression: str, entry: dict[str, Any], reason: str) -> None:
    result = judge(parse(expression), entry)
    assert result.met is None
    assert result.value is None
    assert result.reason is not None
    assert reason in result.reason


def test_several_runtimes_need_a_name() -> None:
    entry = artifact(latency={"onnxruntime-cpu": latency(), "torch-cpu": latency()})
    # An answer, no error: everything was measured by then, and the report shall not be lost.
    result = judge(parse("speedup>=1"), entry)
    assert (result.met, result.value) == (None, None)
    assert "onnxruntime-cpu and torch-cpu were measured; write 'latency[onnxruntime-cpu].speedup'" in str(result.reason)
    assert judge(parse("latency[torch-cpu].speedup>=1"), entry).met is True


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("storage.size_ration>=8", "Did you mean 'storage.size_ratio'"),
        ("speed_up>=2", "Did you mean 'latency.speedup'"),
        ("nonsense.entirely>=2", "unknown field 'nonsense.entirely'"),
        ("storage.size_ratio=8", "cannot read the requirement"),
        ("storage.size_ratio>=", "cannot read the requirement"),
        ("storage.size_ratio>=big", "cannot read the requirement"),
        ("storage.size_ratio>=nan", "cannot read the requirement"),
        ("storage.size_ratio>=1 and 1>=1", "cannot read the requirement"),
        ("__import__('os').system('true')>=1", "cannot read the requirement"),
        ("storage[0].bytes>=1", "only latency is kept per runtime"),
        ("storage.tensors>=1", "unknown field 'storage.tensors'"),
        ("accuracy.metric==1", "unknown field 'accuracy.metric'"),
    ],
)
def test_what_cannot_be_asked_is_refused(expression: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(expression)
    assert message in str(caught.value)


def test_an_unknown_runtime_is_refused_with_the_near_miss() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'onnxruntime-cpu'"):
        parse("latency[onnxruntime].speedup>=1")


def test_an_ambiguous_leaf_names_the_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    # Every leaf is unique today; a field that breaks this must not change what a requirement means in silence.
    leaves = [path[-1] for path in PATHS]
    assert len(set(leaves)) == len(leaves)
    monkeypatch.setattr(gates, "PATHS", (*PATHS, ("parity", "bytes")))
    with pytest.raises(UsageError, match=r"could be any of storage\.bytes, parity\.bytes; write it in full"):
        parse("bytes>=1")
    assert parse("storage.bytes>=1").path == ("storage", "bytes")


@given(st.text(max_size=40))
def test_any_text_is_parsed_or_refused_in_one_line(text: str) -> None:
    try:
        parse(text)
    except SparsepackError as error:
        assert str(error)


def test_the_verdict() -> None:
    met, open_, failed = parse("storage.bytes<=1000"), parse("speedup>=1.5"), parse("storage.bytes<=999")
    missing = parse("training.training_flops>=0")

    def passes(*requirements: Any, allow: bool = False) -> bool:
        return verdict({"requirements": to_plain(judge_all(requirements, [artifact()])), "failed": []}, allow)

    assert verdict({"requirements": [], "failed": []})
    assert not verdict({"requirements": [], "failed": [{"run": "a", "error": "it diverged."}]}, True)
    assert passes(met)
    assert not passes(met, failed)
    assert not passes(met, open_)
    assert passes(met, open_, allow=True)
    assert not passes(failed, allow=True)
    # Nothing was measured: no noise excuses that.
    assert not passes(missing, allow=True)
    assert [result.artifact for result in judge_all([met], [artifact(), artifact(artifact="n.spk")])] == [
        "m.spk",
        "n.spk",
    ]
