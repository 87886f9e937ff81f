"""Accuracy of ResNet-20 at half the multiply-accumulates: pruned at once, and in the cycle slim, fine-tune, slim again.

Everything is done by the commands that a user would type (``compress prune``, ``compress slim``), on `digits` and, with
--mnist FILE, on 10,000 images of MNIST. The dense network is trained once; from it, 30 % of every width are removed at
once and the smaller module is trained on, or two times the 16.3 % that lead to the same widths, with half of that
training after each. A random choice of channels is the control. Runs are kept under --runs and taken up again, so that
the command can be interrupted.
"""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

from record import arguments, write

from sparsepack import cli

ONCE = 0.3
TWICE = 1 - (1 - ONCE) ** 0.5
PRUNE = ["--structure", "channel", "--allocation", "uniform", "--seed", "0", "--threads", "1"]
# Data -> epochs of the dense training and of the fine-tuning in all.
EPOCHS = {"digits": (20, 10), "mnist10k": (3, 2)}


def compress(*words: str) -> str:
    """Run one command line and return what it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = cli.run(list(words))
    if code:
        raise SystemExit(code)
    return out.getvalue()


def accuracy(run: Path) -> float:
    """Return the test accuracy after the last stage of a run."""
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return float(next(event["accuracy"] for event in reversed(events) if event["event"] == "stage"))


class Cycle:
    """One data set.

    Args:
        folder: where runs are kept.
        data: as ``--data`` takes it.
        epochs: of the dense training, and of the fine-tuning in all.
    """

    def __init__(self, folder: Path, data: str, epochs: tuple[int, int]) -> None:
        self._folder, self._data, self._epochs = folder, data, epochs

    def dense(self) -> dict[str, Any]:
        """Train the dense network."""
        run = self._folder / "dense"
        compress("prune", "resnet-20", "--data", self._data, "--method", "dense", "--epochs", str(self._epochs[0]),
                 "--seed", "0", "--threads", "1", "-o", str(run))  # fmt: skip
        return {"accuracy": accuracy(run)}

    def slimmed(self, name: str, sparsities: list[float], saliency: str) -> dict[str, Any]:
        """Prune, slim and fine-tune as often as there are sparsities; the last network is slimmed and exact."""
        model = str(self._folder / "dense" / "checkpoint.safetensors")
        rounds = []
        for number, sparsity in enumerate(sparsities):
            run, small = (self._folder / f"{name}-{number}{suffix}" for suffix in ("", ".safetensors"))
            # The mask is chosen, the network cut, and the small network trained: training a mask would cost more.
            masked = self._folder / f"{name}-{number}-masked"
            compress("prune", model, "--data", self._data, "--method", "magnitude", "--sparsity", f"{sparsity:.6f}",
                     "--fine-tune-epochs", "0", "--saliency", saliency, *PRUNE, "-o", str(masked))  # fmt: skip
            account = json.loads(compress("slim", str(masked), "-o", str(small), "--force", "--json"))["account"]
            epochs = self._epochs[1] // len(sparsities)
            compress("prune", str(small), "--data", self._data, "--method", "dense", "--epochs", str(epochs),
                     "--learning-rate", "0.01", "--seed", "0", "--threads", "1", "-o", str(run))  # fmt: skip
            model = str(run / "checkpoint.safetensors")
            rounds.append({"macs": account["macs"], "parameters": account["parameters"], "accuracy": accuracy(run)})
        return {"accuracy": rounds[-1]["accuracy"], "rounds": rounds}


def main() -> None:
    """Run every way on every data set and write the record."""
    options = arguments(__doc__, runs="out/slim-cycle", mnist="")
    sources = {"digits": "digits"} | ({"mnist10k": f"npz:{options.mnist}"} if options.mnist else {})
    figures: dict[str, Any] = {}
    for name, data in sources.items():
        folder = Path(options.runs) / name
        folder.mkdir(parents=True, exist_ok=True)
        cycle = Cycle(folder, data, EPOCHS[name])
        figures[name] = {"epochs": list(EPOCHS[name]), "dense": cycle.dense()}
        for way, sparsities, saliency in (
            ("at once", [ONCE], "l2"),
            ("slim, fine-tune, slim again", [TWICE, TWICE], "l2"),
            ("at once, random channels", [ONCE], "random"),
        ):
            figures[name][way] = cycle.slimmed(way.replace(", ", "-").replace(" ", "-"), sparsities, saliency)
            print(name, way, figures[name][way]["accuracy"], flush=True)
    write(options.json, figures)


if __name__ == "__main__":
    main()
