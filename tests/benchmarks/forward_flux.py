"""The rate of leaving C7ax of alanine dipeptide by forward flux sampling, of the full model.

    python tests/benchmarks/forward_flux.py [--trials 600] [--seed 1]

prints a line of JSON: the mean time from C7ax to the other side, with its error from the counts of every stage
(Allen, Valeriani, ten Wolde 2009, doi 10.1088/0953-8984/21/46/463102). The order parameter is the distance of phi from
the minimum of C7ax, which leaves in both directions.
"""

import argparse
import json

import numpy as np
import openmm

import openmm_gancl as gancl
from openmm_gancl.coordinates.geometry import dihedral_angles, wrap

CENTRE = np.radians(63.0)
BASIN = np.radians(12.0)
INTERFACES = np.radians([24.0, 31.0, 38.0, 45.0, 51.0, 57.0, 63.0, 69.0, 76.0, 84.0, 95.0])
EVERY = 5
"""Steps between looks."""


class Walker:
    """One Context and its distance."""

    def __init__(self, system, seed):
        self.system, self.random = system, seed
        step = openmm.LangevinMiddleIntegrator(system.temperature, system.friction, system.time_step)
        step.setRandomNumberSeed(seed)
        self.context = openmm.Context(system.system, step, openmm.Platform.getPlatformByName("Reference"))
        self.steps = 0

    def set(self, state):
        self.context.setPositions(state[0])
        self.context.setVelocities(state[1])

    def state(self):
        found = self.context.getState(positions=True, velocities=True)
        return [found.getPositions(asNumpy=True)._value.copy(), found.getVelocities(asNumpy=True)._value.copy()]

    def look(self):
        """The distance after some steps."""
        self.context.getIntegrator().step(EVERY)
        self.steps += EVERY
        positions = self.context.getState(positions=True).getPositions(asNumpy=True)._value
        phi = dihedral_angles(positions[None], self.system.slow.atoms[:1])[0, 0]
        return abs(float(wrap(np.array([phi - CENTRE]), np.array([2 * np.pi]))[0]))


def flux(walker, start, n):
    """Crossings of the first interface out of the basin, a time, and the states there."""
    walker.set([start, np.zeros_like(start)])
    walker.context.setVelocitiesToTemperature(walker.system.temperature, walker.random)
    for _ in range(2000):
        walker.look()
    states, inside, begin, back = [], False, walker.steps, walker.state()
    while len(states) < n:
        distance = walker.look()
        if distance < BASIN:
            inside, back = True, walker.state()
        elif inside and distance >= INTERFACES[0]:
            inside = False
            states.append(walker.state())
        if distance > np.radians(60):  # on its way out: it begins again
            walker.set(back)
    return states, (walker.steps - begin) * walker.system.time_step


def stage(walker, states, goal, n, rng):
    """The share of n runs that reach the next interface before the basin, and their states."""
    reached = []
    for _ in range(n):
        walker.set(states[rng.integers(len(states))])
        while True:
            distance = walker.look()
            if distance >= goal:
                reached.append(walker.state())
                break
            if distance < BASIN:
                break
    return reached


def main():
    """All stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    system = gancl.load_system("alanine_dipeptide_vacuum")
    windows = gancl.sample_windows(
        system, np.array([[CENTRE, -0.7]]), steps_per_window=100, frames_per_window=1, seed=1, platform="Reference"
    )
    walker, rng = Walker(system, options.seed), np.random.default_rng(options.seed)
    states, time = flux(walker, windows.positions[-1], options.trials)
    rate, variance, shares = len(states) / time, 1 / len(states), []
    for goal in INTERFACES[1:]:
        states = stage(walker, states, goal, options.trials, rng)
        if not states:
            break
        shares.append(len(states) / options.trials)
        variance += (1 - shares[-1]) / len(states)
    found = rate * float(np.prod(shares)) if states else 0.0
    print(
        json.dumps(
            {
                "flux": rate,
                "shares": shares,
                "mean_time_ps": 1 / found if found else None,
                "relative_error": variance**0.5,
                "force_evaluations": walker.steps,
            }
        )
    )


if __name__ == "__main__":
    main()
