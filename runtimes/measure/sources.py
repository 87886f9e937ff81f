"""Where the network behind an artifact comes from, when the user typed ``--model`` and when not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...models.source import ModelRecord, TorchSource


def typed_source(record: ModelRecord | None, model: str | None) -> TorchSource | None:
    """Return the model source that the user typed for a recorded model, or None when nothing needs typing.

    Only a user's factory needs it, and a TorchScript file that has moved: a zoo name is looked up by whoever loads the
    artifact, and a file never names code to import.

    Raises:
        ModelError: the typed source cannot be built or does not fit the record.
    """
    from ...models.source import TorchSource, source_from_record

    if model is None or record is None or record.kind not in ("factory", "torchscript"):
        return None
    source = source_from_record(record, model)
    return source if isinstance(source, TorchSource) else None
