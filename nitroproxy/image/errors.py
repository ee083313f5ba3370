"""Why an image, or what it is built from, is refused."""

from __future__ import annotations


class ImageError(Exception):
    """The input cannot be used; the message names the file or field, what is wrong with it, and what to do."""
