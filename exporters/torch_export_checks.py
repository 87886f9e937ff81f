"""What a ``torch.export`` file may hold before PyTorch loads it, because PyTorch trusts whatever it holds.

``torch.export.load`` unpickles what a configuration calls pickled, loads compiled libraries, evaluates symbolic sizes
as Python, looks up operators by any dotted name, and compiles the names of inputs. What passes here holds arrays,
operators of networks, names that are names, and sizes that are sums and products of symbols.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import FileFormatError
from ..files import decoded_json
from .torch_archive import ENTRY

_ENTRY = re.compile(
    r"archive/(data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|models/model\.json|data/sample_inputs/model\.pt|archive_format|archive_version|\.data/version|byteorder)"
)
_CONFIGS = ("archive/data/weights/model_weights_config.json", "archive/data/constants/model_constants_config.json")
_PROGRAM, _SAMPLES = "archive/models/model.json", "archive/data/sample_inputs/model.pt"
# Without the two that read and write files.
_OPERATOR = re.compile(
    r"torch\.ops\.(aten\.(?!save\b|from_file\b)\w+|prims\.\w+|higher_order\.\w+|quantized_decomposed\.\w+)(\.\w+)?"
    r"|torch\._?sym_\w+|math\.\w+"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)"
)
# No call, index, quote, decorator or line break can be written with these.
_NAME = re.compile(r"[\w.+\-/,<> ]*")
_SIZE = re.compile(r"(?:'\w+'|[A-Za-z]\w*|\d+|[\s,()=+\-*/<>])*")
_SIZE_WORD = re.compile(
    r"[su]\d+|Symbol|Integer|Rational|Add|Mul|Pow|Mod|Max|Min|Abs|FloorDiv|ModularIndexing|CleanDiv|CeilDiv|PythonMod"
    r"|Eq|Equality|Ne|Unequality|Lt|Le|Gt|Ge|StrictLessThan|LessThan|StrictGreaterThan|GreaterThan|And|Or|Not|Piecewise"
    r"|ExprCondPair|true|false|True|False|integer|positive|nonnegative"
)


def check_torch_export(path: Path) -> None:
    """Refuse a file that PyTorch could be made to run other code with than a network's operators.

    Raises:
        FileFormatError: it holds a pickle, a library, an operator or a name that an exported network has none of.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name != ENTRY and not _ENTRY.fullmatch(name):
                    raise FileFormatError(f"{path} holds '{name}', which no exported network needs; it is not loaded.")
            for name in _CONFIGS:
                _check_config(path, decoded_json(archive.read(name)))
            _check_program(path, decoded_json(archive.read(_PROGRAM)))
            _check_samples(path, archive.read(_SAMPLES))
    except (zipfile.BadZipFile, OSError, EOFError, KeyError, ValueError, RecursionError, RuntimeError) as error:
        raise FileFormatError(f"{path}: PyTorch cannot load it: {error}.".replace("\n", " ")) from error


def _check_config(path: Path, config: Any) -> None:
    entries = config.get("config") if isinstance(config, dict) else None
    for name, entry in entries.items() if isinstance(entries, dict) else ():
        stored = entry.get("path_name") if isinstance(entry, dict) else None
        pickled = not isinstance(entry, dict) or entry.get("use_pickle") is not False
        if pickled or not re.fullmatch(r"(weight|tensor)_\d+", str(stored)):
            raise FileFormatError(f"{path}: '{name}' is stored as a pickle, which may run any code; it is not loaded.")
    if not isinstance(entries, dict):
        raise FileFormatError(f"{path}: the list of its tensors is malformed.")


def _check_program(path: Path, program: Any) -> None:
    for key, value in _walk(program):
        if key == "expr_str":
            words = re.findall(r"'\w+'|[A-Za-z]\w*", value)
            known = all(word[0] == "'" or _SIZE_WORD.fullmatch(word) for word in words)
            fits = _SIZE.fullmatch(value) is not None and known
        elif key in ("in_spec", "out_spec"):
            # Types are looked up among those that the process knows; these two name modules to import.
            fits = "__" not in value and "defaultdict" not in value
        elif key in ("node", "as_operator"):
            fits = _OPERATOR.fullmatch(value) is not None
        else:
            fits = _NAME.fullmatch(value) is not None
        if not fits:
            raise FileFormatError(f"{path}: {value[:60]!r} in its program is nothing of a network; it is not loaded.")


def _walk(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text in a program with the key that it stands under, ``node`` for what a node calls."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield "", str(name)
            yield from _walk(inner, "node" if key == "nodes" and name == "target" else str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner, key)


def _check_samples(path: Path, content: bytes) -> None:
    """Refuse examples that are more than tensors; PyTorch itself would fall back on an unpickler that runs any code."""
    # Only for the name of the error.
    import pickle

    import torch

    if not content:
        return
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(
            f"{path}: its example inputs are a pickle of more than tensors; it is not loaded."
        ) from error
