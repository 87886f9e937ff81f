"""How stored values may be written: ``fp32``, ``fp16``, ``bf16``, ``int8`` or ``codebook:BITS``.

What ``--values`` takes is parsed here and nowhere else; no framework and no array library is imported for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import unknown_name

FP32, FP16, BF16, INT8, CODEBOOK = "fp32", "fp16", "bf16", "int8", "codebook"
# How the table of formats and error messages write the last one.
CODEBOOKS = f"{CODEBOOK}:BITS"
MOST_BITS = 8
# Value type -> the float type that every value is rounded to.
ROUNDED = {FP16: "float16", BF16: "bfloat16"}


@dataclass(frozen=True)
class ValueType:
    """A parsed value type.

    Attributes:
        kind: ``fp32`` (unchanged), ``fp16``, ``bf16``, ``int8`` or ``codebook``.
        bits: of a code, for ``codebook``; 0 otherwise.
    """

    kind: str
    bits: int = 0

    @property
    def lossless(self) -> bool:
        """Whether values stay what they are."""
        return self.kind == FP32

    @property
    def coded(self) -> bool:
        """Whether weights become codes with a table beside them."""
        return self.kind in (INT8, CODEBOOK)

    @property
    def rounded(self) -> str | None:
        """The float type that values are rounded to: of everything (fp16, bf16), or of what is not coded."""
        return ROUNDED.get(self.kind, "float16" if self.coded else None)


def parse_values(text: str, allowed: Sequence[str], format: str = "") -> ValueType:
    """Return the value type that ``text`` names.

    Args:
        text: what the user wrote.
        allowed: what may be written, ``codebook:BITS`` for any codebook.
        format: the format, for the message.

    Raises:
        UnknownNameError: it names none of them, or a codebook of other than 1 to 8 bits.
    """
    kind, _, bits = text.partition(":")
    if kind == CODEBOOK and CODEBOOKS in allowed and bits in {str(n) for n in range(1, MOST_BITS + 1)}:
        return ValueType(CODEBOOK, int(bits))
    if text in allowed and text != CODEBOOKS:
        return ValueType(text)
    choices = [f"{CODEBOOKS} (1 to {MOST_BITS})" if choice == CODEBOOKS else choice for choice in allowed]
    raise unknown_name(f"value type for '{format}'" if format else "value type", text, choices)
