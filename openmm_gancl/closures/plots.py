"""Pictures of closures; each function takes results and returns a figure."""

from typing import Any

import numpy as np

from ..free_energy.axes import SurfaceAxis, axes_of
from ..free_energy.plots import COLOURS, new_figure
from ..free_energy.surface import FreeEnergySurface
from ..units import FloatArray, thermal_energy
from .drift_diffusion import EffectiveDynamics
from .mean_force import MeanForceTest


def plot_closures(
    test: MeanForceTest, dynamics: EffectiveDynamics | None, energy: FloatArray, error: FloatArray
) -> Any:
    """Free energies, potential energy, and where runs were made drift and diffusion, over one or two labels.

    Args:
        test: surfaces from mean forces and from weights.
        dynamics: of swarms; None where there is none.
        energy: shape=(n_0, ...), the average potential energy on the grid of the surfaces, kJ/mol.
        error: the same shape, one sigma.
    """
    surface = test.surface_of_weights
    figure = new_figure((11.0, 8.0) if dynamics is not None else (11.0, 4.2))
    panels = figure.subplots(2 if dynamics is not None else 1, 2).ravel()
    axes = axes_of(surface)
    draw = _draw_line if len(axes) == 1 else _draw_map
    draw(panels, axes, test, dynamics, energy, error)
    for panel in panels:
        _name(panel, axes, surface)
    return figure


def _name(panel: Any, axes: list[SurfaceAxis], surface: FreeEnergySurface) -> None:
    for axis, shown, edges in zip((panel.xaxis, panel.yaxis), axes, surface.edges, strict=False):
        axis.set_label_text(shown.title)
        if (ticks := shown.ticks(edges)) is not None:
            axis.set_ticks(ticks)
    panel.set_xlim(*axes[0].shown(surface.edges[0][[0, -1]]))


def _lowest(surface: FreeEnergySurface, other: FreeEnergySurface) -> FloatArray:
    """Of a surface on a grid, kJ/mol, with the mean of the other where both are low; NaN where unknown."""
    both = (surface.energy < 25.0) & (other.energy < 25.0)
    shift = other.energy[both].mean() - surface.energy[both].mean() if both.any() else 0.0
    return np.where(np.isfinite(surface.energy), surface.energy + shift, np.nan)


def _draw_line(
    panels: Any,
    axes: list[SurfaceAxis],
    test: MeanForceTest,
    dynamics: EffectiveDynamics | None,
    energy: FloatArray,
    error: FloatArray,
) -> None:
    shown, own = axes[0], test.surface_of_weights
    x = shown.shown(own.centres[0])
    for surface, colour, label in ((own, COLOURS[0], "weights"), (test.surface, COLOURS[1], "mean force")):
        low, bar = _lowest(surface, own), np.where(np.isfinite(surface.error), surface.error, np.nan)
        panels[0].plot(x, low, color=colour, label=f"from {label}")
        panels[0].fill_between(x, low - bar, low + bar, color=colour, alpha=0.25, lw=0)
    panels[0].set_ylabel("free energy (kJ/mol)")
    panels[0].legend(frameon=False)
    panels[1].plot(x, energy, color=COLOURS[0])
    panels[1].fill_between(x, energy - error, energy + error, color=COLOURS[0], alpha=0.25, lw=0)
    panels[1].set_ylabel("mean potential energy given the label (kJ/mol)")
    if dynamics is None:
        return
    unit, model = f"{shown.unit}" if shown.unit else "label", dynamics.model
    places, at = shown.shown(model.centres[:, 0]), shown.shown(dynamics.labels[:, 0])
    for panel, curve, points, errors, size, label in (
        (
            panels[2],
            model.drift[:, 0],
            dynamics.drift[:, 0],
            dynamics.drift_error[:, 0],
            shown.size,
            f"drift ({unit}/ps)",
        ),
        (
            panels[3],
            model.diffusion[:, 0, 0],
            dynamics.diffusion[:, 0, 0],
            dynamics.diffusion_error[:, 0, 0],
            shown.size**2,
            f"diffusion ({unit}²/ps)",
        ),
    ):
        panel.plot(places, curve / size, color=COLOURS[2], label="reduced model")
        panel.errorbar(at, points / size, errors / size, fmt="o", ms=4, color=COLOURS[1], label="short runs")
        reach = np.concatenate([(points - errors) / size, (points + errors) / size])
        margin = 0.25 * np.ptp(reach) + 0.05 * np.abs(reach).max()
        panel.set_ylim(reach.min() - margin, reach.max() + margin)
        panel.set_ylabel(label)
        panel.legend(frameon=False)


def _draw_map(
    panels: Any,
    axes: list[SurfaceAxis],
    test: MeanForceTest,
    dynamics: EffectiveDynamics | None,
    energy: FloatArray,
    error: FloatArray,
) -> None:
    own, kT = test.surface_of_weights, thermal_energy(test.surface.temperature)
    known = np.isfinite(own.energy) & (own.energy < 10 * kT)
    difference = np.where(known, _lowest(test.surface, own) - own.energy, np.nan)
    widest = float(np.nanmax(np.abs(difference), initial=1e-3))
    fields = [
        (difference, "free energy from mean force less that from weights (kJ/mol)", "RdBu_r", (-widest, widest)),
        (np.where(known, energy, np.nan), "mean potential energy given the label (kJ/mol)", "viridis", (None, None)),
    ]
    if dynamics is not None:
        tensors = dynamics.model.diffusion
        low = np.isfinite(dynamics.model.energy) & (dynamics.model.energy < 10)
        for i, axis in enumerate(axes):
            field = np.where(low, tensors[..., i, i] / axis.size**2, np.nan)
            fields.append((field, f"diffusion of {axis.label} ({axis.unit or 'label'}²/ps)", "viridis", (None, None)))
    grids = [own.edges] * 2 + ([] if dynamics is None else [dynamics.model.edges] * 2)
    for panel, grid, (field, title, colours, limits) in zip(panels, grids, fields, strict=True):
        edges = [axis.shown(part) for axis, part in zip(axes, grid, strict=True)]
        image = panel.pcolormesh(*edges, field.T, cmap=colours, vmin=limits[0], vmax=limits[1], rasterized=True)
        panel.figure.colorbar(image, ax=panel)
        panel.set_title(title, fontsize=9)
        panel.set_facecolor("0.92")
    if dynamics is not None:
        for panel in panels[2:]:
            panel.plot(*(axis.shown(part) for axis, part in zip(axes, dynamics.labels.T, strict=True)), "w.", ms=3)
