"""What relaxing is worth: effective samples a lift, and an evaluation, of each way and each generator.

    python -m tests.benchmarks.relaxations [--systems SYSTEM ...] [--seeds 1 2] [--table]

For each system a generator is learned once a seed; then each way lifts the same labels, below 6 kT of the learned
surface, several times each. It writes one file a way and seed under tests/benchmarks/results/relaxations/SYSTEM, and a
killed command goes on where it was.

``fraction``: effective samples a lift, ``(sum w)^2 / (n sum w^2)`` of the lifts of one label (restrained in a Context,
fixed otherwise), averaged over the labels. ``per_evaluation``: divided by what a lift cost. ``seconds``: CPU time a
lift, user and system, one process.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from openmm_gancl import Lifter, learn, load_model, load_system
from openmm_gancl.files import write_atomically
from openmm_gancl.free_energy.weight_statistics import effective_sample_size
from openmm_gancl.system.cards import load_card

RESULTS = Path(__file__).parent / "results" / "relaxations"
N_LABELS, N_EACH, CEILING = 12, 128, 6.0
WAYS = {
    "none": {"relax": "none"},
    "latent 4": {"relax": "latent", "relax_steps": 4},
    "latent 10": {"relax": "latent", "relax_steps": 10},
    "latent 25": {"relax": "latent", "relax_steps": 25},
    "context 10": {"relax": "context", "relax_steps": 10},
    "context 50": {"relax": "context", "relax_steps": 50},
    "context 200": {"relax": "context", "relax_steps": 200},
}
EVALUATIONS = {"alanine_dipeptide_vacuum": 35_000, "alanine_dipeptide_gbsa": 35_000, "ala_ala_vacuum": 60_000}
"""Of the learning."""
