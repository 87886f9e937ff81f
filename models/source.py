"""Where a network comes from: a zoo name, a user's factory, a TorchScript or an ONNX file, behind one small contract.

In: the text a user typed. Out: a source that builds the network (or hands out an ONNX file's weights) and a record that
a checkpoint keeps. Guaranteed: a user's code runs only when the user named it, never because a file does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import ModelError, UnknownNameError, UsageError, near_miss
from ..files import sha256_file

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..files import Array
    from .onnx_file import OnnxFile
    from .prunable import PrunableTensor

KINDS = "a zoo name, path/to/file.py:factory, package.module:factory, an ONNX file (.onnx) or a TorchScript file (.pt)"
# What TorchScript files are called; .pt and .pth may also be something else, which its reader says.
TORCHSCRIPT_SUFFIXES = (".pt", ".pth", ".ts", ".torchscript", ".jit")


class InputSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One input of the network: its name, its shape without the batch axis, and its dtype (``float32``, ``int64``).

    An extent of -1 is one that an ONNX graph leaves open.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"


class ModelRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model source as a checkpoint records it.

    Attributes:
        kind: ``zoo``, ``factory``, ``torchscript`` or ``onnx``.
        text: what the user typed (``lenet-300-100``, ``net.py:build``, ``model.onnx``).
        inputs: the network's inputs.
        options: for a zoo model, what its builder was given (``input_shape``, ``classes`` ...); for other kinds
            ``classes``, the width of the output, where it is known.
        adaptations: how a zoo model was fitted to another input size, in sentences.
        sha256: of the TorchScript file, or the ONNX file (with its external data); None for other kinds.
        kept: which indices of its tensors are left of a slimmed network (see ``models.slimming.kept``); absent for
            others.
    """

    kind: str
    text: str
    inputs: list[InputSpec]
    options: dict[str, Any] = {}
    adaptations: list[str] = []
    sha256: str | None = None
    kept: dict[str, list[str | None]] | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True)
class TorchSource:
    """A network that torch builds.

    Attributes:
        record: what a checkpoint keeps of it.
        brings_weights: whether its weights are the user's own, which are never drawn anew unless asked for.
    """

    record: ModelRecord
    brings_weights: bool
    _make: Callable[[], nn.Module] = field(repr=False)
    _examples: tuple[Tensor, ...] = field(default=(), repr=False)
    # A user's factory has to run once to be checked; its module is the first one handed out, so it is not built twice.
    _ready: list[nn.Module] = field(default_factory=list, repr=False, compare=False)

    def build(self) -> nn.Module:
        """Return a fresh module in training mode; its weights are the same each time."""
        module = self._ready.pop() if self._ready else self._make()
        return module.train()

    def example_inputs(self, batch: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Return inputs to trace or compare networks with; they differ from sample to sample and repeat with the seed.

        Args:
            batch: extent of the first axis.
            seed: of the draw, 0 <= seed < 2**32.

        Returns:
            one tensor an input: standard normal for floats, whole numbers in the range that the network takes for ids.
        """
        from .examples import draw_inputs

        vocabulary = self.record.options.get("vocabulary")
        return draw_inputs(self.record.inputs, batch, seed, examples=self._examples, vocabulary=vocabulary)


@dataclass(frozen=True)
class OnnxSource:
    """An ONNX file whose weights are pruned in place, with no way through torch.

    Attributes:
        record: what a checkpoint keeps of it.
        path: where it lies.
    """

    record: ModelRecord
    path: Path
    _file: OnnxFile = field(repr=False, compare=False)

    def tensors(self) -> dict[str, Array]:
        """Return every float constant that a Conv, Gemm or MatMul reads (weights and biases), by ONNX name."""
        from .onnx_weights import layer_constants

        return {name: stored.read() for name, stored in layer_constants(self._file).items()}

    def constants(self, names: Iterable[str]) -> dict[str, Array]:
        """Return float constants by name; names of anything else are left out."""
        found = {name: self._file.stored(name) for name in dict.fromkeys(names) if name in self._file.constants}
        return {name: stored.read() for name, stored in found.items() if stored is not None}

    def prunable(self) -> list[PrunableTensor]:
        """Return the weights that a method may prune (see ``models.onnx_weights``), in graph order."""
        from .onnx_weights import prunable_constants

        return prunable_constants(self._file)

    def write(self, path: Path, tensors: Mapping[str, Array], force: bool = False) -> list[Path]:
        """Copy the file with only these tensors' bytes replaced (see :meth:`.onnx_file.OnnxFile.write`).

        Returns:
            the files written, the model first; external data goes beside it under the same names.
        """
        return self._file.write(path, tensors, force=force)


ModelSource = TorchSource | OnnxSource
_FILES = {"onnx": "ONNX file", "torchscript": "TorchScript file"}


def load_source(
    text: str,
    *,
    weights: Path | None = None,
    options: Mapping[str, Any] | None = None,
    inputs: list[InputSpec] | None = None,
    allow_import: bool = False,
) -> ModelSource:
    """Find the network that ``text`` names.

    Args:
        text: a zoo name, ``path/to/file.py:factory``, ``package.module:factory``, or the path of an ``.onnx`` or
            TorchScript file.
        weights: a safetensors file with the weights of a factory's module.
        options: ``input_shape`` and ``classes``, normally the data's; a zoo model is built for them.
        inputs: the inputs, normally the data's; they win over what a factory returns as examples.
        allow_import: whether a factory may be imported, that is, whether the user named it.

    Raises:
        UsageError: the text names nothing, something this release does not read, or a factory that may not be imported.
        ModelError: the model cannot be built, or the weights do not fit it.
    """
    from .zoo import ZOO

    given = dict(options or {})
    kind = _kind_of(text)
    if weights is not None and kind in ("zoo", "onnx", "torchscript"):
        raise UsageError(f"--weights goes with a factory of your own; '{text}' has its weights from elsewhere.")
    if kind == "zoo":
        return _zoo_source(text, given, inputs)
    if kind == "onnx":
        return _onnx_source(text)
    if kind == "torchscript":
        from .torchscript.reading import script_source

        return script_source(text, given, inputs)
    if kind == "factory":
        if not allow_import:
            raise UsageError(
                f"the model '{text}' is code of yours, which is run only when you name it; give --model {text}."
            )
        from .user_model import factory_source

        return factory_source(text, weights, given, inputs)
    suffix = Path(text).suffix.lower()
    if suffix == ".py":
        raise UsageError(f"'{text}' is a file; name the function in it that returns the model, as in '{text}:build'.")
    if suffix == ".safetensors":
        raise UsageError(f"'{text}' holds weights, no model; give the model, and the file with --weights {text}.")
    if suffix:
        raise UsageError(f"a model cannot be read from '{text}'; give {KINDS}.")
    raise UnknownNameError(
        f"unknown model '{text}'.{near_miss(text, ZOO)} Choose from: {', '.join(ZOO)}; or give {KINDS}."
    )


def source_from_record(record: ModelRecord, override: str | None = None) -> ModelSource:
    """Find again the network that a checkpoint or artifact was made from.

    Args:
        record: what the file keeps.
        override: the model that the user typed, needed for a factory and for an ONNX file that has moved.

    Raises:
        UsageError: a factory without ``override``, or an ``override`` of another kind.
        ModelError: the ONNX file is not where it was, or has changed since.
    """
    text = record.text if override is None else override
    if _kind_of(text) != record.kind or (record.kind == "zoo" and text != record.text):
        raise UsageError(f"this file was made from the {record.kind} model '{record.text}', not from '{text}'.")
    if record.kind in _FILES and override is None and not Path(text).is_file():
        raise ModelError(
            f"the {_FILES[record.kind]} {text} is not there any more; give its new place with --model PATH."
        )
    if record.kind == "torchscript" and Path(text).is_file() and sha256_file(Path(text)) != record.sha256:
        # Before anything of it is loaded.
        raise ModelError(
            f"{text} is not the TorchScript file that was pruned (its SHA-256 differs); give the original."
        )
    # Only what the user types is imported: the record's own text never is.
    options = record.options if record.kind == "zoo" else {}
    source = load_source(text, options=options, inputs=record.inputs, allow_import=override is not None)
    if source.record.sha256 != record.sha256:
        raise ModelError(f"{text} is not the ONNX file that was pruned (its SHA-256 differs); give the original.")
    if isinstance(source, TorchSource) and not isinstance(record.kept, msgspec.UnsetType):
        from .slimming.source import slimmed_source

        return slimmed_source(source, record.kept)
    return source


def _kind_of(text: str) -> str:
    """Return the kind of source that ``text`` names; an empty string for none."""
    from .factory import is_factory
    from .zoo import ZOO

    if text in ZOO:
        return "zoo"
    if Path(text).suffix.lower() == ".onnx":
        return "onnx"
    if Path(text).suffix.lower() in TORCHSCRIPT_SUFFIXES:
        return "torchscript"
    return "factory" if is_factory(text) else ""


def _zoo_source(text: str, options: dict[str, Any], inputs: list[InputSpec] | None) -> TorchSource:
    from .factory import fixed_randomness
    from .zoo import ZOO

    entry = ZOO[text]
    for spec in (inputs or [])[:1]:
        if spec.dtype != entry.input_dtype:
            raise ModelError(f"'{text}' takes inputs of {entry.input_dtype}; the data has {spec.dtype}.")
        options.setdefault("input_shape", spec.shape)
    full: dict[str, Any] = {"input_shape": entry.input_shape, "classes": entry.classes, **entry.options, **options}
    shape = tuple(full["input_shape"])
    full["input_shape"] = list(shape)

    def make() -> nn.Module:
        with fixed_randomness():
            return entry.build(**{**full, "input_shape": shape})[0]

    with fixed_randomness():
        first, adaptations = entry.build(**{**full, "input_shape": shape})
    spec = InputSpec("input", shape, entry.input_dtype)
    record = ModelRecord("zoo", text, [spec], options=full, adaptations=adaptations)
    return TorchSource(record, brings_weights=False, _make=make, _ready=[first])


def _onnx_source(text: str) -> OnnxSource:
    from .onnx_file import OnnxFile
    from .onnx_inputs import input_specs, output_width

    path = Path(text)
    if not path.is_file():
        raise ModelError(f"{text} does not exist; give the path of an ONNX file.")
    file = OnnxFile(path)
    width = output_width(file)
    options = {} if width is None else {"classes": width}
    record = ModelRecord("onnx", text, input_specs(file), options=options, sha256=file.sha256())
    return OnnxSource(record, path, file)
