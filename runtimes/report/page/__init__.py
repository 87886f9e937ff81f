"""One page that shows a whole measurement: self-contained, no network, light and dark, printable."""

from .document import html_page

__all__ = ["html_page"]
