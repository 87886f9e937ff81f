"""Reports of a record: a page, Markdown, JUnit, CSV, JSON and its schema; read back by independent readers."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from records import HOSTILE, record

from sparsepack.cli import run
from sparsepack.errors import FileFormatError, OutputExistsError, UsageError
from sparsepack.runtimes.measure.reading import read_record
from sparsepack.runtimes.report.csv_file import to_csv
from sparsepack.runtimes.report.headline import headlines
from sparsepack.runtimes.report.junit import to_junit
from sparsepack.runtimes.report.markdown import to_markdown
from sparsepack.runtimes.report.outputs import KINDS, STANDARD, Report, check_outputs, write_outputs
from sparsepack.runtimes.report.page import html_page
from sparsepack.runtimes.report.schema import record_schema, schema_text
from sparsepack.runtimes.report.seeds import Mean, mean, over_seeds
from sparsepack.runtimes.report.story import RunStory, levels, run_story
from sparsepack.runtimes.report.table import render

ROOT = Path(__file__).resolve().parent.parent


class Reader(HTMLParser):
    """What stands on a page: its elements, the cells of its tables, and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_first_sentences_judge_only_what_kept_its_accuracy() -> None:
    first = headlines(record())
    assert first[0] == "1 of 3 requirements met, 1 not met, 1 open."
    assert "small/packed, 300 B, 26.7x smaller than dense and 13.3x smaller than dense zipped" in first[1]
    assert "of those within 1 point" in first[1]
    # poor/onnx is smaller and faster, and lost 48 points.
    assert "fast/onnx, 1.00 ms a run, 2.00x (1.90 to 2.10) the baseline's speed" in first[2]


def test_a_page_shows_the_numbers_and_loads_nothing() -> None:
    page = Reader(html_page(record(), title="a <title>"))
    assert [target for target in page.loads if not target.startswith(("#", "data:"))] == []
    words = "".join(page.words)
    for expected in ("a <title>", "small/packed", "26.7x", "NOT MET", "A processor", "PyTorch finds no CUDA device"):
        assert expected in words
    assert page.tags.count("script") == 1
    assert page.tags.count("svg") >= 5


def test_a_page_shows_hostile_names_as_they_are() -> None:
    text = html_page(record(), title="t")
    assert "<script>alert" not in text
    assert HOSTILE in "".join(Reader(text).words)


def test_sections_without_content_do_not_appear() -> None:
    plain = record()
    plain["requirements"] = []
    for artifact in plain["artifacts"]:
        artifact["accuracy"] = None
        artifact["latency"] = {}
    text = html_page(plain, title="t")
    for section in ("trade", "milliseconds", "requirements", "masks", "training"):
        assert f'id="{section}"' not in text
    assert 'id="bytes"' in text


def test_a_page_tells_how_the_runs_went() -> None:
    story = RunStory("snip", [(1.0, 2.0), (2.0, 1.0)], [("training", 3.0, 0.9)], [], 0, ["layer fc is empty"])
    words = "".join(
        Reader(html_page(record(), title="t", runs=[story], recipe="version: 1", command="compress x")).words
    )
    for expected in ("snip: layer fc is empty", "90.0 %", "version: 1", "compress x", "training loss"):
        assert expected in words


def test_markdown_has_a_row_for_everything_that_ran_and_escapes_what_it_shows() -> None:
    text = to_markdown(record(), "t | x")
    assert "## t \\| x" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    columns = {len(re.findall(r"(?<!\\)\|", row)) for row in rows if "small/packed" in row or "fast/onnx" in row}
    assert columns == {6, 10}
    assert "2.00x (1.90-2.10)" in text
    assert "not met" in text


@pytest.mark.parametrize(("allow", "failures", "skipped"), [(False, 2, 0), (True, 1, 1)])
def test_junit_counts_as_the_exit_code_does(allow: bool, failures: int, skipped: int) -> None:
    suite = ElementTree.fromstring(to_junit(record(), allow_inconclusive=allow))[0]
    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["skipped"]) == (
        "3",
        str(failures),
        str(skipped),
    )
    assert len(suite.findall("testcase/failure")) == failures
    case = suite.findall("testcase")[1]
    assert (case.attrib["classname"], case.attrib["name"]) == ("poor/onnx", "accuracy.value>=0.9")


def test_junit_without_requirements_says_what_was_measured() -> None:
    suite = ElementTree.fromstring(to_junit({**record(), "requirements": []}))[0]
    assert [case.attrib["classname"] for case in suite] == ["small/packed", "fast/onnx", "poor/onnx"]


def test_a_run_that_failed_stands_first_in_every_report_for_people() -> None:
    plain = record()
    plain["failed"] = [{"run": "wild|", "error": f"the loss is not finite at {HOSTILE}."}]
    line = f"The run 'wild|' failed: the loss is not finite at {HOSTILE}."
    assert headlines(plain)[0] == line
    assert line in "".join(Reader(html_page(plain, title="t")).words)
    assert "- The run 'wild\\|' failed: the loss" in to_markdown(plain, "t").splitlines()[2]
    assert "The run 'wild|' failed: the loss is not finite" in render(plain)
    suite = ElementTree.fromstring(to_junit(plain))[0]
    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["errors"]) == ("4", "2", "1")
    (error,) = suite.findall("testcase/error")
    assert error.attrib["message"] == plain["failed"][0]["error"]


def test_csv_keeps_every_digit() -> None:
    plain = record()
    rows = list(csv.DictReader(io.StringIO(to_csv(plain))))
    assert [(row["artifact"], row["runtime"]) for row in rows] == [
        ("small/packed", "torch-cuda"),
        ("fast/onnx", "torch-cuda"),
        ("fast/onnx", "onnxruntime-cpu"),
        ("poor/onnx", "torch-cuda"),
        ("poor/onnx", "onnxruntime-cpu"),
    ]
    assert float(rows[2]["size_ratio"]) == plain["artifacts"][1]["storage"]["size_ratio"]
    assert rows[0]["median_ms"] == ""


def test_the_schema_in_the_documentation_is_the_code_s() -> None:
    assert (ROOT / "docs" / "measurement.schema.json").read_text() == schema_text()


def test_the_schema_accepts_records_and_refuses_damaged_ones() -> None:
    validator = Draft202012Validator(record_schema())
    assert list(validator.iter_errors(record())) == []
    for damage in _DAMAGES:
        plain = record()
        damage(plain)
        assert list(validator.iter_errors(plain)), damage.__name__


def _without_bytes(plain: dict[str, Any]) -> None:
    del plain["artifacts"][0]["storage"]["bytes"]


def _with_a_word_for_a_time(plain: dict[str, Any]) -> None:
    plain["artifacts"][1]["latency"]["onnxruntime-cpu"]["median_ms"] = "fast"


def _with_half_a_latency(plain: dict[str, Any]) -> None:
    plain["artifacts"][1]["latency"]["onnxruntime-cpu"] = {"median_ms": 1.0}


def _without_conditions(plain: dict[str, Any]) -> None:
    plain["environment"] = {}


def _with_a_node_without_name(plain: dict[str, Any]) -> None:
    plain["artifacts"][1]["latency"]["onnxruntime-cpu"]["layers"] = [{"ms": 1.0}]


def _without_any_time(plain: dict[str, Any]) -> None:
    plain["artifacts"][1]["latency"]["onnxruntime-cpu"]["median_ms"] = 0


def _with_an_empty_file(plain: dict[str, Any]) -> None:
    plain["artifacts"][1]["storage"]["bytes"] = 0


_DAMAGES = (
    _without_bytes,
    _with_a_word_for_a_time,
    _with_half_a_latency,
    _without_conditions,
    _with_a_node_without_name,
    _without_any_time,
    _with_an_empty_file,
)


def test_a_record_with_what_is_no_number_is_refused(tmp_path: Path) -> None:
    plain = record()
    plain["artifacts"][0]["accuracy"]["value"] = float("nan")
    file = tmp_path / "record.json"
    file.write_text(json.dumps(plain))
    with pytest.raises(FileFormatError, match="it is not JSON"):
        read_record(file)


@pytest.mark.parametrize("damage", _DAMAGES)
def test_a_damaged_record_is_refused_in_one_line(damage: Any, tmp_path: Path) -> None:
    plain = record()
    damage(plain)
    file = tmp_path / "record.json"
    file.write_text(json.dumps(plain))
    with pytest.raises(FileFormatError, match="damaged measurement record"):
        read_record(file)


@pytest.mark.parametrize("content", ["", "[]", '{"schema": "other/1"}', "[" * 100_000])
def test_what_is_no_record_is_refused_in_one_line(content: str, tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    file.write_text(content)
    with pytest.raises(FileFormatError, match="is no measurement record"):
        read_record(file)


def test_a_record_survives_being_written_and_read(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    file.write_text(json.dumps(record()))
    assert read_record(file) == record()


def test_outputs_are_refused_before_any_work(tmp_path: Path) -> None:
    there = tmp_path / "there.html"
    there.write_text("")
    with pytest.raises(OutputExistsError):
        check_outputs({"html": there, "csv": None}, force=False)
    check_outputs({"html": there, "csv": None}, force=True)
    with pytest.raises(UsageError, match="same place"):
        check_outputs({"html": STANDARD, "csv": STANDARD}, force=True)


def test_every_kind_is_written_where_it_was_asked_for(tmp_path: Path) -> None:
    files: dict[str, Path | None] = {kind: tmp_path / f"report.{kind}" for kind in KINDS}
    assert write_outputs(Report(record()), files) is None
    for kind, path in files.items():
        assert path is not None and path.read_bytes() == KINDS[kind](Report(record())).encode()
    assert write_outputs(Report(record()), {"csv": STANDARD}) == to_csv(record())


def test_means_over_seeds_are_student_s() -> None:
    # t(0.975, 2) = 4.30265; the standard deviation of 1, 2, 3 is 1.
    found = mean([1.0, 2.0, 3.0])
    assert found.value == 2
    assert found.half == pytest.approx(4.30265 / 3**0.5, rel=1e-5)
    assert mean([5.0]) == Mean(5.0, None)


def test_only_runs_that_differ_by_their_seed_are_put_together() -> None:
    artifacts = record()["artifacts"]
    for artifact, name in zip(artifacts, ("a-0/packed", "a-1/packed", "b-0/packed"), strict=True):
        artifact["artifact"] = name
    (group,) = over_seeds(artifacts, {"a-0": "a-0", "a-1": "a-0", "b-0": "b-0"})
    assert (group.name, group.seeds, group.bytes.value) == ("a-0/packed", 2, 530)
    assert group.accuracy is not None and group.accuracy.value == pytest.approx(0.9735)
    # One of the two was not timed.
    assert group.median_ms is None


def test_means_over_seeds_stand_in_every_report_for_people() -> None:
    plain = record()
    for artifact, name in zip(plain["artifacts"], ("a-0/packed", "a-1/packed", "b-0/packed"), strict=True):
        artifact["artifact"] = name
    groups = {"a-0": "a-0", "a-1": "a-0", "b-0": "b-0"}
    # 97.2 and 97.5 %: Student's t of one degree of freedom, 12.706, times half their difference.
    assert [artifact["accuracy"]["value"] for artifact in plain["artifacts"][:2]] == [0.975, 0.972]
    page = "".join(Reader(html_page(plain, title="t", groups=groups)).words)
    for text in (to_markdown(plain, "t", groups), render(plain, summary=True, groups=groups), page):
        assert "530 B ±" in text and " % ± 1.9 %" in text
        assert text.lower().count("over the seeds") >= 1
    for text in (to_markdown(plain, "t"), render(plain)):
        assert "seeds" not in text


def test_a_record_without_artifacts_says_what_asks_for_one() -> None:
    empty = {**record(), "artifacts": [], "requirements": []}
    assert empty["failed"] == []
    for text in (to_markdown(empty, "t"), render(empty), "".join(Reader(html_page(empty, title="t")).words)):
        assert "Nothing was measured" in text
    failed = {**empty, "failed": [{"run": "a", "error": "the loss is not finite"}]}
    for text in (to_markdown(failed, "t"), render(failed), render(record())):
        assert "Nothing was measured" not in text


def test_a_mask_is_averaged_into_its_picture() -> None:
    rows = np.zeros((4, 6), np.bool_)
    rows[:2, :3] = True
    assert np.array_equal(levels(rows, 2, 2), [[255, 0], [0, 0]])
    assert np.array_equal(levels(rows[:1], 9, 9), [[255, 255, 255, 0, 0, 0]])
    uneven = levels(np.ones((5, 7), np.bool_), 3, 4)
    assert uneven.shape == (3, 4) and (uneven == 255).all()


def test_a_job_s_folder_becomes_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = {
        "version": 1,
        "model": "lenet-300-100",
        "data": "digits",
        "threads": 1,
        "train": {"epochs": 1},
        "runs": [
            {"name": "dense", "method": "dense", "export": [{"format": "packed"}]},
            {"name": "snip", "method": "snip", "sparsity": 0.9, "export": [{"format": "packed"}]},
        ],
        "measure": {"require": ["storage.size_ratio>=5"]},
    }
    Path("recipe.yaml").write_text(json.dumps(recipe))
    # The dense run does not meet the requirement, so the job fails, and all its reports are there.
    assert run(["run", "recipe.yaml", "-o", "out"]) == 1
    assert "report: out/report.html" in capsys.readouterr().out
    assert 'id="masks"' in Path("out/report.html").read_text()
    assert "not met" in Path("out/report.md").read_text()
    assert ElementTree.parse("out/report.xml").getroot()[0].attrib["failures"] == "1"
    story = run_story(Path("out/snip"))
    assert [mask.name for mask in story.masks] == ["fc1.weight", "fc2.weight", "fc3.weight"]
    kept = sum(mask.density * size for mask, size in zip(story.masks, (64 * 300, 300 * 100, 100 * 10), strict=True))
    assert kept == pytest.approx(5020, abs=1e-2)
    assert len(story.losses) == 1
    assert run(["report", "out", "--csv", "-"]) == 0
    assert capsys.readouterr().out.startswith("artifact,format")
    assert run(["report", "out", "--html", "out/report.html"]) == 2
    assert run(["report", "elsewhere.json"]) == 1
    assert run(["report", str(tmp_path)]) == 2
    assert "holds no measurement.json" in capsys.readouterr().err
