"""Umbrella windows of alanine dipeptide in water, seeded by lifts and by pulling, and from an independent structure.

    python -m tests.benchmarks.water MODEL FOLDER

takes a lifting model of the solute (model.safetensors of ``gancl run alanine_dipeptide_gbsa -o RUN``), brings the same
structure to 36 windows by either way with the same number of MD steps, samples each for the same number, and prints
one line a seeding: label error at the start, steps to equilibrate (automatic, mean over windows), the surface's median
error below 6 kT, and how far the surfaces lie apart in combined errors. Each finished seeding is kept in FOLDER.

With ``--until 0.15`` (kT) windows are continued from their last walkers, ``--steps`` at a time, the seeding that has
least first, until the median error of each is so low; every round is kept, and the command goes on where it was
stopped. A table says how many frames each window still needs. MODEL may be an invertible generator, which seeds the
windows called lifts by its draws. ``--system tests/data/alanine_dipeptide_small_box`` is the same molecule in a third
of the water; ``--seedings`` takes some of the three.
"""

import argparse
import json
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np

from openmm_gancl import analyse_windows, load_model, load_system, sample_windows, structures_at
from openmm_gancl.coordinates.geometry import wrap
from openmm_gancl.engine.tasks import available_workers, run_tasks
from openmm_gancl.free_energy import median_error, window_table
from openmm_gancl.sampling import sample_langevin
from openmm_gancl.sampling.frames import Walkers, join_frames, load_frames, save_frames
from openmm_gancl.sampling.langevin import RestrainedDynamics
from openmm_gancl.sampling.steering import pulled_starts

RESTRAINT = np.array([25.0, 25.0])
"""kJ/mol, of windows 60 degrees apart: they overlap; those next to phi = 0 hold two wells, and come across seldom."""

SEEDING_RESTRAINT = np.array([200.0, 200.0])
"""kJ/mol: what brings a molecule over a barrier in a picosecond; with the windows' own it stays behind."""

STRIDE, EXCHANGE, CEILING, BINS = 50, 500, 6.0, 24

NAMES = ("lifts", "pulling", "independent")


def seeded(name, system, model, labels, arguments, platform):
    """Walkers at every window, and what they cost."""
    options = {"force_constants": SEEDING_RESTRAINT, "platform": platform}
    if name == "lifts":
        # half of the steps to get there, half to settle
        half = arguments.seed_steps // 2
        found = structures_at(
            system,
            model,
            labels,
            steer_steps=half,
            equilibration_steps=half,
            seed=arguments.seed,
            workers=arguments.workers,
            **options,
        )
        return found.walkers, found.force_evaluations
    run, dynamics = partial(run_tasks, workers=arguments.workers), RestrainedDynamics.of(system, **options)
    return pulled_starts(system, dynamics, labels, arguments.seed_steps, seed=arguments.seed, run=run)


def independent(system, arguments, platform):
    """The same molecule elsewhere, after dynamics of its own."""
    away = system.slow.transform(system.positions[None]) + np.array([[-0.9, 2.6]])
    dynamics = RestrainedDynamics.of(system, force_constants=SEEDING_RESTRAINT, platform=platform)
    walkers, _ = pulled_starts(system, dynamics, wrap(away), 4000, seed=arguments.seed + 77)
    start = replace(system, positions=walkers.positions[0])
    frames = sample_langevin(start, 8000, n_frames=1, seed=arguments.seed + 78, platform=platform)
    return replace(system, positions=frames.positions[-1])


def frames_of(arguments, name):
    """The file of a seeding."""
    return arguments.folder / f"{name}.npz"


def sampled(arguments, platform):
    """Options of each round."""
    return {
        "steps_per_window": arguments.steps,
        "frames_per_window": arguments.steps // STRIDE,
        "equilibration_steps": 0,
        "exchange_steps": EXCHANGE,
        "seed": arguments.seed + 1,
        "platform": platform,
        "workers": arguments.workers,
    }


def of_solute(frames):
    """The water's positions are 97 % of the file and not needed again; the last walkers have all of it."""
    return replace(frames, positions=frames.positions[:, :22].astype(np.float32))


def more(name, system, arguments, platform):
    """One round more of a seeding, kept when it is done."""
    stored = load_frames(frames_of(arguments, name))
    options = sampled(arguments, platform)
    options["seed"] += stored.n_stretches
    options |= {"starts": stored.walkers, "force_constants": stored.force_constants}
    new = sample_windows(system, stored.window_labels(), **options)
    save_frames(join_frames(stored, of_solute(new)), frames_of(arguments, name))


def until(system, arguments, platform):
    """Rounds until all seedings have the error asked for."""
    while True:
        surfaces, errors, lengths = {}, {}, {}
        for name in arguments.seedings:
            frames = load_frames(frames_of(arguments, name))
            analysis = analyse_windows(system, frames, bins=BINS)
            surfaces[name] = analysis.surface
            errors[name], lengths[name] = median_error(analysis), len(frames) // frames.n_windows
            row = {"seeding": name, "frames_a_window": lengths[name], "median_error_kT": round(errors[name], 3)}
            print(json.dumps(row), flush=True)
            print(window_table(analysis, arguments.until), flush=True)
        missing = [name for name in errors if not errors[name] <= arguments.until]
        if not missing:
            return surfaces
        more(min(missing, key=lambda name: lengths[name]), system, arguments, platform)


def measured(name, system, model, labels, arguments, platform):
    """Frames of the windows and the label errors they started from; from the file if there is one."""
    path, starts = frames_of(arguments, name), arguments.folder / f"{name}_starts.npz"
    if not starts.is_file():
        system = independent(system, arguments, platform) if name == "independent" else system
        walkers, cost = seeded(name, system, model, labels, arguments, platform)
        arrays = {"positions": walkers.positions, "velocities": walkers.velocities, "boxes": walkers.boxes}
        np.savez(starts, **{key: array for key, array in arrays.items() if array is not None}, cost=cost)
    with np.load(starts) as stored:
        walkers = Walkers(*(stored.get(key) for key in ("positions", "velocities", "boxes")))
        cost = int(stored["cost"])
    if not path.is_file():
        options = {"starts": walkers, "force_constants": RESTRAINT, **sampled(arguments, platform)}
        save_frames(of_solute(sample_windows(system, labels, **options)), path)
    errors = wrap(system.slow.transform(walkers.positions) - labels)
    return load_frames(path), errors, cost


def main():
    """Parse the arguments, sample what is missing, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--system", default="alanine_dipeptide_water")
    parser.add_argument("--seedings", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--windows", type=int, default=6, help="along each label")
    parser.add_argument("--seed-steps", type=int, default=600, help="of each window to get there")
    parser.add_argument("--steps", type=int, default=5000, help="sampled in each window")
    parser.add_argument("--workers", type=int, default=available_workers())
    parser.add_argument("--platform", default="CPU")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--until", type=float, help="kT, median error")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    system, model = load_system(arguments.system), load_model(arguments.model)
    axis = -np.pi + 2 * np.pi / arguments.windows * (np.arange(arguments.windows) + 0.5)
    labels = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    surfaces = {}
    for name in arguments.seedings:
        frames, errors, cost = measured(name, system, model, labels, arguments, arguments.platform)
        analysis = analyse_windows(system, frames, bins=BINS)
        surface, kT = analysis.surface, system.kT
        surfaces[name] = surface
        low = surface.energy < CEILING * kT
        row = {
            "seeding": name,
            "windows": len(labels),
            "md_steps_to_seed": cost,
            "label_error_at_start_rad": round(float(np.sqrt((errors**2).mean())), 3),
            "steps_to_equilibrate": round(STRIDE * float(np.mean(analysis.blocks.discarded)), 0),
            "md_steps": frames.force_evaluations + cost,
            "median_error_kT": round(float(np.median(surface.error[low])) / kT, 3),
            "weakest_overlap": round(analysis.windows.mbar.weakest_link()[2], 4),
            "doubts": analysis.doubts,
        }
        print(json.dumps(row), flush=True)
    if arguments.until:
        surfaces = until(system, arguments, arguments.platform)
    for one, other in combinations(surfaces, 2):
        a, b = surfaces[one], surfaces[other]
        low = (a.energy < CEILING * kT) & (b.energy < CEILING * kT)
        difference = a.energy[low] - b.energy[low]
        z = (difference - difference.mean()) / np.hypot(a.error, b.error)[low]
        results = {"surfaces": [one, other], "rms_kT": round(float(difference.std() / kT), 3)}
        print(
            json.dumps({**results, "rms_z": round(float(np.sqrt((z**2).mean())), 2), "bins": int(low.sum())}),
            flush=True,
        )


if __name__ == "__main__":
    main()
