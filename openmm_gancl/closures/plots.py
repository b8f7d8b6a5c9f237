"""Pictures of closures; each function takes results and an axis, and the last makes a whole figure."""

from typing import Any

import numpy as np

from ..errors import checked
from ..free_energy.axes import SurfaceAxis, axes_of
from ..free_energy.plots import COLOURS, new_figure
from ..free_energy.surface import FreeEnergySurface
from ..units import FloatArray, thermal_energy
from .drift_diffusion import Rates
from .mean_force import MeanForceTest

CEILING = 10.0
"""kT, up to which maps are drawn."""


def _name(panel: Any, axes: list[SurfaceAxis], edges: tuple[FloatArray, ...]) -> None:
    """Names and ticks of the coordinates."""
    for axis, shown, part in zip((panel.xaxis, panel.yaxis), axes, edges, strict=False):
        axis.set_label_text(shown.title)
        if (ticks := shown.ticks(part)) is not None:
            axis.set_ticks(ticks)
    panel.set_xlim(*axes[0].shown(edges[0][[0, -1]]))


def _map(
    panel: Any,
    axes: list[SurfaceAxis],
    edges: tuple[FloatArray, ...],
    field: FloatArray,
    title: str,
    colours: str = "viridis",
    most: float | None = None,
) -> None:
    """A field over two coordinates; with ``most`` its colours are symmetric about zero."""
    places = [axis.shown(part) for axis, part in zip(axes, edges, strict=True)]
    low = None if most is None else -most
    image = panel.pcolormesh(*places, field.T, cmap=colours, vmin=low, vmax=most, rasterized=True)
    panel.figure.colorbar(image, ax=panel)
    panel.set_title(title, fontsize=9)
    panel.set_facecolor("0.92")
    _name(panel, axes, edges)


def _with_mean_of(surface: FreeEnergySurface, other: FreeEnergySurface) -> FloatArray:
    """Of a surface on a grid, kJ/mol, with the mean of the other where both are low; NaN where unknown."""
    both = (surface.energy < 25.0) & (other.energy < 25.0)
    shift = other.energy[both].mean() - surface.energy[both].mean() if both.any() else 0.0
    return np.where(np.isfinite(surface.energy), surface.energy + shift, np.nan)


def plot_mean_force(of_weights: FreeEnergySurface, of_force: FreeEnergySurface, ax: Any) -> None:
    """Draw the surface from mean forces against that from weights: both over one label, their difference over two."""
    axes = axes_of(of_weights)
    if len(axes) == 2:
        known = np.isfinite(of_weights.energy) & (of_weights.energy < CEILING * thermal_energy(of_weights.temperature))
        difference = np.where(known, _with_mean_of(of_force, of_weights) - of_weights.energy, np.nan)
        most = float(np.nanmax(np.abs(difference), initial=1e-3))
        title = "free energy from mean force less that from weights (kJ/mol)"
        _map(ax, axes, of_weights.edges, difference, title, "RdBu_r", most)
        return
    x = axes[0].shown(of_weights.centres[0])
    for surface, colour, label in ((of_weights, COLOURS[0], "weights"), (of_force, COLOURS[1], "mean force")):
        low, bar = (
            _with_mean_of(surface, of_weights),
            np.where(np.isfinite(surface.error), surface.error, np.nan),
        )
        ax.plot(x, low, color=colour, label=f"from {label}")
        ax.fill_between(x, low - bar, low + bar, color=colour, alpha=0.25, lw=0)
    ax.set_ylabel("free energy (kJ/mol)")
    ax.legend(frameon=False)
    _name(ax, axes, of_weights.edges)


def plot_average(surface: FreeEnergySurface, average: FloatArray, error: FloatArray, name: str, ax: Any) -> None:
    """Draw an average given the label, on the grid of a surface; the error, one sigma, over one label alone."""
    axes = axes_of(surface)
    if len(axes) == 2:
        known = np.isfinite(surface.energy) & (surface.energy < CEILING * thermal_energy(surface.temperature))
        _map(ax, axes, surface.edges, np.where(known, average, np.nan), name)
        return
    x = axes[0].shown(surface.centres[0])
    ax.plot(x, average, color=COLOURS[0])
    ax.fill_between(x, average - error, average + error, color=COLOURS[0], alpha=0.25, lw=0)
    ax.set_ylabel(name)
    _name(ax, axes, surface.edges)


def plot_rates(rates: Rates, surface: FreeEnergySurface, panels: Any) -> None:
    """Draw drift and diffusion over one label of a surface, or the diffusion of each of two, on two axes."""
    model, axes = rates.model, axes_of(surface)
    if len(axes) == 2:
        low = np.isfinite(model.energy) & (model.energy < CEILING)
        for i, (panel, axis) in enumerate(zip(panels, axes, strict=True)):
            field = np.where(low, model.diffusion[..., i, i] / axis.size**2, np.nan)
            _map(panel, axes, model.edges, field, f"diffusion of {axis.label} ({axis.unit or 'label'}²/ps)")
            panel.plot(*(axis.shown(part) for axis, part in zip(axes, rates.labels.T, strict=True)), "w.", ms=3)
        return
    (axis,), size = axes, axes[0].size
    unit = axis.unit or "label"
    _curve(panels[0], axis, rates, model.drift[:, 0], rates.drift[:, 0], rates.drift_error[:, 0], size)
    panels[0].set_ylabel(f"drift ({unit}/ps)")
    of_model, at, bars = model.diffusion[:, 0, 0], rates.diffusion[:, 0, 0], rates.diffusion_error[:, 0, 0]
    _curve(panels[1], axis, rates, of_model, at, bars, size**2)
    panels[1].set_ylabel(f"diffusion ({unit}²/ps)")
    for panel in panels:
        _name(panel, axes, model.edges)


def _curve(
    panel: Any,
    axis: SurfaceAxis,
    rates: Rates,
    of_model: FloatArray,
    points: FloatArray,
    errors: FloatArray,
    size: float,
) -> None:
    """A model's values and those of runs, in units of a size."""
    panel.plot(axis.shown(rates.model.centres[:, 0]), of_model / size, color=COLOURS[2], label="reduced model")
    at = axis.shown(rates.labels[:, 0])
    panel.errorbar(at, points / size, errors / size, fmt="o", ms=4, color=COLOURS[1], label="short runs")
    reach = np.concatenate([(points - errors) / size, (points + errors) / size])
    margin = 0.25 * np.ptp(reach) + 0.05 * np.abs(reach).max()
    panel.set_ylim(reach.min() - margin, reach.max() + margin)
    panel.legend(frameon=False)


@checked
def plot_closures(test: MeanForceTest, rates: Rates | None, energy: FloatArray, error: FloatArray) -> Any:
    """Free energies, potential energy, and where runs were made drift and diffusion, over one or two labels.

    Args:
        test: surfaces from mean forces and from weights.
        rates: of swarms; None where there are none.
        energy: shape=(n_0, ...), the average potential energy on the grid of the surfaces, kJ/mol.
        error: the same shape, one sigma.

    Returns:
        the figure.
    """
    surface = test.surface_of_weights
    figure = new_figure((11.0, 8.0) if rates is not None else (11.0, 4.2))
    panels = figure.subplots(2 if rates is not None else 1, 2).ravel()
    plot_mean_force(surface, test.surface, panels[0])
    plot_average(surface, energy, error, "mean potential energy given the label (kJ/mol)", panels[1])
    if rates is not None:
        plot_rates(rates, surface, panels[2:])
    return figure
