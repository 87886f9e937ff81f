"""The example of a workflow: valid YAML whose commands and files exist."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from click import Context

from sparsepack.cli import commands
from sparsepack.cli.run import REPORTS

ROOT = Path(__file__).resolve().parent.parent


def test_every_command_of_the_workflow_is_one_of_ours() -> None:
    workflow = yaml.safe_load((ROOT / "examples" / "continuous-integration.yml").read_text())
    steps = workflow["jobs"]["compress"]["steps"]
    typed = [match for step in steps for match in re.findall(r"^compress (.*)$", step.get("run", ""), re.MULTILINE)]
    assert typed
    for line in typed:
        name, *arguments = line.split()
        command = commands.commands[name]
        command.make_parser(Context(command)).parse_args(list(arguments))
        assert (ROOT / "examples" / arguments[0]).exists()
    comment = next(step["run"] for step in steps if "gh pr comment" in step.get("run", ""))
    assert comment.endswith(f"out/{REPORTS['markdown']}")
