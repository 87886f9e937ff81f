"""The sparse matrices in a ``csr`` artifact that can be multiplied as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..exporters.artifact import Artifact
    from ..exporters.csr import CsrMatrix


def csr_matrices(artifact: Artifact) -> dict[str, CsrMatrix]:
    """Return the CSR matrices of the masked tensors by name, tied names included.

    A frozen tensor is left out: its mask says which weights were trained, the others are not zero.

    Args:
        artifact: an artifact of format ``csr``; any other has none.
    """
    from ..exporters.csr import CsrArtifact
    from ..exporters.materialise import zero_outside

    if not isinstance(artifact, CsrArtifact):
        return {}
    records = artifact.records()
    found: dict[str, CsrMatrix] = {}
    for name, record in records.items():
        stored = records[record.alias_of or name]
        if stored.masked and zero_outside(stored):
            found[name] = found[stored.name] if stored.name in found else artifact.csr(name)
    return found
