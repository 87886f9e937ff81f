"""A source from a user's own factory: run it, check what came back, and try it on the inputs it will get."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import ModelError
from ..files import DTYPES
from .evaluating import evaluating
from .examples import draw_inputs
from .factory import UserCode, load_factory
from .source import InputSpec, ModelRecord, TorchSource
from .weights_file import check_weights_file, load_weights


def factory_source(
    text: str, weights: Path | None, options: Mapping[str, Any], inputs: list[InputSpec] | None
) -> TorchSource:
    """Build the source of a factory that returns an ``nn.Module``, or ``(nn.Module, example_inputs)``.

    The module is run once on two samples in eval mode, so that a misfit shows here and not in the middle of training.

    Args:
        text: ``file.py:factory`` or ``package.module:factory``.
        weights: a safetensors file, or None to keep the weights that the factory made.
        options: ``input_shape`` and ``classes`` of the data, if any.
        inputs: the inputs, if the data (or the caller) knows them; the factory's examples say whether arrays of two
            axes are images of one channel or series.

    Raises:
        ModelError: the code raised, returned something else, or does not take these inputs.
        UsageError: the weights file is of a kind that is refused.
    """
    if weights is not None:
        check_weights_file(weights)
    factory = load_factory(text)
    module, examples = _unpack(text, factory())
    specs = _as_examples(inputs, examples) or _specs_from_options(options) or _specs_from_examples(module, examples)
    if not specs:
        raise ModelError(
            f"nothing says what {text} takes as input; give data, or let the factory return (module, example_inputs) "
            "with a tuple of tensors."
        )
    make = _maker(text, factory, weights)
    if weights is not None:
        load_weights(module, weights)
    width = _try_out(text, module, specs, examples)
    known = {} if width is None else {"classes": width}
    record = ModelRecord("factory", text, specs, options=known)
    return TorchSource(record, brings_weights=True, _make=make, _examples=examples, _ready=[module])


def _maker(text: str, factory: Callable[[], Any], weights: Path | None) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        module, _ = _unpack(text, factory())
        if weights is not None:
            load_weights(module, weights)
        return module

    return make


def _unpack(text: str, returned: Any) -> tuple[nn.Module, tuple[Tensor, ...]]:
    module, examples = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, ())
    if isinstance(examples, Tensor):
        examples = (examples,)
    if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise ModelError(
            f"{text} returned a {type(module).__name__}; expected an nn.Module, or a tuple (nn.Module, example_inputs)."
        )
    if not isinstance(examples, (tuple, list)) or not all(isinstance(x, Tensor) and x.dim() for x in examples):
        raise ModelError(f"the example inputs of {text} must be a tuple of tensors with a batch axis in front.")
    if any(is_lazy(parameter) for parameter in module.parameters()):
        raise ModelError(f"{text} returned a module with lazy layers, which have no weights yet; give their sizes.")
    _check_state(text, module)
    return module, tuple(examples)


def _check_state(text: str, module: nn.Module) -> None:
    """Refuse a network whose state holds what no file of tensors stores: complex numbers, quantised values, objects."""
    for name, value in module.state_dict().items():
        kind = str(value.dtype).removeprefix("torch.") if isinstance(value, Tensor) else type(value).__name__
        if not isinstance(value, Tensor) or kind not in DTYPES:
            raise ModelError(
                f"'{name}' in the state of {text} is {kind}, which no format here stores. Leave it out of the state "
                "(persistent=False for a buffer, no get_extra_state), or keep complex numbers as two real tensors."
            )


def _as_examples(inputs: list[InputSpec] | None, examples: tuple[Tensor, ...]) -> list[InputSpec] | None:
    """Leave out the channel axis that data gives to arrays [N, A, B] where the factory's example is a series [A, B]."""
    if not inputs or len(inputs) != 1 or len(examples) != 1:
        return inputs
    (spec,) = inputs
    if spec.shape[:1] != (1,) or len(spec.shape) != examples[0].dim():
        return inputs
    return [InputSpec(spec.name, spec.shape[1:], spec.dtype)]


def _specs_from_options(options: Mapping[str, Any]) -> list[InputSpec]:
    return [InputSpec("input", tuple(options["input_shape"]))] if "input_shape" in options else []


def _specs_from_examples(module: nn.Module, examples: tuple[Tensor, ...]) -> list[InputSpec]:
    """Name a single input ``input``, and several by the parameters of ``forward``."""
    names = [parameter.name for parameter in inspect.signature(module.forward).parameters.values()]
    if len(examples) == 1:
        names = ["input"]
    elif len(names) < len(examples):
        names = [f"input_{index}" for index in range(len(examples))]
    return [
        InputSpec(name, tuple(x.shape[1:]), str(x.dtype).removeprefix("torch."))
        for name, x in zip(names, examples, strict=False)
    ]


def _try_out(text: str, module: nn.Module, specs: list[InputSpec], examples: tuple[Tensor, ...]) -> int | None:
    """Run two samples through the module; return the width of an output [2, width]."""
    described = ", ".join(f"{spec.dtype} {spec.shape}" for spec in specs)
    samples = draw_inputs(specs, 2, 0, examples=examples)
    with UserCode(f"{text}, given inputs of {described},"), evaluating(module):
        output = module(*samples)
    if not isinstance(output, Tensor):
        return None
    return int(output.shape[1]) if output.dim() == 2 and output.is_floating_point() else None
