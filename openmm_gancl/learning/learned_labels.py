"""From frames to learned slow coordinates: features, diffusion map, selection, and one torch module as the label."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from scipy.spatial import cKDTree

from ..coordinates.features import Features, SineCosine, heavy_atom_distances
from ..coordinates.geometry import embedded, wrap
from ..coordinates.label_modules import WithTorsions
from ..coordinates.module_tensors import part_of
from ..coordinates.residues import from_openmm
from ..coordinates.slow_coordinates import ModuleCoordinates, SlowCoordinates, Torsions, slow_from_description
from ..coordinates.torch_modules import features_module
from ..errors import InputError, checked, first_line
from ..system.bonds import check_in_one_piece, check_lengths
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray, IntArray, numbers, whole_number
from .diffusion_map import MAX_DENSE_POINTS, DiffusionMap, distinct
from .spectrum import MIN_FRAME_FRACTION, Selection, select_coordinates, spectral_gap
from .torch_map import coordinates_module

KERNEL_RANK = 8
"""The labels' kernels reach as far as the neighbour of this rank."""

OUTLIER_FRACTION, DOMAIN_MARGIN = 0.005, 3.0
"""Fraction of the training labels beyond the domain at either end before it is widened by so many kernel widths."""

FEWEST_FRAMES = 100
"""That differ, of which labels are learned: of 30 of a dipeptide, each coordinate but the first two is noise."""

TENSOR = "tensor."
"""Prefix of the names of the module's tensors in a file."""

N_NEIGHBOURS = 8
"""Training frames whose labels predict those of another frame."""


@dataclass(frozen=True, eq=False)
class LearnedLabels:
    """Learned slow coordinates and where they lie: all that lifting needs of what was learned.

    Attributes:
        slow: torsions that were kept, then the map's chosen coordinates.
        centres: shape=(n, d), labels of the frames that they were learned on.
        widths: shape=(d,), of the kernels around those.
    """

    slow: ModuleCoordinates
    centres: FloatArray
    widths: FloatArray

    def save(self, path: Path) -> None:
        """Write one npz file: arrays and JSON, no code."""
        tensors = {f"{TENSOR}{name}": tensor.numpy() for name, tensor in self.slow.tensors().items()}
        slow = json.dumps(self.slow.describe(), sort_keys=True)
        np.savez(path, centres=self.centres, widths=self.widths, slow=slow, **tensors)


def load_labels(path: Path) -> LearnedLabels:
    """Read what `LearnedLabels.save` wrote; the file can run nothing.

    Raises:
        InputError: it was not, or it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            tensors = {name: torch.as_tensor(stored[name]) for name in stored.files if name.startswith(TENSOR)}
            slow = slow_from_description(json.loads(str(stored["slow"])), part_of(tensors, TENSOR))
            labels = LearnedLabels(slow, stored["centres"], stored["widths"])  # type: ignore[arg-type]
    except (OSError, KeyError, TypeError, ValueError, AttributeError, BadZipFile) as error:
        raise InputError(
            f"{path} holds no learned labels ({first_line(error)}): learn them again with `gancl slow`"
        ) from None
    return labels


@dataclass(frozen=True, eq=False)
class LearnedSlow:
    """What was learned, and how.

    Attributes:
        labels: the labels.
        features: that the map was made of.
        fitted: the diffusion map.
        selection: its coordinates' scores.
        chosen: shape=(m,), those that are labels.
    """

    labels: LearnedLabels
    features: Features
    fitted: DiffusionMap
    selection: Selection
    chosen: IntArray

    def doubts(self) -> list[str]:
        """Sentences, why the labels are not to be trusted."""
        doubts, n = [], len(distinct(self.labels.centres)[0])
        if n < FEWEST_FRAMES:
            doubts.append(
                f"{n} frames that differ are too few to learn labels from, and others would give other labels: give at "
                f"least {FEWEST_FRAMES}"
            )
        for i in (i for i in spectral_gap(self.fitted, self.selection).localised if i in self.chosen):
            doubts.append(
                f"label dm{i + 1} tells some frames, fewer than {MIN_FRAME_FRACTION:.0%}, from all others: remove them "
                "if they are broken, or sample more like them"
            )
        return doubts


@checked
def learn_slow_coordinates(
    system: MolecularSystem,
    positions: FloatArray,
    *,
    features: Features | None = None,
    weights: FloatArray | None = None,
    keep: Sequence[str] = (),
    most: int | None = None,
    n_coordinates: int = 10,
    n_landmarks: int = MAX_DENSE_POINTS,
    alpha: float = 1.0,
    seed: int = 0,
) -> LearnedSlow:
    """Learn labels from frames by a diffusion map, harmonics left out.

    Args:
        system: its topology, and its torsions that may be kept.
        positions: shape=(n, n_atoms, 3), nm, of frames that cover what matters.
        features: that the map is made of; all distances between heavy atoms by default.
        weights: shape=(n,), of the frames.
        keep: names of the system's torsions that are labels too; learned ones add what they do not predict.
        most: learned labels at most.
        n_coordinates: of the map, among which labels are chosen.
        n_landmarks: of the map, at most; with few of them its coordinates depend on the draw.
        alpha: of the map; 1 leaves the density of the frames out.
        seed: of the landmarks.

    Raises:
        InputError: positions of other atoms, cut by a periodic box, or not in nm; a torsion to keep that is not one of
            the system's; or what `DiffusionMap.fit` says.
    """
    import mdtraj

    n_coordinates, n_landmarks = whole_number("n_coordinates", n_coordinates), whole_number("n_landmarks", n_landmarks)
    most = most if most is None else whole_number("most", most)
    topology, positions = from_openmm(system.topology), numbers(positions)
    if positions.ndim != 3 or positions.shape[1:] != (system.n_atoms, 3):
        raise InputError(f"positions have shape {positions.shape}: give (n, {system.n_atoms}, 3)")
    check_lengths(system.topology, system.system, positions)
    check_in_one_piece(system.topology, positions, system.positions)
    features = features or Features((heavy_atom_distances(topology),))
    frames = mdtraj.Trajectory(positions.astype(np.float32), topology)
    kept = kept_torsions(system.slow, keep)
    fitted = DiffusionMap(n_coordinates, alpha=alpha, n_landmarks=min(n_landmarks, len(positions) - 1), seed=seed)
    fitted.fit(features.compute(frames), weights=weights)
    known = None if kept is None else SineCosine(kept.atoms).compute(frames)
    selection = select_coordinates(fitted.coordinates_, known=known)
    chosen = selection.chosen[:most]
    module: torch.nn.Module = coordinates_module(features, fitted, chosen.tolist())
    names = tuple(f"dm{i + 1}" for i in chosen)
    if kept is not None:
        module = WithTorsions(features_module(Features((SineCosine(kept.atoms),))), module)
        names = (*kept.names, *names)
    if not len(chosen):
        raise InputError("the torsions that are kept predict all coordinates of the map: keep fewer, or learn none")
    labels = _labels_of_module(system.slow, module, names, len(keep), positions)
    return LearnedSlow(labels, features, fitted, selection, chosen)


def _labels_of_module(
    known: SlowCoordinates, module: torch.nn.Module, names: tuple[str, ...], n_torsions: int, positions: FloatArray
) -> LearnedLabels:
    """Labels by a module, the first few of them torsions, with domain and kernels as frames have them."""
    periodic = np.arange(len(names)) < n_torsions
    periods, circle = np.where(periodic, 2 * np.pi, np.inf), np.array([-np.pi, np.pi])
    slow = ModuleCoordinates.from_module(module, names=names, periods=periods, domain=np.tile(circle, (len(names), 1)))
    centres = slow.transform(positions)
    widths = np.full(len(names), _kernel_width(centres, periods))
    ends = np.quantile(centres, [OUTLIER_FRACTION, 1.0 - OUTLIER_FRACTION], axis=0)
    ends += DOMAIN_MARGIN * np.outer([-1.0, 1.0], widths)
    domain = np.where(periodic[:, None], circle, ends.T)
    torsions = known.atoms if isinstance(known, Torsions) else np.empty((0, 4), dtype=np.int64)
    return LearnedLabels(replace(slow, domain=domain, chart_torsions=torsions), centres, widths)


def kept_torsions(slow: SlowCoordinates, keep: Sequence[str]) -> Torsions | None:
    """Those of the torsions that are named, or None for no name.

    Raises:
        InputError: one of them is not there.
    """
    if not keep:
        return None
    names = slow.names if isinstance(slow, Torsions) else ()
    if len(set(keep)) < len(keep):
        raise InputError(f"`keep` names a torsion twice: {', '.join(keep)}: give each once")
    for name in keep:
        if name not in names:
            raise InputError(f"there is no torsion {name!r} to keep: choose among {', '.join(names) or 'none'}")
    assert isinstance(slow, Torsions)
    return Torsions(tuple(keep), slow.atoms[[names.index(name) for name in keep]])


def _kernel_width(labels: FloatArray, periods: FloatArray) -> float:
    """Median distance of a label to a near one, by which kernels overlap and stay where labels lie."""
    places = embedded(labels, periods)
    distances = cKDTree(places).query(places, k=min(KERNEL_RANK + 1, len(places)))[0][:, -1]
    return float(np.median(distances)) / np.sqrt(labels.shape[1])


def recovery(
    labels: FloatArray, torsions: FloatArray, new_labels: FloatArray, new_torsions: FloatArray, periods: FloatArray
) -> FloatArray:
    """How well labels predict torsions: circular R^2 on other frames, shape=(t,); 1 - sum(1-cos err)/sum(1-cos dev).

    Predicted by the nearest training frames in the labels.

    Args:
        labels: shape=(n, d), of training frames.
        torsions: shape=(n, t), radians.
        new_labels: shape=(m, d), of held-out frames.
        new_torsions: shape=(m, t).
        periods: shape=(d,), of the labels.
    """
    distances, index = cKDTree(embedded(labels, periods)).query(embedded(new_labels, periods), k=N_NEIGHBOURS)
    weights = 1.0 / np.maximum(distances, 1e-9)
    predicted = np.angle(np.einsum("mk,mkt->mt", weights, np.exp(1j * torsions[index])))
    mean = np.angle(np.exp(1j * new_torsions).mean(axis=0))
    error, deviation = (1.0 - np.cos(wrap(new_torsions - other)) for other in (predicted, mean))
    return np.asarray(1.0 - error.sum(axis=0) / deviation.sum(axis=0))
