"""The version of this package, and of those it stands on that are installed here."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__version__ = "0.1.0"


def installed(package: str) -> str:
    """The version of a package, or "not installed" (OpenCV, for one, comes under several names)."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
