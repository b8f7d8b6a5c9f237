"""Lifts on a CUDA device compared with one CPU core: three tables, and no claim.

    python -m tests.benchmarks.gpu

needs no file. Of each system (alanine dipeptide in vacuum and with GBSA, ACE-ALA_5-NME) the first row says what a
structure of a batch costs, energy and forces, microseconds: in a Context of the device, in one of the Reference
platform, by workers on all cores, and of copies packed into one Context of the device, which tells their forces apart
but not their energies: the least that any packing could cost. The next rows are of an invertible generator, trained on
the spot (`gancl.learn` on all cores; of ACE-ALA_5-NME its first windows alone; its seconds are printed): lifts and
effective samples a second at the structure's own label, drawn, moved in base numbers or in a Context, on one core
(Reference platform) and on the device. The last table is of packed copies of the product generator, untrained: alanine
dipeptide in vacuum, 500 relax steps; for numbers of packed copies, lifts a second, how many times those of one core
that is, and the relaxation's steps a second as a share of `LangevinMiddleIntegrator` on the same packed System at two
force evaluations a step. ``seconds_of_one_step`` is of the same lifts with a single step: what the host does about
them. Medians of five, of the first table of three.

It runs from wheels in a bare environment, offline, with the torch that is there. Where there is a network (13: the
CUDA version of that torch; the plugin has OpenMM's version, for it does not ask for it; 3.12: that machine's Python):

    pip download --no-deps --python-version 3.12 -d wheels openmm==8.5.2 OpenMM-CUDA-13==8.5.2 mdtraj pyparsing \
        pydantic pydantic-core annotated-types typing-inspection typing-extensions pymbar networkx loky cloudpickle \
        threadpoolctl numexpr scipy

and on the machine with the device, in the checkout:

    pip install --no-deps --no-index --target site wheels/*.whl && PYTHONPATH=site:. python -m tests.benchmarks.gpu

The CUDA plugin may need torch's ``nvidia/cu13/lib`` on LD_LIBRARY_PATH. ``--platform CPU`` runs the same table without
a device, ``--precision double`` in double precision.
"""

import argparse
import json
import time

import numpy as np
import openmm

from openmm_gancl import Lifter, learn, load_system
from openmm_gancl.engine.packing import pack_system, why_not_packed
from openmm_gancl.engine.platforms import GPU_PLATFORMS, make_context
from openmm_gancl.engine.tasks import available_workers, run_tasks
from openmm_gancl.free_energy.weight_statistics import effective_sample_size
from openmm_gancl.generator import untrained_model
from openmm_gancl.lifting.evaluation import EvaluationTask, evaluate_task
from openmm_gancl.lifting.loop import Loop

from .sizes import system_of

RELAX_STEPS, ONE_CORE, N_STRUCTURES = 500, 32, 640

LEARNED = {"alanine_dipeptide_vacuum": 13_000, "alanine_dipeptide_gbsa": 13_000}
"""Evaluations that a generator is trained with."""

SYSTEMS = (*LEARNED, "ala_5")
ONE_ROUND = 65_000
"""Evaluations that a loop of the last one, with ten labels, asks for; its windows alone serve here."""

WAYS = {
    "none": ({"relax": "none"}, 512),
    "latent, 10 moves": ({"relax": "latent", "relax_steps": 10}, 128),
    "context, 50 steps": ({"relax": "context", "relax_steps": 50}, 32),
}
"""Of relaxing, and lifts that each is measured with."""


def median_seconds(action, repeats=5):
    """Of one call, after a first that is not counted."""
    action()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        action()
        times.append(time.perf_counter() - begun)
    return float(np.median(times))


def seconds_of_lifts(system, model, platform, copies, n, relax_steps=RELAX_STEPS):
    """Of n lifts at one label, so many copies side by side."""
    lifter = Lifter(system, model, relax_steps=relax_steps, platform=platform, packed=copies)
    labels = np.tile([-1.4, 1.2], (n, 1))
    return median_seconds(lambda: lifter.lift(labels, seed=1))


def energies(system, platform):
    """What a structure of a batch costs in each place, microseconds."""
    xml, rng = openmm.XmlSerializer.serialize(system.system), np.random.default_rng(1)
    structures = system.positions + 1e-3 * rng.standard_normal((N_STRUCTURES, system.n_atoms, 3))
    places = {"device": (platform, 1), "Reference": ("Reference", 1), "workers": ("Reference", available_workers())}
    row = {"system": system.name}
    for name, (place, workers) in places.items():
        tasks = [EvaluationTask(xml, place, part, True) for part in np.array_split(structures, workers)]
        seconds = median_seconds(lambda t=tasks, w=workers: run_tasks(evaluate_task, t, workers=w))
        row[name] = round(1e6 * seconds / N_STRUCTURES, 1)
    for copies in (64, 512) if not why_not_packed(system.system) else ():
        integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.001)
        context = make_context(pack_system(system.system, copies), integrator, platform, 1)

        def together(context=context, copies=copies):
            context.setPositions(structures[:copies].reshape(-1, 3))
            context.getState(energy=True, forces=True)

        row[f"{copies} packed"] = round(1e6 * median_seconds(together) / copies, 1)
    return row


def trained(system, evaluations):
    """A generator of the loop, or where that would take minutes, of its first windows alone."""
    if evaluations is not None:
        return learn(system, seed=1, max_evaluations=evaluations, workers=available_workers()).model
    loop = Loop(system, seed=1, max_evaluations=ONE_ROUND)
    steps = loop.steps()
    while not loop.generators:
        step = next(steps)
        step.accept(step.compute())
    return loop.generators[0]


def by_relaxation(name, platform):
    """Lifts and effective samples a second, of one core and of the device: a row a way of relaxing."""
    system = system_of(5) if name == "ala_5" else load_system(name)
    print(json.dumps(energies(system, platform)), flush=True)
    begun, best = time.perf_counter(), system.slow.transform(np.asarray(system.positions)[None])[0]
    model = trained(system, LEARNED.get(name))
    print(json.dumps({"system": name, "seconds_of_training": round(time.perf_counter() - begun, 1)}), flush=True)
    for way, (options, n) in WAYS.items():
        row = {"system": name, "relax": way}
        for place in dict.fromkeys(["Reference", platform]):
            lifter, labels = Lifter(system, model, platform=place, **options), np.tile(best, (n, 1))
            seconds = median_seconds(lambda lifter=lifter, labels=labels: lifter.lift(labels, seed=1), repeats=3)
            share = effective_sample_size(lifter.lift(labels, seed=1).log_weights) / n
            row[f"lifts_a_second, {place}"] = round(n / seconds, 1)
            row[f"effective_a_second, {place}"] = round(share * n / seconds, 1)
        print(json.dumps(row), flush=True)


def langevin_steps_a_second(system, platform, copies):
    """Of the packed System under OpenMM's own integrator."""
    integrator = openmm.LangevinMiddleIntegrator(system.temperature, system.friction, 0.001)
    context = make_context(pack_system(system.system, copies), integrator, platform, 1)
    context.setPositions(np.tile(system.positions, (copies, 1)))

    def steps():
        integrator.step(RELAX_STEPS)
        context.getState(energy=True)

    return RELAX_STEPS / median_seconds(steps)


def main():
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--platform", default="CUDA")
    parser.add_argument("--precision", default="mixed")
    parser.add_argument("--systems", nargs="*", default=list(SYSTEMS))
    parser.add_argument("--copies", type=int, nargs="*", default=[64, 512, 4096])
    arguments = parser.parse_args()
    platform = arguments.platform
    if platform in GPU_PLATFORMS:
        platform = f"{platform}::{arguments.precision}"
    for name in arguments.systems:
        by_relaxation(name, platform)
    if not arguments.copies:
        return
    system = load_system("alanine_dipeptide_vacuum")
    model = untrained_model(system, seed=1)
    core = ONE_CORE / seconds_of_lifts(system, model, "Reference", 1, ONE_CORE)
    print(json.dumps({"platform": platform, "lifts_a_second_of_one_core": round(core, 1)}), flush=True)
    for copies in arguments.copies:
        lifts = copies / seconds_of_lifts(system, model, platform, copies, copies)
        langevin = langevin_steps_a_second(system, platform, copies)
        row = {
            "copies": copies,
            "lifts_a_second": round(lifts, 1),
            "times_one_core": round(lifts / core, 2),
            "seconds_of_one_step": round(seconds_of_lifts(system, model, platform, copies, copies, 1), 3),
            # a relaxation step evaluates two sets of forces
            "share_of_langevin": round(lifts / copies * RELAX_STEPS / (langevin / 2), 3),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
