"""Pictures of a diffusion map: spectrum, bandwidth, selection and coordinates; each takes a result and an axis."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, checked
from ..free_energy.axes import SYMBOLS
from ..free_energy.plots import COLOURS, UNKNOWN_COLOUR, new_figure
from ..units import FloatArray
from .diffusion_map import BandwidthCurve, DiffusionMap
from .spectrum import MIN_FRAME_FRACTION, Selection, SpectralGap, spectral_gap

KEPT_COLOUR, REJECTED_COLOUR = COLOURS[0], COLOURS[1]
OUTLIER_FRACTION = 0.002
"""Part of the frames, at either end of a coordinate, that may lie outside the picture."""

MAX_TICKS = 12


def _new_axis() -> Any:
    return new_figure((6.4, 4.2)).add_subplot()


def _number_ticks(ax: Any, n: int) -> None:
    step = -(-n // MAX_TICKS)
    ax.set_xticks(np.arange(1, n + 1, step))
    ax.set_xlim(0.4, n + 0.6)
    ax.set_xlabel("coordinate")


def _decade_ticks(ax: Any, values: FloatArray) -> None:
    """Few enough labels on a logarithmic axis, and at least two."""
    from matplotlib.ticker import LogLocator, NullFormatter

    wide = values.max() / values.min() > 100.0
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 3.0)))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _unit_text(power: str, unit: str) -> str:
    return f" ({unit}{power})" if unit else ""


def plot_spectrum(gap: SpectralGap, ax: Any = None, *, unit: str = "") -> Any:
    """Draw the rates, with the kept ones and the largest gap between them marked; the axis is returned.

    Args:
        gap: of a map.
        ax: a matplotlib axis; a new figure by default.
        unit: of the features.
    """
    ax = _new_axis() if ax is None else ax
    number = np.arange(1, len(gap.rates) + 1)
    ax.plot(number, gap.rates, color="0.8", lw=1.0, zorder=1)
    for indices, colour, marker, label in (
        (gap.chosen, KEPT_COLOUR, "o", "kept"),
        (gap.rejected, REJECTED_COLOUR, "X", "harmonic"),
    ):
        if len(indices):
            ax.plot(number[indices], gap.rates[indices], marker, color=colour, ms=7, label=label)
    if gap.between is not None:
        low, high = gap.rates[list(gap.between)]
        ax.axhspan(low, high, color="0.92", zorder=0, label=f"largest gap, {gap.ratios.max():.2f}-fold")
    _number_ticks(ax, len(number))
    ax.set_ylim(bottom=0.0)
    ax.set_ylabel(f"rate{_unit_text('⁻²', unit)}")
    ax.legend(frameon=False, loc="upper left")
    return ax


def plot_bandwidth_curve(
    curve: BandwidthCurve, ax: Any = None, *, bandwidth: float | None = None, unit: str = ""
) -> Any:
    """Draw how the kernel's sum grows with the bandwidth, and the choice; the axis is returned.

    Args:
        curve: of a fitted map.
        ax: a matplotlib axis; a new figure by default.
        bandwidth: that was used, if it was not chosen by this curve.
        unit: of the features.
    """
    ax = _new_axis() if ax is None else ax
    used = curve.best if bandwidth is None else bandwidth
    slope = float(np.interp(np.log(used), np.log(curve.bandwidths), curve.slopes))
    ax.plot(curve.bandwidths, curve.slopes, color="0.2", lw=1.6)
    ax.axvline(used, color=KEPT_COLOUR, lw=1.0, ls="--", zorder=0)
    ax.plot([used], [slope], "o", color=KEPT_COLOUR, ms=7)
    ax.set_title(f"ε = {used:.2g}{f' {unit}²' if unit else ''}, dimension {2.0 * slope:.1f}", fontsize=10)
    ax.set_xscale("log")
    _decade_ticks(ax, curve.bandwidths)
    ax.set_ylim(bottom=0.0)
    ax.set_xlabel(f"bandwidth ε{_unit_text('²', unit)}")
    ax.set_ylabel("d log S / d log ε")
    ax.secondary_yaxis("right", functions=(lambda y: 2.0 * y, lambda y: 0.5 * y)).set_ylabel("implied dimension")
    return ax


def plot_selection(selection: Selection, ax: Any = None) -> Any:
    """Draw the scores by which coordinates were kept; the axis is returned.

    Args:
        selection: of a map's coordinates.
        ax: a matplotlib axis; a new figure by default.
    """
    ax = _new_axis() if ax is None else ax
    n = len(selection.scores)
    kept = np.isin(np.arange(n), selection.chosen)
    for which, colour, hatch, label in ((kept, KEPT_COLOUR, None, "kept"), (~kept, REJECTED_COLOUR, "///", "harmonic")):
        if which.any():
            ax.bar(
                np.flatnonzero(which) + 1,
                selection.scores[which],
                width=0.7,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                label=label,
            )
    ax.axhline(selection.threshold, color="0.2", lw=1.2, ls="--", label=f"threshold, {selection.threshold:g}")
    _number_ticks(ax, n)
    ax.set_ylim(0.0, 1.4 * max(1.0, float(selection.scores.max())))
    ax.set_ylabel("score (1 new, 0 predicted)")
    ax.legend(frameon=False, loc="upper right")
    return ax


def plot_coordinates(
    coordinates: FloatArray,
    angles: FloatArray,
    ax: Any = None,
    *,
    pair: tuple[int, int] = (0, 1),
    name: str = "",
    bar: bool = True,
) -> Any:
    """Draw frames in two coordinates, coloured by an angle that the map was not given; the axis is returned.

    Args:
        coordinates: shape=(n, n_coordinates), of frames.
        angles: shape=(n,), radians, of the same frames.
        ax: a matplotlib axis; a new figure by default.
        pair: indices of two coordinates.
        name: of the angle.
        bar: whether there is a bar of colours of its own.

    Raises:
        InputError: there is not one angle a frame.
    """
    if np.shape(angles) != (len(coordinates),):
        raise InputError(f"angles of shape {np.shape(angles)} for {len(coordinates)} frames: give one a frame")
    ax = _new_axis() if ax is None else ax
    places = coordinates[:, list(pair)]
    # the ends of the colour map are nearly white
    ax.set_facecolor(UNKNOWN_COLOUR)
    dots = ax.scatter(*places.T, c=np.degrees(angles), cmap="twilight", vmin=-180, vmax=180, s=6, lw=0, rasterized=True)
    low, high = np.quantile(places, [OUTLIER_FRACTION, 1.0 - OUTLIER_FRACTION], axis=0)
    margin = 0.06 * (high - low)
    ax.set_xlim(low[0] - margin[0], high[0] + margin[0])
    ax.set_ylim(low[1] - margin[1], high[1] + margin[1])
    n_outside = int(((places < low - margin) | (places > high + margin)).any(axis=1).sum())
    symbol = SYMBOLS.get(name, name)
    words = [f"colour: {symbol}"] if symbol else []
    if n_outside:
        words.append(f"{n_outside} frame{'s' if n_outside > 1 else ''} outside")
    ax.set_title(", ".join(words), fontsize=10)
    ax.set_xlabel(f"coordinate {pair[0] + 1}")
    ax.set_ylabel(f"coordinate {pair[1] + 1}")
    if bar:
        _degree_bar(ax.figure, dots, ax, f"{symbol or 'angle'} (degrees)")
    return ax


def _degree_bar(figure: Any, dots: Any, axes: Any, label: str) -> None:
    bar = figure.colorbar(dots, ax=axes, fraction=0.05, pad=0.02, aspect=30)
    bar.set_ticks(np.arange(-180, 181, 60))
    bar.set_label(label)


def _pairs(gap: SpectralGap) -> list[tuple[int, int]]:
    chosen = [int(i) for i in gap.chosen if gap.shares[i] >= MIN_FRAME_FRACTION]
    return [(chosen[0], other) for other in chosen[1:3]]


@checked
def plot_slow(
    fitted: DiffusionMap,
    selection: Selection,
    angles: Mapping[str, FloatArray],
    path: Path | str | None = None,
    *,
    pairs: Sequence[tuple[int, int]] | None = None,
    unit: str = "",
) -> Any:
    """Draw spectrum, bandwidth, selection and coordinates in one figure, which is returned.

    Args:
        fitted: a map.
        selection: of its coordinates.
        angles: by their names, shape=(n,) each, radians, of the frames that the map was fitted on.
        path: where the figure is saved.
        pairs: of coordinates that are drawn, coloured by each angle; the first kept one and each of the next two by
            default, those of a few outliers left out.
        unit: of the features.
    """
    gap = spectral_gap(fitted, selection)
    pairs = _pairs(gap) if pairs is None else pairs
    n_panels = len(pairs) * len(angles)
    figure = new_figure((12.8, 7.6 if n_panels else 3.8))
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)
    upper, *lower = np.atleast_1d(figure.subfigures(2 if n_panels else 1, 1))
    spectrum, bandwidth, scores = upper.subplots(1, 3)
    plot_spectrum(gap, spectrum, unit=unit)
    plot_bandwidth_curve(fitted.curve_, bandwidth, bandwidth=fitted.bandwidth_, unit=unit)
    plot_selection(selection, scores)
    if n_panels:
        axes = np.atleast_1d(lower[0].subplots(1, n_panels))
        panels = [(pair, name) for pair in pairs for name in angles]
        for ax, (pair, name) in zip(axes, panels, strict=True):
            plot_coordinates(fitted.coordinates_, angles[name], ax, pair=pair, name=name, bar=False)
        _degree_bar(lower[0], axes[-1].collections[0], axes, "angle (degrees)")
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure
