"""Biases that OpenMM's samplers leave behind, as functions of the collective variables: Metadynamics and openmm-opes.

Frames sampled under a bias that changes only little any more are undone by the last bias: the log-weight of a frame is
V(xi) / kT (Branduardi, Bussi, Parrinello 2012, doi 10.1021/ct3002464). Cut the part in which the bias still grew.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from scipy.ndimage import map_coordinates, spline_filter1d

from ..errors import InputError, checked
from ..files import load_arrays
from ..units import FloatArray, IntArray, checked_temperature, number, numbers, thermal_energy
from .bias_evidence import decide, log_likelihoods
from .kernel_bias import KernelBias
from .tables import LARGEST

MAX_OUTSIDE = 0.01
"""Of the frames, that may lie outside the range of a bias."""


MIN_NEGATIVE = 1e-3
"""Of the largest energy, below which one is negative beyond rounding."""


class StaticBias(Protocol):
    """A bias that no longer changes.

    Attributes:
        n_variables: how many collective variables it acts on.
    """

    @property
    def n_variables(self) -> int: ...  # noqa: D102  # see the class

    def energies(self, values: FloatArray) -> FloatArray:
        """Of frames, kJ/mol, shape=(n,), for collective variables of shape=(n, n_variables)."""
        ...


@dataclass(frozen=True)
class TabulatedBias:
    """A bias on an even grid that includes both ends, between its nodes a cubic spline.

    Args:
        table: shape=(n_0, ...), kJ/mol.
        limits: shape=(d, 2), nm or radians; outside, the bias is zero.
        periodic: whether all variables are.
        guessed: whether the limits are those of one period around zero because none were given.
    """

    table: FloatArray
    limits: FloatArray
    periodic: bool
    guessed: bool = False

    @property
    def n_variables(self) -> int:
        """How many collective variables it acts on."""
        return self.table.ndim

    @property
    def n_intervals(self) -> IntArray:
        """Of the grid, for each variable."""
        return np.array(self.table.shape) - 1

    @property
    def coefficients(self) -> FloatArray:
        """Of the cubic B-splines at the nodes; the last node of a ring is left out, being its first."""
        table = self.table[tuple(slice(n) for n in self.n_intervals)] if self.periodic else self.table
        for axis in range(table.ndim):
            table = spline_filter1d(table, axis=axis, mode=self._mode)
        return np.asarray(table, dtype=float)

    @property
    def _mode(self) -> str:
        return "grid-wrap" if self.periodic else "mirror"

    def energies(self, values: FloatArray) -> FloatArray:
        """Of frames, kJ/mol, shape=(n,)."""
        low, high = self.limits.T
        places = (values - low) / (high - low) * self.n_intervals
        energies = map_coordinates(self.coefficients, places.T, mode=self._mode, prefilter=False)
        if not self.periodic:
            energies[((values < low) | (values > high)).any(axis=1)] = 0.0
        return np.asarray(energies, dtype=float)


def _newest(folder: Path, pattern: str, what: str) -> list[Path]:
    """Of files NAME_walker_index, the one of the highest index of each walker."""
    if not folder.exists():
        raise InputError(f"there is no file or folder {folder}: check the path")
    if folder.is_file():
        return [folder]
    newest: dict[str, tuple[int, Path]] = {}
    for path in sorted(folder.iterdir()):
        if found := re.fullmatch(pattern, path.name):
            walker, index = found.group(1), int(found.group(2))
            newest[walker] = max(newest.get(walker, (-1, path)), (index, path))
    if not newest:
        raise InputError(f"{folder} holds no {what}: give the folder that the sampler wrote its bias to")
    return [path for _, path in newest.values()]


@checked
def metadynamics_bias(
    path: str | Path, *, periods: Sequence[float], limits: Sequence[tuple[float, float]] | None = None
) -> TabulatedBias:
    """The bias of ``openmm.app.Metadynamics``, summed over its walkers.

    Args:
        path: the ``biasDir`` of the run, or one of its files.
        periods: of its variables, ``inf`` where there is none; more than it acts on may follow.
        limits: ``minValue`` and ``maxValue`` of each ``BiasVariable``, nm or radians; one period around zero by
            default.

    Raises:
        InputError: no such files, of unlike shapes, or no limits of a variable without a period.
    """
    periods = np.atleast_1d(numbers(periods)).tolist()
    if limits is not None:
        pairs = numbers(limits)
        limits = [(float(low), float(high)) for low, high in pairs.reshape(-1, 2)] if pairs.size % 2 == 0 else []
    paths = _newest(Path(path), r"bias_(\d+)_(\d+)\.npy", "bias_*_*.npy")
    tables = [load_arrays(file) for file in paths]
    for file, table in zip(paths, tables, strict=True):
        if not isinstance(table, np.ndarray) or table.dtype.kind != "f" or not table.ndim:
            raise InputError(f"{file} holds no bias of OpenMM's Metadynamics: give its biasDir")
        if table.shape != tables[0].shape or min(table.shape) < 2 or not (np.abs(table) < LARGEST).all():
            raise InputError(
                f"{file} is no bias of the same variables as {paths[0]}, or holds no energies: give files of one run"
            )
        if table.min() < -MIN_NEGATIVE * np.abs(table).max():
            raise InputError(
                f"{file} holds negative energies, as getFreeEnergy() does and no bias of OpenMM's Metadynamics: give "
                "its biasDir"
            )
    total = np.sum(tables, axis=0).T  # OpenMM's first variable is the last axis
    d = total.ndim
    if d > len(periods):
        raise InputError(
            f"the bias of {paths[0]} acts on {d} collective variables, named are {len(periods)}: "
            "name each of them by `bias_cvs`"
        )
    periodic, guessed = bool(np.isfinite(periods[:d]).all()), limits is None
    if limits is None and periodic:
        limits = [(-period / 2, period / 2) for period in periods[:d]]
    if limits is None or len(limits) != d:
        raise InputError(
            f"the bias of {paths[0]} needs {d} ranges, minValue and maxValue of each variable: give `limits` for each"
        )
    for (low, high), period in zip(limits, periods, strict=False):
        if periodic and not np.isclose(high - low, period, rtol=1e-3):
            raise InputError(
                f"the range {low:g}:{high:g} is not the period {period:g}: give minValue:maxValue in its unit"
            )
    return TabulatedBias(total, np.array(limits, dtype=float), periodic, guessed)


def _ranges(bias: TabulatedBias) -> str:
    return ", ".join(f"{low:.6g}:{high:.6g}" for low, high in bias.limits)


def with_fitting_range(bias: TabulatedBias, values: FloatArray, names: Sequence[str]) -> tuple[TabulatedBias, str, str]:
    """A tabulated bias on the range that its frames fit, with a note and a doubt; OpenMM's files do not tell it.

    Args:
        bias: on a range that was given, which stays, or guessed.
        values: shape=(n, d), of the frames.
        names: of the variables.

    Raises:
        InputError: the range was guessed and the frames do not decide, or they are elsewhere.
    """
    low, high = bias.limits.T
    if not bias.periodic:
        outside = float(((values < low) | (values > high)).any(axis=1).mean())
        if outside > MAX_OUTSIDE:
            raise InputError(
                f"{100 * outside:.0f} % of the frames are outside the range {_ranges(bias)} of the bias on "
                f"{', '.join(names)}: give minValue and maxValue of each variable by `limits`, in nm and radians"
            )
        return bias, "", ""
    sides = [((-period / 2, period / 2), (0.0, period)) for period in high - low]
    candidates = [replace(bias, limits=np.array(limits), guessed=False) for limits in itertools.product(*sides)]
    if not bias.guessed:
        candidates = [bias, *(other for other in candidates if not np.allclose(other.limits, bias.limits, atol=1e-2))]
    inner = bias.table[tuple(slice(n) for n in bias.n_intervals)]
    found = decide([log_likelihoods(candidate.energies(values), inner) for candidate in candidates])
    best = candidates[found.best]
    if not bias.guessed:
        doubt = f"the frames fit a bias that begins and ends at {_ranges(best)} better: check `limits`"
        return bias, "", doubt if found.decisive and found.best else ""
    if not found.decisive:
        raise InputError(
            f"the range of the bias on {', '.join(names)} is not in its files, and the frames do not tell it: give "
            "minValue and maxValue of each variable, as `limits=-3.14159:3.14159`"
        )
    note = f"the bias is taken to begin and end at {_ranges(best)}, as its frames fit: else give `limits`"
    return best, note if found.best else "", ""


def _kernels(path: Path) -> tuple[dict[str, FloatArray], bool]:
    """Positions, bandwidths and logarithms of weights of kernels, and whether OPES explored."""
    state = load_arrays(path)
    remedy = "give numpy.savez of OPES.getState(), or its biasDir"
    if not isinstance(state, dict):
        raise InputError(f"{path} is no state of openmm-opes: {remedy}")
    mode = np.asarray(state.get("exploreMode", False))
    if mode.ndim or mode.dtype.kind not in "bif" or mode not in (0, 1):
        raise InputError(f"{path} says neither that OPES explored nor that it did not: {remedy}")
    explore = bool(mode)
    for prefix in ("total", "kde"):
        name = prefix if explore else f"{prefix}RW"
        keys = {key: f"{name}_{key}" for key in ("positions", "bandwidths", "logWeights")}
        if set(keys.values()) <= state.keys():
            kernels = {key: numbers(state[stored]) for key, stored in keys.items()}
            positions, widths, weights = kernels.values()
            whole = positions.ndim == 2 and widths.shape == positions.shape and weights.shape == positions.shape[:1]
            sensible = whole and all((np.abs(part) < LARGEST).all() for part in kernels.values())
            if not (sensible and (widths > 1 / LARGEST).all()):
                raise InputError(f"{path} holds kernels that do not fit each other, or NaN: {remedy}")
            return kernels, explore
    raise InputError(f"{path} is no state of openmm-opes: {remedy}")


def _is_text(path: Path) -> bool:
    """Whether a file is a table, and no archive of arrays."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(1) in (b"#", b"\x1f", b"\xef")


@checked
def opes_bias(
    path: str | Path,
    *,
    temperature: float,
    periods: Sequence[float],
    barrier: float | None = None,
    bias_factor: float | None = None,
    kernel_shape: str = "gaussian",
) -> KernelBias:
    """The bias of ``openmm_opes.OPES``, joined over its walkers; or of PLUMED's OPES_METAD.

    Args:
        path: ``numpy.savez`` of ``OPES.getState()``, or the ``biasDir`` of the run; or KERNELS or STATE of PLUMED,
            which tell barrier and bias factor themselves.
        temperature: K.
        barrier: kJ/mol, as it was given to ``OPES``.
        periods: shape=(d,), ``inf`` where there is none.
        bias_factor: as it was given to ``OPES``; barrier over kT by default.
        kernel_shape: gaussian or compact, as it was given to ``OPES``; its state does not tell.

    Raises:
        InputError: no such state, or one without kernels.
    """
    kT = thermal_energy(checked_temperature(temperature))
    if _is_text(Path(path)):
        from .plumed_opes import plumed_opes_bias

        return plumed_opes_bias(Path(path), temperature=temperature, d=np.size(periods))
    if kernel_shape not in ("gaussian", "compact"):
        raise InputError(f"`kernel_shape` is {kernel_shape}: choose gaussian or compact")
    if barrier is None:
        raise InputError(f"{path} needs the barrier that OPES was given, kJ/mol: give `barrier`")
    barrier, periods = number(barrier), np.atleast_1d(numbers(periods)).tolist()
    bias_factor = barrier / kT if bias_factor is None else bias_factor
    if not (barrier > 0 and bias_factor > 1):
        raise InputError(f"a barrier of {barrier:g} kJ/mol and a bias factor of {bias_factor:g} make no OPES bias")
    paths = _newest(Path(path), r"kde_(\d+)_(\d+)\.npz", "kde_*_*.npz")
    walkers = [_kernels(file) for file in paths]
    if len({kernels["positions"].shape[1] for kernels, _ in walkers}) > 1:
        raise InputError(f"the files of {Path(path)} hold kernels on unlike variables: give those of one run")
    joined = {key: np.concatenate([kernels[key] for kernels, _ in walkers]) for key in walkers[0][0]}
    d = len(periods)
    if not len(joined["positions"]) or joined["positions"].shape[1] != d:
        raise InputError(f"{paths[0]} holds no kernels on {d} variables: name what the bias acts on by `bias_cvs`")
    prefactor = (1.0 - 1.0 / bias_factor) * kT * (bias_factor if walkers[0][1] else 1.0)
    return KernelBias(
        joined["positions"],
        joined["bandwidths"],
        joined["logWeights"],
        np.array(periods),
        prefactor,
        barrier,
        kernel_shape == "compact",
    )
