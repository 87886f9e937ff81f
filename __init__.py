"""sparsepack: a network and a budget in, the smallest file and the fastest real inference out.

Data flows one way: models -> compressor -> exporters -> runtimes -> cli. Public names are loaded on first use, so
that ``import sparsepack`` costs nothing and ``compress --help`` needs no framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Public name -> the module that defines it, in data-flow order.
_PUBLIC = {
    "SparsepackError": "errors",
    "load_source": "models.source",
    "load_data": "models.data",
    "Recipe": "compressor.recipe",
    "load_recipe": "compressor.recipe",
    "SparseCheckpoint": "compressor.checkpoint",
    "prune": "compressor.pipeline",
    "load": "compressor.loading",
    "Sparsifier": "compressor.sparsifier",
    "export": "exporters",
    "open_artifact": "exporters",
    "measure": "runtimes.measure",
}

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from .compressor.checkpoint import SparseCheckpoint as SparseCheckpoint
    from .compressor.loading import load as load
    from .compressor.pipeline import prune as prune
    from .compressor.recipe import Recipe as Recipe
    from .compressor.recipe import load_recipe as load_recipe
    from .compressor.sparsifier import Sparsifier as Sparsifier
    from .errors import SparsepackError as SparsepackError
    from .exporters import export as export
    from .exporters import open_artifact as open_artifact
    from .models.data import load_data as load_data
    from .models.source import load_source as load_source
    from .runtimes.measure import measure as measure
else:

    def __getattr__(name: str) -> object:
        """Load a public name on first use (PEP 562)."""
        if name not in _PUBLIC:
            raise AttributeError(f"module 'sparsepack' has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
