"""Which versions of the packages we stand on are installed here."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed(package: str) -> str:
    """The version of a package, or "not installed" (OpenCV, for one, comes under several names)."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
