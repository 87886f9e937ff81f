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


class Profiles:
    """Sessions that keep a profile, each in a file of its own."""

    def __init__(self, options: Any, folder: Path) -> None:
        self._options = options
        self._folder = folder
        self._opened = 0

    def open(self, load: Callable[[Any], Any]) -> Any:
        """Return the session that ``load`` opens with options under which it keeps a profile."""
        # ONNX Runtime adds the time in milliseconds only: two sessions opened in the same one would share a file.
        self._options.profile_file_prefix = str(self._folder / f"profile{self._opened}")
        self._opened += 1
        return load(self._options)

    @staticmethod
    def finish(session: Any) -> list[NodeTimes]:
        """End a session's profile and return the times of its nodes, in the order in which they ran."""
        return read_profile(Path(session.end_profiling()))


@contextmanager
def profiling(options: Any) -> Iterator[Profiles]:
    """Open sessions that keep a profile; the files go when the block ends.

    Args:
        options: ONNX Runtime's, changed while the block lasts.
    """
    with tempfile.TemporaryDirectory(prefix="sparsepack-") as folder:
        options.enable_profiling = True
        try:
            yield Profiles(options, Path(folder))
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
