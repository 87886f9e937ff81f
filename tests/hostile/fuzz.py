"""Fuzzing every reader: ``make fuzz``, or ``PYTHONPATH=tests python -m hostile.fuzz [--inputs N] [--full]``.

Each input is an honest file changed as :mod:`.mutate` draws it from the seed and the input's number. A reader must
refuse it with one line, or read it, in bounded time and memory. Inputs run in a child process whose address space is
limited for each of them; a child that dies or hangs is a failure of the input it was at, and the next child goes on
behind it.
"""

from __future__ import annotations

import argparse
import json
import mmap
import multiprocessing
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from hostile.mutate import mutated
from hostile.originals import Original, originals

from sparsepack.errors import SparsepackError
from sparsepack.files import plausible_bytes

INPUTS, FULL = 200_000, 2_000_000
# One byte for each input, in a file that parent and child share: not done, refused, read, failed.
_TODO, _REFUSED, _READ, _FAILED = range(4)
_BATCH = 50_000
# Files in memory where there are any: a disk that others use would take most of the time.
_MEMORY = Path("/dev/shm")  # noqa: S108  (a folder of our own is made in it)
# Processor seconds for one file of a few kilobytes, of which an honest one takes milliseconds; and seconds until a
# child that gives no sign of life counts as hanging.
SECONDS, HANGING = 5.0, 120.0
# What a reader may take beside the tensors that a file of its size may claim: the dense tensor, its mask, a copy.
_COPIES, _FREE = 3, 2**26
_PAGE = resource.getpagesize()


class OutOfTimeError(BaseException):
    """An input took too long; no handler of a reader catches it."""


@dataclass
class Outcome:
    """What became of the inputs.

    Attributes:
        refused: how many were refused, by the kind of file.
        read: how many were read.
        failures: number of the input, kind of file and what happened.
    """

    refused: Counter[str] = field(default_factory=Counter)
    read: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str, str]] = field(default_factory=list)


def hostile_input(files: dict[str, Original], seed: int, index: int) -> tuple[str, bytes]:
    """Return the kind and the bytes of input ``index``; the same in every process and release of Python."""
    draw = random.Random(f"{seed}:{index}")  # noqa: S311  (chance that can be repeated, not secrecy)
    names = sorted(files)
    name = names[index % len(names)]
    return name, mutated(name, files[name].content, files[draw.choice(names)].content, draw)


def try_input(original: Original, content: bytes, path: Path) -> tuple[bool, str]:
    """Let a reader read ``content``; return whether it refused, and what went wrong (an empty string when nothing)."""
    path.write_bytes(content)
    try:
        original.read(path)
    except SparsepackError as error:
        text = str(error)
        return True, "" if text and "\n" not in text else f"not one line: {text!r}"
    except MemoryError:
        return False, f"more memory than its bound: {_where()}"
    except OutOfTimeError:
        return False, f"more than {SECONDS} s: {_where()}"
    except Exception as error:  # noqa: BLE001  (whatever it is, it is the finding)
        return False, f"{type(error).__name__}: {error}: {_where()}"
    return False, ""


def _where() -> str:
    frames = traceback.extract_tb(sys.exc_info()[2])[-3:]
    return " > ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE


def _out_of_time(number: int, frame: FrameType | None) -> None:
    raise OutOfTimeError


def _child(files: dict[str, Original], seed: int, start: int, folder: Path) -> None:
    """Run the inputs of a batch that are not done."""
    warnings.simplefilter("error")
    signal.signal(signal.SIGPROF, _out_of_time)
    for name, original in files.items():
        # What a reader imports is not what a file asks for.
        (folder / original.name).write_bytes(original.content)
        assert original.read(folder / original.name), name
    with (folder / "marks").open("r+b") as stream, (folder / "failures").open("a") as failures:
        marks = mmap.mmap(stream.fileno(), 0)
        for place in range(marks.find(bytes([_TODO])), len(marks)):
            kind, content = hostile_input(files, seed, start + place)
            allowed = _COPIES * plausible_bytes(len(content)) + _FREE
            resource.setrlimit(resource.RLIMIT_AS, (_address_space() + allowed, resource.RLIM_INFINITY))
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            refused, problem = try_input(files[kind], content, folder / files[kind].name)
            signal.setitimer(signal.ITIMER_PROF, 0)
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            if problem:
                failures.write(json.dumps([start + place, kind, problem]) + "\n")
                failures.flush()
            marks[place] = _FAILED if problem else _REFUSED if refused else _READ


def _watch(child: Any, marks: mmap.mmap) -> str:
    """Wait for a child; return how it died, or an empty string when it ended well."""
    last, since = -1, time.monotonic()
    while child.is_alive():
        child.join(1.0)
        at = marks.find(bytes([_TODO]))
        if at != last:
            last, since = at, time.monotonic()
        elif time.monotonic() - since > HANGING:
            child.kill()
            child.join()
            return f"no answer for {HANGING} s"
    return "" if child.exitcode == 0 else f"the process died with code {child.exitcode}"


def fuzz(inputs: int, seed: int = 0, first: int = 0, *, files: dict[str, Original] | None = None) -> Outcome:
    """Run inputs ``first`` to ``first + inputs``.

    Args:
        inputs: how many.
        seed: what they are drawn from.
        first: number of the first.
        files: the originals; made when they are not given.
    """
    files = files or originals()
    total = Outcome()
    for start in range(first, first + inputs, _BATCH):
        _batch(files, seed, start, min(_BATCH, first + inputs - start), total)
    return total


def _batch(files: dict[str, Original], seed: int, start: int, count: int, total: Outcome) -> None:
    # A fresh process, so that what the parent has loaded counts for nothing.
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as name:
        folder = Path(name)
        (folder / "marks").write_bytes(bytes(count))
        (folder / "failures").touch()
        with (folder / "marks").open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as marks:
            while marks.find(bytes([_TODO])) >= 0:
                child = context.Process(target=_child, args=(files, seed, start, folder))
                child.start()
                died = _watch(child, marks)
                at = marks.find(bytes([_TODO]))
                if died and at < 0:
                    total.failures.append((start + count - 1, "", died))
                elif died:
                    marks[at] = _FAILED
                    total.failures.append((start + at, hostile_input(files, seed, start + at)[0], died))
            for index, mark in enumerate(marks[:]):
                kind = sorted(files)[(start + index) % len(files)]
                total.refused[kind] += mark == _REFUSED
                total.read[kind] += mark == _READ
        lines = (folder / "failures").read_text().splitlines()
        total.failures += [tuple(json.loads(line)) for line in lines]


def main() -> None:
    """Fuzz, print a table and every failure; exit 1 when there is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=INPUTS, help=f"how many (default: {INPUTS})")
    parser.add_argument("--full", action="store_true", help=f"{FULL} inputs")
    parser.add_argument("--seed", type=int, default=0, help="what the inputs are drawn from (default: 0)")
    parser.add_argument("--only", type=int, metavar="N", help="run input N in this process, with its traceback")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what became of the inputs")
    options = parser.parse_args()
    files = originals()
    if options.only is not None:
        kind, content = hostile_input(files, options.seed, options.only)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / files[kind].name
            path.write_bytes(content)
            print(kind, len(content), "bytes", files[kind].read(path).keys())
        return
    inputs = FULL if options.full else options.inputs
    outcome = fuzz(inputs, options.seed, files=files)
    for kind in sorted(files):
        print(f"{kind:20} {outcome.refused[kind]:8} refused {outcome.read[kind]:8} read")
    for index, kind, problem in sorted(outcome.failures):
        print(f"FAILED {index} ({kind}): {problem}")
    print(f"{inputs} inputs, {len(outcome.failures)} failures")
    if options.json:
        record = {"inputs": inputs, "seed": options.seed, "failures": len(outcome.failures)}
        kinds = {kind: {"refused": outcome.refused[kind], "read": outcome.read[kind]} for kind in sorted(files)}
        options.json.write_text(json.dumps(record | {"kinds": kinds}, indent=2) + "\n")
    sys.exit(1 if outcome.failures else 0)


if __name__ == "__main__":
    main()
