"""The version of this package, and which versions of others are installed here."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from trackgpt.errors import UsageError

__version__ = "0.1.0"


def installed(package: str) -> str:
    """The version of a package, or "not installed" (OpenCV, for one, comes under several names)."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def require(extra: str, *modules: str) -> None:
    """Raise UsageError where one of the modules of an extra cannot be imported; nothing is imported."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise UsageError(f"{', '.join(missing)}: not installed; pip install 'trackgpt[{extra}]'")
