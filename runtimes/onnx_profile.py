"""Times of single nodes, from the profile that ONNX Runtime writes while a session runs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FileFormatError

_SUFFIX = "_kernel_time"


@dataclass(frozen=True)
class NodeTimes:
    """One node's times, a run each.

    Attributes:
        name: of the node, as ONNX Runtime calls it after its own optimisations.
        operator: likewise.
        milliseconds: of every run, in order.
    """

    name: str
    operator: str
    milliseconds: tuple[float, ...]

    @property
    def reorders(self) -> bool:
        """Whether it only moves activations between ONNX Runtime's memory layouts."""
        return self.operator in ("ReorderInput", "ReorderOutput")


@contextmanager
def profiling(options: Any) -> Iterator[Callable[[Any], list[NodeTimes]]]:
    """Make sessions that are opened with these options keep a profile.

    Yields:
        What ends a session's profile and returns the times of its nodes, in the order in which they ran.
    """
    with tempfile.TemporaryDirectory(prefix="sparsepack-") as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        try:
            yield lambda session: read_profile(Path(session.end_profiling()))
        finally:
            options.enable_profiling = False


def read_profile(path: Path) -> list[NodeTimes]:
    """Return the times of all nodes, in the order of their first run.

    Raises:
        FileFormatError: the profile cannot be read.
    """
    try:
        events = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{path}: ONNX Runtime's profile cannot be read: {error}.") from error
    times: dict[tuple[str, str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX):
            arguments = event["args"]
            key = (event["name"].removesuffix(_SUFFIX), arguments["op_name"], arguments["node_index"])
            times.setdefault(key, []).append(event["dur"] / 1e3)
    return [NodeTimes(name, operator, tuple(found)) for (name, operator, _), found in times.items()]
