"""The honest files, made once."""

import pytest
from hostile.originals import Original
from hostile.originals import originals as make_originals


@pytest.fixture(scope="session")
def originals() -> dict[str, Original]:
    """One small honest file for every reader."""
    return make_originals()


@pytest.fixture(scope="session")
def honest(originals: dict[str, Original]) -> dict[str, bytes]:
    """The same, as bytes."""
    return {name: original.content for name, original in originals.items()}
