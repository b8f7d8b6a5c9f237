"""Stands in the way of openmm-torch, as if it were not installed: see tests/conftest.py."""

raise ImportError("openmm-torch is hidden by --without-openmmtorch")
