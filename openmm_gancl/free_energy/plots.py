"""Pictures of results; each function takes a result and an axis."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..coordinates.basin import Basin
from ..errors import checked
from ..units import FloatArray, energy_unit, thermal_energy
from .axes import SurfaceAxis, axes_of
from .convergence import Convergence
from .surface import FreeEnergySurface

MAX_ENERGY = 15.0
"""kT; what lies above it is drawn in one light tone."""

COLOURS = ("#006ba4", "#ff800e", "#595959", "#5f9ed1", "#c85200", "#898989", "#a2c8ec", "#ffbc79")
"""Of curves; distinguishable with colour blindness."""

UNKNOWN_COLOUR, ABOVE_COLOUR = "0.75", "0.95"
HALO_WIDTH = 2.6


def _intervals(interval: FloatArray, edges: FloatArray) -> list[tuple[float, float]]:
    """One interval inside the grid, or the two parts of one that wraps around."""
    low, high = (float(bound) for bound in interval)
    first, last = float(edges[0]), float(edges[-1])
    if low <= high:
        return [(max(low, first), min(high, last))]
    return [(low, last), (first, high)]


def new_figure(size: tuple[float, float]) -> Any:
    """A figure of this size, inches, that needs no screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _new_axis(two_dimensional: bool) -> Any:
    return new_figure((6.4, 5.2) if two_dimensional else (6.4, 4.2)).add_subplot()


def _draw_boxes(ax: Any, surface: FreeEnergySurface, axes: Sequence[SurfaceAxis], basins: Sequence[Basin]) -> None:
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=HALO_WIDTH, foreground="white")]
    for basin in basins:
        parts = []
        for box in basin.boxes:
            for x in _intervals(box[0], surface.edges[0]):
                for y in _intervals(box[1], surface.edges[1]):
                    (x0, x1), (y0, y1) = axes[0].shown(x), axes[1].shown(y)
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


def _filled_field(
    surface: FreeEnergySurface, axes: Sequence[SurfaceAxis], energy: FloatArray
) -> tuple[list[FloatArray], FloatArray]:
    """Centres and energies, NaN where unknown, with one more row around."""
    field, places = np.where(np.isfinite(energy), energy, np.nan), []
    for i, (edges, period) in enumerate(zip(surface.edges, surface.periods, strict=True)):
        centres = 0.5 * (edges[1:] + edges[:-1])
        if np.isfinite(period):
            centres, field = _closed(centres, field, edges, i)
        places.append(axes[i].shown(centres))
    return places, field


def _name_axis(axis: Any, shown: SurfaceAxis, edges: FloatArray) -> None:
    """Name and ticks."""
    if (ticks := shown.ticks(edges)) is not None:
        axis.set_ticks(ticks, labels=[_turns(tick) for tick in ticks] if shown.unit == "radians" else None)
    axis.set_label_text(shown.title)


def _turns(angle: float) -> str:
    """Radians as a multiple of pi / 2."""
    quarters = round(2 * angle / np.pi)
    whole, half = divmod(abs(quarters), 2)
    number = f"{abs(quarters)}π/2" if half else f"{whole}π"
    return "0" if not quarters else ("-" if quarters < 0 else "") + number.replace("1π", "π")


def _axes_of_grid(ax: Any, surface: FreeEnergySurface, axes: Sequence[SurfaceAxis]) -> None:
    """Limits, ticks and names of both axes."""
    for axis, shown, edges, limits in zip(
        (ax.xaxis, ax.yaxis), axes, surface.edges, (ax.set_xlim, ax.set_ylim), strict=True
    ):
        _name_axis(axis, shown, edges)
        limits(*shown.shown(edges[[0, -1]]))


def _draw_minima(
    ax: Any, axes: Sequence[SurfaceAxis], minima: Mapping[str, FloatArray], saddles: Sequence[Any]
) -> None:
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=HALO_WIDTH, foreground="white")]

    def scaled(place: Any) -> list[float]:
        return [float(axis.shown(x)) for x, axis in zip(place, axes, strict=True)]

    for name, place in minima.items():
        if np.isfinite(place).all():
            ax.annotate(name, scaled(place), ha="center", va="center", color="0.1", path_effects=halo)
    for place in saddles:
        ax.plot(*scaled(place), marker="x", ms=5, mew=1.4, color="0.1", path_effects=halo)


def _plot_two(surface: FreeEnergySurface, axes: Sequence[SurfaceAxis], ax: Any, unit: str) -> None:
    from matplotlib import colormaps

    size, kT = energy_unit(unit, surface.temperature), thermal_energy(surface.temperature)
    kT /= size
    (x, y), field = _filled_field(surface, axes, surface.energy / size)
    highest = np.nanmax(field)
    n_levels = int(min(MAX_ENERGY, max(np.ceil(highest / kT), 1.0)))
    ax.set_facecolor(UNKNOWN_COLOUR)
    masked = np.ma.masked_invalid(field.T)
    extend = "max" if highest > kT * n_levels else "neither"
    filled = ax.contourf(
        x,
        y,
        masked,
        levels=kT * np.linspace(0, n_levels, 4 * n_levels + 1),
        cmap=colormaps["viridis"].with_extremes(over=ABOVE_COLOUR),
        extend=extend,
    )
    ax.contour(x, y, masked, levels=kT * np.arange(1, n_levels + 1), colors="white", linewidths=0.5, alpha=0.8)
    bar = ax.figure.colorbar(filled, ax=ax)
    step = next(step for step in (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, np.inf) if kT * n_levels / step < 9)
    bar.set_ticks(np.arange(0, kT * n_levels + 1e-9, min(step, kT * n_levels)))
    bar.set_label(f"free energy ({unit}), one contour each kT")
    _axes_of_grid(ax, surface, axes)


def _legend_above(ax: Any, height: float = 1.0) -> None:
    """A legend that no curve runs through; its height is a part of the axis'."""
    ax.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, height), borderaxespad=0.2, ncols=3, fontsize=9)


def _plot_one(
    surface: FreeEnergySurface,
    axis: SurfaceAxis,
    ax: Any,
    basins: Sequence[Basin],
    minima: Mapping[str, FloatArray],
    unit: str,
) -> None:
    from matplotlib.patheffects import withStroke

    edges, size = surface.edges[0], energy_unit(unit, surface.temperature)
    known, halo = np.isfinite(surface.energy), [withStroke(linewidth=HALO_WIDTH, foreground="white")]
    x = axis.shown(surface.centres[0])
    energy, error = (np.where(known, array / size, np.nan) for array in (surface.energy, surface.error))
    for index, basin in enumerate(basins):
        for part in (part for box in basin.boxes for part in _intervals(box[0], edges)):
            low, high = axis.shown(part)
            ax.axvspan(low, high, color="0.93" if index % 2 else "0.97", zorder=0)
            top = ax.get_xaxis_transform()
            ax.annotate(
                basin.name,
                ((low + high) / 2, 1.0),
                (0, 2),
                xycoords=top,
                textcoords="offset points",
                ha="center",
                va="bottom",
            )
    ax.fill_between(x, energy - error, energy + error, color="tab:blue", alpha=0.3, lw=0, label="one sigma")
    ax.plot(x, energy, color="tab:blue")
    for name, place in minima.items():
        if np.isfinite(place).all():
            level = float(energy[np.abs(surface.centres[0] - place[0]).argmin()])
            ax.annotate(
                name,
                (float(axis.shown(place[0])), level),
                (0, -4),
                textcoords="offset points",
                ha="center",
                va="top",
                path_effects=halo,
            )
    _name_axis(ax.xaxis, axis, edges)
    ax.set_xlim(*axis.shown(edges[[0, -1]]))
    top, bottom = np.nanmax(energy + error), min(0.0, np.nanmin(energy - error))
    ax.set_ylim(bottom - (0.08 if minima else 0.0) * (top - bottom))
    ax.set_ylabel(f"free energy ({unit})")
    # above the basins' names
    _legend_above(ax, 1.08 if basins else 1.0)


def _name_atoms(figure: Any, surface: FreeEnergySurface, axes: Sequence[SurfaceAxis]) -> None:
    """In small print, the atoms that coordinates depend on."""
    known = [(axis.label, atoms) for axis, atoms in zip(axes, surface.resolved, strict=False) if atoms]
    if known:
        figure.supxlabel("\n".join(f"{label}: {atoms}" for label, atoms in known), fontsize=7, color="0.4")


@checked
def plot_surface(
    surface: FreeEnergySurface,
    ax: Any = None,
    basins: Sequence[Basin] = (),
    *,
    minima: Mapping[str, FloatArray] | None = None,
    saddles: Sequence[Any] = (),
    unit: str = "kJ/mol",
    axis_units: Sequence[str] = (),
) -> Any:
    """Draw a free-energy surface over one or two labels.

    Args:
        surface: the surface.
        ax: a matplotlib axis; a new figure by default.
        basins: drawn as named boxes.
        minima: places of basins that were found, by their names.
        saddles: places between them, drawn as crosses in two dimensions.
        unit: kJ/mol, kcal/mol or kT.
        axis_units: degrees, radians, nm or angstrom, for each coordinate or for all; degrees for angles and the
            coordinate's own for others by default.

    Returns:
        the axis; ``ax.figure.savefig(path)`` writes it.
    """
    two_dimensional, axes = surface.energy.ndim == 2, axes_of(surface, axis_units)
    if ax is None:
        ax = _new_axis(two_dimensional)
        _name_atoms(ax.figure, surface, axes)
    if not two_dimensional:
        _plot_one(surface, axes[0], ax, basins, minima or {}, unit)
        return ax
    _plot_two(surface, axes, ax, unit)
    _draw_boxes(ax, surface, axes, basins)
    _draw_minima(ax, axes, minima or {}, saddles)
    return ax


@checked
def plot_errors(
    surface: FreeEnergySurface, ax: Any = None, *, unit: str = "kJ/mol", axis_units: Sequence[str] = ()
) -> Any:
    """Draw the error bars of a surface over two labels; the axis is returned."""
    ax, axes = _new_axis(True) if ax is None else ax, axes_of(surface, axis_units)
    size, known = energy_unit(unit, surface.temperature), np.isfinite(surface.error)
    x, y = (axis.shown(edges) for axis, edges in zip(axes, surface.edges, strict=True))
    highest = float(np.quantile(surface.error[known], 0.98)) / size
    ax.set_facecolor(UNKNOWN_COLOUR)
    drawn = np.ma.masked_invalid(np.where(known, surface.error / size, np.nan).T)
    mesh = ax.pcolormesh(x, y, drawn, cmap="cividis", vmin=0.0, vmax=highest)
    ax.figure.colorbar(mesh, ax=ax, extend="max").set_label(f"standard error ({unit})")
    _axes_of_grid(ax, surface, axes)
    return ax


@checked
def plot_convergence(convergence: Convergence, temperature: float, *, unit: str = "kJ/mol") -> Any:
    """Draw the results of the first and of the last part of every trajectory alone; the figure is returned.

    Above, the deviation from the whole surface below 10 kT; below, free energies of basins relative to the first.
    """
    n_rows = 2 if len(convergence.names) > 1 else 1
    figure, size = new_figure((6.4, 3.0 * n_rows)), energy_unit(unit, temperature)
    axes = np.atleast_1d(figure.subplots(n_rows, 1, sharex=True))
    for direction, style, word in ((0, "-", "first"), (1, "--", "last")):
        label = f"the {word} part alone"
        axes[0].plot(
            100 * convergence.fractions, convergence.rms[direction] / size, f"o{style}", color="0.2", label=label
        )
        for i, name in enumerate(convergence.names[1:] if n_rows == 2 else ()):
            free, error = (
                array[direction, :, i + 1] / size for array in (convergence.free_energies, convergence.errors)
            )
            known = np.isfinite(free)
            axes[1].errorbar(
                100 * convergence.fractions[known],
                free[known],
                error[known],
                fmt=f"o{style}",
                ms=4,
                capsize=2,
                color=COLOURS[i % len(COLOURS)],
                label=f"{name} - {convergence.names[0]}" if direction == 0 else None,
            )
    axes[0].set_ylabel(f"RMS from the\nwhole ({unit})")
    axes[0].set_ylim(bottom=0.0)
    _legend_above(axes[0])
    if n_rows == 2:
        axes[1].set_ylabel(f"basin free energy ({unit})")
        _legend_above(axes[1])
    axes[-1].set_xlabel("part of each trajectory (%)")
    axes[-1].set_xlim(0, 103)
    return figure


def plot_overlap(overlap: FloatArray, ax: Any = None) -> Any:
    """Draw the overlap matrix of umbrella windows; the axis is returned."""
    from matplotlib.colors import LogNorm

    ax = _new_axis(True) if ax is None else ax
    n = len(overlap)
    image = ax.imshow(overlap.clip(min=1e-6), cmap="viridis", norm=LogNorm(1e-3, 1.0), interpolation="nearest")
    if n <= 12:
        for i, j in np.ndindex(overlap.shape):
            if overlap[i, j] >= 0.005:
                ax.text(
                    j,
                    i,
                    f"{overlap[i, j]:.2f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="0.0" if overlap[i, j] > 0.1 else "1.0",
                )
    ax.figure.colorbar(image, ax=ax, extend="min").set_label("overlap")
    ax.set_xlabel("window")
    ax.set_ylabel("window")
    return ax


def plot_equilibration(discarded: Sequence[int], inefficiency: Sequence[float], ax: Any = None) -> Any:
    """Draw, for each umbrella window, the frames cut as equilibration and the correlation time; the axis is returned.

    Args:
        discarded: frames cut from each window.
        inefficiency: statistical inefficiency of each, frames.
        ax: a matplotlib axis; a new figure by default.
    """
    ax = new_figure((6.4, 3.2)).subplots() if ax is None else ax
    windows = np.arange(len(discarded))
    ax.bar(windows, discarded, color=COLOURS[0], label="cut as equilibration")
    ax.plot(windows, inefficiency, "o", color=COLOURS[1], ms=4, label="statistical inefficiency")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_xlabel("window")
    ax.set_ylabel("frames")
    ax.set_ylim(bottom=0.0)
    _legend_above(ax)
    return ax
