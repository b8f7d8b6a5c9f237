"""Pictures of a report, as SVG that takes greys from the page around it: light, dark or on paper."""

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..free_energy.plots import COLOURS, new_figure
from ..units import FloatArray

SIZE = (5.2, 4.0)
"""Inches: text is readable on a phone, and two stand side by side on a desk."""

CLEAR: Any = {
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "image.composite_image": False,
}
"""Settings of matplotlib: no paper of its own, and text as text."""

LARGE = 2000
"""Polygons of a collection, from which on it is drawn as pixels."""

PIXELS_PER_INCH = 144


@dataclass(frozen=True)
class Figure:
    """A picture and what it shows.

    Attributes:
        image: HTML, with everything that it needs inside.
        caption: one sentence.
    """

    image: str
    caption: str


def _grey(found: re.Match[str]) -> str:
    """A grey as a mixture of the page's ink and paper."""
    ink = 100 - round(int(found[1], 16) / 2.55)
    return f"color-mix(in srgb, var(--ink) {ink}%, var(--paper))"


def inline_svg(figure: Any, name: str) -> str:
    """A figure as an element of a page: without addresses or names that another has, in greys of the page.

    Args:
        figure: of matplotlib.
        name: one word, of this figure alone.
    """
    stream = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(stream, format="svg", dpi=PIXELS_PER_INCH, metadata=nothing)
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'\sid="([^"]+)"', rf' id="{name}-\1"', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = re.sub(r"#([0-9a-f]{2})\1\1\b", _grey, svg)
    for colour, variable in zip(COLOURS, ("first", "second"), strict=False):
        svg = svg.replace(colour, f"var(--{variable})")
    # the page sets its width
    head, rest = svg.split(">", 1)
    return re.sub(r'\s(width|height)="[^"]*"', "", head) + ">" + rest


def drawn(name: str, caption: str, draw: Callable[..., Any], *arguments: Any, **how: Any) -> Figure:
    """A picture that a function draws, whose last argument is the axis, or the keyword ``ax``.

    Args:
        name: one word, of this figure alone.
        caption: one sentence.
        draw: takes the arguments and ``ax``.
        arguments: of it.
        how: of it.
    """
    from matplotlib import rc_context

    with rc_context(CLEAR):
        figure = new_figure(SIZE)
        draw(*arguments, ax=figure.add_subplot(), **how)
        for axis in figure.axes:
            for collection in axis.collections:
                collection.set_rasterized(sum(len(path.vertices) for path in collection.get_paths()) > LARGE)
        svg = inline_svg(figure, name)
    return Figure(svg.replace("<svg", f'<svg role="img" aria-label="{caption}"', 1), caption)


def stored(path: Path, caption: str) -> Figure:
    """A PNG file of the run."""
    data = base64.b64encode(path.read_bytes()).decode()
    return Figure(f'<img alt="{caption}" src="data:image/png;base64,{data}">', caption)


def plot_rounds(evaluations: FloatArray, error: FloatArray, effective: FloatArray, ax: Any) -> None:
    """Draw the error of the surface and effective samples a lift against force evaluations."""
    ax.plot(evaluations, error, "o-", color=COLOURS[0], label="median error below 10 kT (kT)")
    ax.plot(evaluations, effective, "s--", color=COLOURS[1], label="effective samples a lift")
    ax.set_ylim(bottom=0.0)
    ax.set_xlabel("force evaluations")
    ax.legend(frameon=False, fontsize=9)


def plot_history(history: Mapping[str, Sequence[float]], ax: Any) -> None:
    """Draw numbers that were recorded while a network was trained, against the part of its training."""
    for (name, values), colour in zip(history.items(), COLOURS, strict=False):
        ax.plot(np.linspace(0, 100, len(values)), values, color=colour, label=name.replace("_", " "))
    ax.set_xlabel("part of the training (%)")
    ax.legend(frameon=False, fontsize=9)


def plot_weights(shares: FloatArray, ax: Any) -> None:
    """Draw how much of the total weight the heaviest lifts have, against how many of all lifts they are."""
    part = 100 * np.arange(1, len(shares) + 1) / len(shares)
    held = 100 * np.cumsum(np.sort(shares)[::-1])
    # as many points as can be seen
    chosen = np.unique(np.geomspace(1, len(shares), 300).astype(int)) - 1
    part, held = part[chosen], held[chosen]
    ax.plot(part, held, color=COLOURS[0])
    ax.plot(part, part, ":", color="0.5", label="equal weights")
    ax.set_xscale("log")
    ax.set_xlim(part[0], 100)
    ax.set_ylim(0, 102)
    ax.set_xlabel("heaviest lifts (% of all)")
    ax.set_ylabel("their weight (% of all)")
    ax.legend(frameon=False, fontsize=9, loc="lower right")


def plot_check(differences: FloatArray, errors: FloatArray, ax: Any) -> None:
    """Draw the log mean weight of lifts less that of both directions, at each label that was checked."""
    at = np.arange(1, len(differences) + 1)
    ax.axhline(0.0, color="0.5", lw=0.8)
    ax.errorbar(at, differences, errors, fmt="o", ms=5, capsize=3, color=COLOURS[0])
    ax.set_xticks(at)
    ax.set_xlim(0.5, len(at) + 0.5)
    ax.set_xlabel("label, as in the table")
    ax.set_ylabel("lifts less frames (kT)")


def plot_lags(lags: FloatArray, diffusion: FloatArray, chosen: int, names: Sequence[str], ax: Any) -> None:
    """Draw slopes from each first lag on, over those from the one in use: the evidence of a plateau."""
    relative = np.einsum("mkii->mki", diffusion) / np.einsum("kii->ki", diffusion[chosen])
    for i, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
        low, middle, high = np.quantile(relative[:, :, i], (0.16, 0.5, 0.84), axis=1)
        ax.plot(lags, middle, "o-", color=colour, label=f"{name}, median and 68 % of labels")
        ax.fill_between(lags, low, high, color=colour, alpha=0.2, lw=0)
    ax.axvline(lags[chosen], color="0.5", ls=":")
    ax.set_ylim(bottom=0.0)
    ax.set_xlabel("first lag (ps)")
    ax.set_ylabel("slope of half the variance, relative")
    ax.legend(frameon=False, fontsize=9)


def plot_committor(edges: Sequence[FloatArray], field: FloatArray, names: Sequence[str], ax: Any) -> None:
    """Draw the committor of an overdamped model, over places and names of axes as they are shown."""
    title = "committor, limit of high friction"
    if len(names) == 1:
        ax.plot(0.5 * (edges[0][1:] + edges[0][:-1]), field, color=COLOURS[0])
        ax.set_ylabel(title)
    else:
        image = ax.pcolormesh(*edges, np.ma.masked_invalid(field.T), cmap="RdBu_r", vmin=0, vmax=1, rasterized=True)
        ax.figure.colorbar(image, ax=ax).set_label(title)
        ax.set_facecolor("0.92")
        ax.set_ylabel(names[1])
    ax.set_xlabel(names[0])
