"""``python -m sparsepack.cli`` is ``compress``."""

from . import main

main()
