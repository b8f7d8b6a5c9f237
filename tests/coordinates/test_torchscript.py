"""TorchScript without the warning that newer torch gives of it."""

import warnings
from pathlib import Path

import pytest
import torch

import openmm_gancl
from openmm_gancl.coordinates import torchscript

WARNED = ("script", "save", "load")


class Spring(torch.nn.Module):
    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        return positions.square().sum()


def warning_first(name):
    """A function of torch.jit that says what newer torch does."""
    function = getattr(torch.jit, name)

    def warned(*arguments, **rest):
        warnings.warn(f"`torch.jit.{name}` is deprecated.", FutureWarning, stacklevel=2)
        return function(*arguments, **rest)

    return warned


def test_the_warning_is_not_shown_and_others_are(monkeypatch):
    for name in WARNED:
        monkeypatch.setattr(torch.jit, name, warning_first(name))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module = torchscript.loaded(torchscript.archived(torchscript.scripted(Spring())))
    assert module(torch.ones(2, 3)) == 6.0
    monkeypatch.setattr(torch.jit, "script", lambda _: warnings.warn("of the module", FutureWarning, stacklevel=2))
    with pytest.warns(FutureWarning, match="of the module"):
        torchscript.scripted(Spring())


def test_no_other_module_compiles():
    called = [f"torch.jit.{name}(" for name in WARNED]
    for path in Path(openmm_gancl.__file__).parent.rglob("*.py"):
        if path.name != "torchscript.py":
            assert not any(name in path.read_text() for name in called), path
