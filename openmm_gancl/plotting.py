"""Pictures of results; each function takes a result and an axis."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .surfaces import FreeEnergySurface
from .system import Basin
from .units import FloatArray, thermal_energy

SYMBOLS = {"phi": "φ", "psi": "ψ", "omega": "ω", "chi1": "χ₁", "chi2": "χ₂", "theta": "θ"}
CEILING = 15.0
"""kT; what lies above it is drawn in one light tone."""

UNKNOWN, ABOVE = "0.75", "0.95"
HALO_WIDTH = 2.6


def _is_angle(period: float) -> bool:
    return bool(np.isclose(period, 2 * np.pi))


def _scaled(values: FloatArray, period: float) -> FloatArray:
    """Angles in degrees, anything else as it is."""
    return np.degrees(values) if _is_angle(period) else values


def _axis_label(name: str, period: float, unit: str) -> str:
    kind, colon, rest = name.partition(":")
    label = f"{SYMBOLS.get(kind, kind)}{' ' if kind in SYMBOLS and colon else colon}{rest}"
    unit = "degrees" if _is_angle(period) else unit
    return f"{label} ({unit})" if unit else label


def _intervals(interval: FloatArray, edges: FloatArray) -> list[tuple[float, float]]:
    """One interval inside the grid, or the two parts of one that wraps around."""
    low, high = (float(bound) for bound in interval)
    first, last = float(edges[0]), float(edges[-1])
    if low <= high:
        return [(max(low, first), min(high, last))]
    return [(low, last), (first, high)]


def _new_axis(two_dimensional: bool) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.2) if two_dimensional else (6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def _degree_ticks(axis: Any, edges: FloatArray, period: float) -> None:
    if _is_angle(period):
        low, high = np.degrees(edges[[0, -1]])
        axis.set_ticks(np.arange(np.ceil(low / 60 - 1e-6), np.floor(high / 60 + 1e-6) + 1) * 60)


def _draw_boxes(ax: Any, surface: FreeEnergySurface, basins: Sequence[Basin]) -> None:
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=HALO_WIDTH, foreground="white")]
    for basin in basins:
        parts = []
        for box in basin.boxes:
            for x in _intervals(box[0], surface.edges[0]):
                for y in _intervals(box[1], surface.edges[1]):
                    x0, x1 = _scaled(np.array(x), surface.periods[0])
                    y0, y1 = _scaled(np.array(y), surface.periods[1])
                    parts.append((x0, y0, x1 - x0, y1 - y0))
        for x0, y0, width, height in parts:
            ax.add_patch(Rectangle((x0, y0), width, height, fill=False, color="0.1", lw=1.2, path_effects=halo))
        x0, y0, width, height = max(parts, key=lambda part: part[2] * part[3])
        ax.annotate(
            basin.name,
            (x0 + width / 2, y0 + height),
            (0, -3),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=9,
            color="0.1",
            path_effects=halo,
        )


def _closed(centres: FloatArray, field: FloatArray, edges: FloatArray, axis: int) -> tuple[FloatArray, FloatArray]:
    """Carry the outermost values on to the edges, round a periodic axis: contours then fill the frame."""
    first, last = field.take([0], axis), field.take([-1], axis)
    centres = np.concatenate([2 * edges[:1] - centres[:1], centres, 2 * edges[-1:] - centres[-1:]])
    return centres, np.concatenate([last, field, first], axis)


def _filled_field(surface: FreeEnergySurface) -> tuple[list[FloatArray], FloatArray]:
    """Centres and energies, NaN where unknown, with one more row around."""
    field, axes = np.where(np.isfinite(surface.energy), surface.energy, np.nan), []
    for axis, (edges, period) in enumerate(zip(surface.edges, surface.periods, strict=True)):
        centres = 0.5 * (edges[1:] + edges[:-1])
        if np.isfinite(period):
            centres, field = _closed(centres, field, edges, axis)
        axes.append(_scaled(centres, period))
    return axes, field


def _plot_two(surface: FreeEnergySurface, ax: Any, basins: Sequence[Basin]) -> None:
    from matplotlib import colormaps

    kT = thermal_energy(surface.temperature)
    (x, y), field = _filled_field(surface)
    highest = np.nanmax(field)
    n_levels = int(min(CEILING, max(np.ceil(highest / kT), 1.0)))
    ax.set_facecolor(UNKNOWN)
    masked = np.ma.masked_invalid(field.T)
    extend = "max" if highest > kT * n_levels else "neither"
    filled = ax.contourf(
        x,
        y,
        masked,
        levels=kT * np.linspace(0, n_levels, 4 * n_levels + 1),
        cmap=colormaps["viridis"].with_extremes(over=ABOVE),
        extend=extend,
    )
    ax.contour(x, y, masked, levels=kT * np.arange(1, n_levels + 1), colors="white", linewidths=0.5, alpha=0.8)
    bar = ax.figure.colorbar(filled, ax=ax)
    bar.set_ticks(np.arange(0, kT * n_levels + 1e-9, 5.0 if n_levels > 4 else 1.0))
    bar.set_label("free energy (kJ/mol), one contour each kT")
    _draw_boxes(ax, surface, basins)
    for axis, edges, name, period, unit in zip(
        (ax.xaxis, ax.yaxis), surface.edges, surface.names, surface.periods, surface.units, strict=True
    ):
        _degree_ticks(axis, edges, period)
        axis.set_label_text(_axis_label(name, period, unit))
    ax.set_xlim(*_scaled(surface.edges[0][[0, -1]], surface.periods[0]))
    ax.set_ylim(*_scaled(surface.edges[1][[0, -1]], surface.periods[1]))


def _plot_one(surface: FreeEnergySurface, ax: Any, basins: Sequence[Basin]) -> None:
    edges, period = surface.edges[0], surface.periods[0]
    known = np.isfinite(surface.energy)
    x = _scaled(surface.centres[0], period)
    energy, error = (np.where(known, array, np.nan) for array in (surface.energy, surface.error))
    for index, basin in enumerate(basins):
        for low, high in (part for box in basin.boxes for part in _intervals(box[0], edges)):
            low, high = _scaled(np.array([low, high]), period)
            ax.axvspan(low, high, color="0.93" if index % 2 else "0.97", zorder=0)
            ax.text((low + high) / 2, 0.98, basin.name, transform=ax.get_xaxis_transform(), ha="center", va="top")
    ax.fill_between(x, energy - error, energy + error, color="tab:blue", alpha=0.3, lw=0, label="one sigma")
    ax.plot(x, energy, color="tab:blue")
    _degree_ticks(ax.xaxis, edges, period)
    ax.set_xlim(*_scaled(edges[[0, -1]], period))
    ax.set_ylim(bottom=min(0.0, np.nanmin(energy - error)))
    ax.set_xlabel(_axis_label(surface.names[0], period, surface.units[0]))
    ax.set_ylabel("free energy (kJ/mol)")
    ax.legend(frameon=False, loc="lower center")


def plot_surface(surface: FreeEnergySurface, ax: Any = None, basins: Sequence[Basin] = ()) -> Any:
    """Draw a free-energy surface over one or two labels.

    Args:
        surface: the surface.
        ax: a matplotlib axis; a new figure by default.
        basins: drawn as named boxes.

    Returns:
        the axis; ``ax.figure.savefig(path)`` writes it.
    """
    two_dimensional = surface.energy.ndim == 2
    ax = _new_axis(two_dimensional) if ax is None else ax
    (_plot_two if two_dimensional else _plot_one)(surface, ax, basins)
    return ax
