"""Versions of what numbers depend on."""

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("openmm-gancl", "openmm", "torch", "numpy", "scipy", "mdtraj")


@cache
def package_versions() -> dict[str, str]:
    """Of Python and of `PACKAGES`, as installed."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "unknown"
    return versions
