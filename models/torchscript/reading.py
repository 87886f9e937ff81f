"""The source of a TorchScript file: loaded by PyTorch, converted to a module, tried against what the file computes."""

from __future__ import annotations

import copy
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import ModelError
from ...files import sha256_file
from ..evaluating import evaluating
from ..examples import draw_inputs
from ..source import InputSpec, ModelRecord, TorchSource
from .network import ScriptNetwork, script_network

# In units of the largest output; operators are the same, so only the order of sums may differ.
_TOLERANCE = 1e-5


def script_source(text: str, options: Mapping[str, Any], inputs: list[InputSpec] | None) -> TorchSource:
    """Build the source of a TorchScript file.

    Args:
        text: its path.
        options: ``input_shape`` of the data, if any.
        inputs: the inputs, if the data or a checkpoint knows them; otherwise a network that begins with a linear layer
            says them itself.

    Raises:
        ModelError: it is no TorchScript file, was frozen, needs inputs that nobody named, or cannot be converted.
    """
    path = Path(text)
    script = load_script(path)
    if not list(script.parameters()):
        raise ModelError(
            f"{text} has no parameters: it was frozen (torch.jit.freeze or optimize_for_inference), which turns "
            "weights into constants. Give the file from before, or the model as a factory."
        )
    network = script_network(script, len(inputs) if inputs else None)
    specs = inputs or _from_options(options) or _guessed(network)
    if not specs:
        raise ModelError(f"nothing says what {text} takes as input, because TorchScript does not; give data (--data).")
    examples = draw_inputs(specs, 4, 0)
    width = _convert(text, script, network, examples)
    notes = [] if network.baked is None else [_MODES[network.baked]]
    known = {} if width is None else {"classes": width}
    record = ModelRecord("torchscript", text, specs, options=known, adaptations=notes, sha256=sha256_file(path))
    return TorchSource(record, brings_weights=True, _make=lambda: copy.deepcopy(network))


_MODES = {
    False: "the file was traced in evaluation mode, which is baked in; "
    "here BatchNorm and dropout follow the mode again",
    True: "the file was traced in training mode, which is baked in: it answers with statistics of each batch and drops "
    "at random; here BatchNorm and dropout follow the mode again, so that evaluation uses the running statistics",
}


def load_script(path: Path) -> torch.jit.ScriptModule:
    """Return the script module of a file.

    Raises:
        ModelError: there is no such file, or it holds none; one that needs pickle is not read.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist; give the path of a TorchScript file.")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        names = []
    if not any(name.endswith("/constants.pkl") for name in names):
        raise ModelError(
            f"{path} is no TorchScript file (torch.jit.save writes them); what torch.save writes needs pickle, which "
            "may run any code, and is not read."
        )
    with warnings.catch_warnings():
        # PyTorch's advice to leave TorchScript: the file is there already.
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated", category=DeprecationWarning)
        try:
            # Untyped in torch.
            script: torch.jit.ScriptModule = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{path} is a damaged TorchScript file: {_first_line(error)}.") from error
    return script


def _convert(
    text: str, script: torch.jit.ScriptModule, network: ScriptNetwork, examples: tuple[Tensor, ...]
) -> int | None:
    """Give the network its layers and hold its answer against the file's; return the width of an output [4, width]."""
    try:
        with evaluating(network):
            network.find_layers(examples)
        with evaluating(network), torch.no_grad():
            found = network(*examples)
            script.eval()
            expected = script(*examples)
    except (RuntimeError, TypeError, AttributeError, KeyError, IndexError) as error:
        described = ", ".join(f"{x.dtype} {tuple(x.shape[1:])}" for x in examples)
        raise ModelError(f"{text}, given inputs of {described}, failed: {_first_line(error)}.") from error
    if not isinstance(found, Tensor) or not isinstance(expected, Tensor):
        return None
    # Traced in training mode, the file itself drops at random.
    if not network.baked and not _close(found, expected):
        raise ModelError(f"{text} could not be converted to a module: its outputs differ; give the model as a factory.")
    return int(found.shape[1]) if found.dim() == 2 and found.is_floating_point() else None


def _close(found: Tensor, expected: Tensor) -> bool:
    if found.shape != expected.shape:
        return False
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    return bool(((found - expected).abs() <= _TOLERANCE * max(scale, 1e-30)).all())


def _from_options(options: Mapping[str, Any]) -> list[InputSpec]:
    return [InputSpec("input", tuple(options["input_shape"]))] if "input_shape" in options else []


def _guessed(network: ScriptNetwork) -> list[InputSpec]:
    """Return the input of a network that begins with a linear layer; nothing for others, whose extents may vary."""
    program = network._program
    names = program.body.inputs[1:]
    readers = [node for node in program.body.nodes if names and names[0] in node.inputs]
    if len(names) != 1 or len(readers) != 1 or readers[0].kind != "aten::linear":
        return []
    weight = program.attributes.get(readers[0].inputs[1])
    return [] if weight is None else [InputSpec("input", (network.get_parameter(weight.dotted).shape[1],))]


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].removesuffix(".") if lines else type(error).__name__
