"""What the closed loop learned: a generator, weighted draws, and surfaces of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..engine.platforms import resolved_platform
from ..engine.tasks import Workers
from ..errors import InputError
from ..free_energy.surface import FreeEnergySurface
from ..generator.invertible import InvertibleGenerator
from ..system.molecular_system import MolecularSystem
from .draws import Draws
from .label_regression import LabelRegression, doubts_about_regression
from .marginal_surfaces import fit_marginal_regression, some_axes
from .mean_forces import slopes_of
from .placement import Placement
from .reweighting import check_same_molecule, overlap_of, reweight_draws
from .rounds import Round, pooled_log_weights, regression_of, round_shares

MAX_GRID_LABELS = 2
"""Over more labels no grid has few enough cells."""


@dataclass(frozen=True)
class Learned:
    """What the loop learned.

    Attributes:
        model: the generator, fitted to all draws.
        lifts: of all rounds.
        regression: of their weights and mean forces.
        surface: the free-energy surface over the labels, the first two of more.
        history: one entry a round.
        placements: what the labels of each round were drawn from.
        doubts: sentences, where the result may be blind.
        overlap: with what the lifts were drawn for, where they were reweighted: about by how much that divides the
            number of effective lifts, more where other labels become the low ones. Of a few per cent, neither surface
            nor error bars are to be trusted.
    """

    model: InvertibleGenerator
    lifts: Draws
    regression: LabelRegression
    surface: FreeEnergySurface
    history: tuple[Round, ...]
    placements: tuple[Placement, ...] = ()
    doubts: tuple[str, ...] = ()
    overlap: float = 1.0

    def reweight(self, system: MolecularSystem, *, platform: str = "Reference", workers: Workers = 1) -> "Learned":
        """The same lifts and their surface for another temperature or force field, one evaluation each.

        Args:
            system: of the same atoms, labels and constraints.
            platform: an OpenMM platform, or ``auto`` to measure.
            workers: local processes, or an executor.

        Raises:
            InputError: another molecule.
        """
        platform = resolved_platform(platform, system.system, system.positions)
        model, before, slow = self.model, self.lifts, self.model.slow
        check_same_molecule(model.metadata["atom_names"], slow, model.chart.constraints, system)
        draws = reweight_draws(before, model.chart, system, platform=platform, workers=workers)
        regression = regression_of(slow, draws, slopes_of(model, draws), self.regression)
        cost = draws.force_evaluations - before.force_evaluations
        of_surface = system.temperature, self.surface.force_evaluations + cost
        if len(slow.names) > MAX_GRID_LABELS:
            surface = marginal_surface(model, draws, self.placements, (0, 1), *of_surface)
        else:
            surface = regression.surface(slow, *of_surface)
        overlap = overlap_of(pooled_log_weights(before), pooled_log_weights(draws))
        found = doubts_about_regression(slow, regression, draws.labels, draws.log_weights, round_shares(draws))
        doubts = (*self.doubts, *found)
        return replace(self, lifts=draws, regression=regression, surface=surface, doubts=doubts, overlap=overlap)

    def surface_over(self, *names: str) -> FreeEnergySurface:
        """The surface over one or two of the labels, the others averaged over.

        Args:
            names: of labels.

        Raises:
            InputError: there is no such label.
        """
        slow = self.model.slow
        if len(names) not in (1, 2) or len(set(names)) < len(names) or not set(names) <= set(slow.names):
            raise InputError(
                f"labels {', '.join(names)} are not among {', '.join(slow.names)}: give one or two of them"
            )
        indices = [slow.names.index(name) for name in names]
        return marginal_surface(
            self.model,
            self.lifts,
            self.placements,
            indices,
            self.surface.temperature,
            self.surface.force_evaluations,
        )


def marginal_surface(
    generator: InvertibleGenerator,
    draws: Draws,
    placements: Sequence[Placement],
    indices: Sequence[int],
    temperature: float,
    force_evaluations: int,
) -> FreeEnergySurface:
    """The surface over some of the labels, the others averaged over.

    Args:
        generator: whose map frees the mean forces of noise.
        draws: of all rounds.
        placements: of each round.
        indices: of one or two labels.
        temperature: K.
        force_evaluations: to record.
    """
    slow = generator.slow
    slopes = slopes_of(generator, draws)[:, : len(slow.names)]
    regression = fit_marginal_regression(slow, indices, draws, placements, slopes, round_shares(draws))
    return regression.surface(some_axes(slow, indices), temperature, force_evaluations)
