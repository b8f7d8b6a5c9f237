"""Exactness of the weight: mean(w) of lifts against quadrature, each factor of the method varied alone.

The statistic is (mean(w) / Z - 1) over its bootstrapped error; the whole table of cases, at most once in 2,000 runs
of a right program with other seeds, holds one beyond its limit (the false-alarm rate of 3.5 sigma, Bonferroni). A case
counts only with a small error and a sufficient effective sample size.

``-m slow`` measures every case; with GANCL_EXACTNESS naming a folder its measurements are kept there and a second
run continues where the first one stopped, as long as package and tests are the same.
"""

import hashlib
import json
import os
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch

import openmm_gancl
from openmm_gancl import Lifter

from .exact import EXACT
from .statistics import as_record, score, z_limit


@dataclass(frozen=True)
class Setting:
    """One column of the table; lifts enough for the demanded error."""

    relax_steps: int = 500
    time_step: float = 1.0
    generator: str = "trained"
    latent_size: int = 4
    n_lifts: int = 400

    @property
    def demand(self):
        """Largest relative error of mean(w) and least effective sample size."""
        rough = self.relax_steps == 1 or self.generator == "untrained"
        return (0.15, 50) if rough else (0.05, 200)


DEFAULT = Setting()
SETTINGS = {
    "default": DEFAULT,
    "one step": replace(DEFAULT, relax_steps=1, n_lifts=12000),
    "20 steps": replace(DEFAULT, relax_steps=20, n_lifts=8000),
    "200 steps": replace(DEFAULT, relax_steps=200, n_lifts=2400),
    "half the time step": replace(DEFAULT, time_step=0.5, n_lifts=600),
    "twice the time step": replace(DEFAULT, time_step=2.0, n_lifts=600),
    "untrained": replace(DEFAULT, generator="untrained", n_lifts=2000),
    "shuffled labels": replace(DEFAULT, generator="shuffled", n_lifts=2000),
    "no latent": replace(DEFAULT, latent_size=0, n_lifts=600),
    "corner": Setting(1, 2.0, "untrained", 4, 5000),
}
EFFORT = {
    ("double_well_oscillators", 1.0, "untrained"): 2,
    ("double_well_oscillators", 1.0, "corner"): 12,
    ("bonded_chain", 0.5, "corner"): 2,
    ("bonded_chain", 2.0, "corner"): 16,
}
"""Where the demanded error takes that many times more lifts: narrow wells, far from a wide reference, or a window on
top of a barrier."""

NAMES = ("double_well_oscillators", "bonded_chain", "forked_oscillator")
CASES = [(name, label, setting) for name in NAMES for label in EXACT[name].labels for setting in SETTINGS]
SUBSET = [
    (name, label, setting)
    for name, label, setting in CASES
    if setting == "default" or (setting in {"no latent", "corner"} and label == EXACT[name].labels[0])
]


def case_name(case):
    return "{}[{:g}] {}".format(*case)


def measure(case, models):
    name, label, title = case
    setting, system = SETTINGS[title], models.system(name)
    model = models.model(name, setting.generator, setting.latent_size, setting.relax_steps)
    lifter = Lifter(
        system,
        model,
        relax_steps=setting.relax_steps,
        time_step=setting.time_step * system.time_step,
        platform="Reference",
    )
    seed = zlib.crc32(case_name(case).encode())
    n_lifts = setting.n_lifts * EFFORT.get(case, 1)
    lifts = lifter.lift(np.full((n_lifts, 1), label), seed=seed)
    return as_record(score(lifts.log_weights, EXACT[name].log_z(label, float(system.force_constants[0])), seed))


def fingerprint():
    """Of everything that a stored measurement depends on."""
    here = Path(__file__).parent
    sources = sorted(Path(openmm_gancl.__file__).parent.rglob("*.py")) + sorted(here.glob("[!t]*.py"))
    text = "".join(path.read_text() for path in [*sources, Path(__file__)])
    versions = f"{torch.__version__} {openmm.__version__} {np.__version__}"
    return hashlib.sha256((text + versions).encode()).hexdigest()[:16]


@pytest.fixture(scope="session")
def store(request):
    folder = os.environ.get("GANCL_EXACTNESS") or request.config.cache.mkdir("exactness")
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder) / f"{fingerprint()}.jsonl"


def stored(store):
    if not store.exists():
        return {}
    records = map(json.loads, store.read_text().splitlines())
    return {record.pop("case"): record for record in records}


def check(case, record):
    largest_error, least_size = SETTINGS[case[2]].demand
    assert record["relative_error"] <= largest_error, record
    assert record["effective_sample_size"] >= least_size, record
    assert abs(record["z"]) < z_limit(len(CASES)), record


@pytest.mark.parametrize("case", SUBSET, ids=case_name)
def test_mean_weight_is_the_partition_function(case, models):
    check(case, measure(case, models))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_every_factor_alone(case, models, store):
    key = case_name(case)
    record = stored(store).get(key)
    if record is None:
        record = measure(case, models)
        with store.open("a") as file:
            file.write(json.dumps({"case": key, **record}) + "\n")
    check(case, record)
