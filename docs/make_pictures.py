"""The pictures of the site: ``python docs/make_pictures.py``, from the repository's top, some minutes on one core.

Those of the tutorials are what the tutorials' own code draws.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import openmm_gancl as gancl

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
TUTORIALS = ("script", "alanine", "trajectories")
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def small(source, name):
    """A PNG of 256 colours."""
    Image.open(source).convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT).save(
        IMAGES / f"{name}.png", optimize=True
    )


def save(figure, name):
    """The same of a figure."""
    figure.savefig(IMAGES / f"{name}.png", dpi=120)
    plt.close(figure)
    small(IMAGES / f"{name}.png", name)


def script_of(page):
    """A page's code, its commands as subprocesses."""
    parts = []
    for language, text in BLOCK.findall((ROOT / "docs" / "tutorials" / f"{page}.md").read_text()):
        if language == "python":
            parts.append(text)
            continue
        for line in text.splitlines():
            command = line.removeprefix("$ gancl ").split()
            if "closures" not in command:
                parts.append(
                    f"import subprocess, sys; subprocess.run([sys.executable, '-m', 'openmm_gancl.cli', *{command}])"
                )
    return "\n".join(parts)


def tutorial(page):
    """What the page draws."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "examples").symlink_to(ROOT / "examples")
        (Path(folder) / "page.py").write_text(script_of(page))
        environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "page.py"], cwd=folder, check=True, env=environment)
        small(Path(folder) / f"{page}.png", page)


def weights_and_surface():
    """Each lift's -kT log w over its label, their mean, and the exact surface."""
    system = gancl.load_system("double_well_oscillators")
    learned = gancl.learn(system, seed=1, max_evaluations=9000)
    labels = np.repeat(np.linspace(-1.4, 1.4, 29), 40)[:, None]
    log_weights = gancl.Lifter(system, learned.model).lift(labels, seed=2).log_weights
    x, grouped = labels[::40, 0], log_weights.reshape(-1, 40)
    means = -np.log(np.exp(grouped - grouped.max()).mean(axis=1))
    lowest = means.min()
    figure, ax = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    ax.plot(labels[:, 0], grouped.max() - log_weights - lowest, ".", color="0.7", markersize=3)
    ax.plot(x, means - lowest, "o", color="tab:blue", markersize=4, label="-log of the mean weight of 40 lifts")
    stiffness = 0.5 * np.log(np.exp(0.8 * np.tanh(2 * x)) * np.exp(0.3 * np.tanh(2 * x)))
    exact = 10.0 / system.kT * (x**2 - 1) ** 2 + stiffness
    ax.plot(x, exact - exact.min(), color="tab:red", label="exact free energy")
    ax.plot([], [], ".", color="0.7", label="-log w of single lifts")
    ax.set(xlabel="label x (nm)", ylabel="kT", ylim=(-1.5, 10))
    ax.legend(frameon=False, loc="upper center")
    save(figure, "weights")


def loop():
    """Error and effective samples of each round."""
    history = gancl.learn(gancl.load_system("alanine_dipeptide_vacuum"), seed=1, max_evaluations=30_000).history
    evaluations = [one.force_evaluations for one in history]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3), layout="constrained")
    left.plot(evaluations, [one.median_error / 2.494 for one in history], "o-")
    left.set(ylabel="median error bar (kT)", ylim=(0, None))
    right.plot(evaluations, [one.effective_fraction for one in history], "o-", color="tab:orange")
    right.set(ylabel="effective samples a lift", ylim=(0, 1))
    for ax in (left, right):
        ax.set(xlabel="force evaluations, windows included")
    save(figure, "loop")


def modes():
    """A fast coordinate with two wells: what single windows show, and what is drawn and weighed."""
    system = gancl.load_system("forked_oscillator")
    windows = gancl.sample_windows(system, n_windows=24, steps_per_window=400, seed=1, platform="Reference")
    learned = gancl.learn(system, seed=1, max_evaluations=12_000)
    labels = np.random.default_rng(1).uniform(-0.2, 0.2, (4000, 1))
    lifts = gancl.Lifter(system, learned.model).lift(labels, seed=2)
    y, weights = lifts.positions[:, 0, 1], np.exp(lifts.log_weights - lifts.log_weights.max())
    bins = np.linspace(-0.5, 0.5, 81)
    figure, axes = plt.subplots(1, 3, figsize=(8.4, 2.8), sharex=True, layout="constrained")
    axes[0].hist(windows.positions[:, 0, 1], bins, density=True, color="0.6")
    axes[1].hist(y, bins, density=True, color="tab:orange")
    axes[2].hist(y, bins, weights=weights, density=True, color="tab:blue")
    centres = 0.5 * (bins[1:] + bins[:-1])
    x = np.linspace(-0.2, 0.2, 201)  # the card's energy: RT = kT, kx = 10
    share = np.average(1 / (1 + np.exp(-0.7 - 0.6 * np.tanh(2 * x))), weights=np.exp(-5.0 * x**2 / system.kT))
    normal = [np.exp(-0.5 * ((centres - at) / 0.04) ** 2) / (0.04 * np.sqrt(2 * np.pi)) for at in (0.3, -0.3)]
    axes[2].plot(centres, share * normal[0] + (1 - share) * normal[1], "k", linewidth=1, label="exact")
    axes[2].legend(frameon=False)
    for ax, title in zip(axes, ("windows from one structure", "lifts as drawn", "lifts by their weights"), strict=True):
        ax.set(xlabel="fast coordinate y (nm)", yticks=[], title=title)
    save(figure, "modes")


def of_closures():
    """What `examples/closures.py` draws."""
    with tempfile.TemporaryDirectory() as folder:
        script = ROOT / "examples" / "closures.py"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
        subprocess.run([sys.executable, script], cwd=folder, check=True, env=environment)
        small(Path(folder) / "closures.png", "closures")


def main():
    """All of them, or those that are named."""
    makers = {"weights": weights_and_surface, "loop": loop, "modes": modes, "closures": of_closures}
    makers["surface"] = lambda: small(ROOT / "examples" / "alanine_dipeptide_fes.png", "surface")
    makers |= {page: lambda page=page: tutorial(page) for page in TUTORIALS}
    for name in sys.argv[1:] or makers:
        makers[name]()


if __name__ == "__main__":
    main()
