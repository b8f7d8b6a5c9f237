"""How the closed loop spends its evaluations."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Literal, get_args

from ..errors import InputError
from ..generator.network_training import NetworkOptions
from ..sampling.short_windows import ShortWindows
from ..units import whole_number

N_PILOT = 300
"""Labels at which a map with and without its network are compared."""


Relaxation = Literal["none", "latent", "auto"]
RELAXATIONS: tuple[Relaxation, ...] = get_args(Relaxation)
"""Of draws of later rounds; see `LoopOptions`."""


@dataclass(frozen=True)
class LoopOptions:
    """How the loop spends its evaluations.

    Args:
        windows: the first frames; as many again for each label or wide torsion from the third on.
        window_length: ps, of each window; by default its steps, which are 0.6 ps of a molecule with a time step of at
            least 1.5 fs whose hydrogens are free to be heavy.
        lifts: draws at most; by default what `max_evaluations` leaves.
        n_first: draws of the first round; the second has twice as many, later ones as many as all before.
        ceiling: kT above the minimum, up to which labels are placed.
        network: on top of the last map, where a pilot of both finds it better; none by default. The rounds draw from
            maps alone: what a network adds to them is worth less than its training.
        relax: how draws of later rounds are relaxed: none, latent (moves of base numbers, at fixed labels), or auto:
            latent in rounds where a pilot finds it clearly better an evaluation.
        n_moves: of latent relaxation.
        wide: whether coordinates with several modes that are no labels are looked for; for tests of what says so.
    """

    windows: ShortWindows = field(default_factory=ShortWindows)
    window_length: float | None = None
    lifts: int | None = None
    n_first: int = 2000
    ceiling: float = 10.0
    network: NetworkOptions | None = None
    relax: Relaxation = "none"
    n_moves: int = 10
    wide: bool = True

    def __post_init__(self) -> None:
        """What no loop could follow is refused."""
        for name in ("n_first", "n_moves", *(["lifts"] if self.lifts is not None else [])):
            whole_number(name, getattr(self, name), 1)
        if not 0.0 < self.ceiling < inf:
            raise InputError(f"`ceiling` is {self.ceiling}: give a positive number of kT")
        if self.relax not in RELAXATIONS:
            raise InputError(f"`relax` is {self.relax!r}: choose one of {', '.join(RELAXATIONS)}")

    def windows_over(self, n_axes: int, step: float) -> ShortWindows:
        """The windows of so many labels and wide torsions.

        Args:
            n_axes: how many.
            step: ps, of the windows.
        """
        length = self.window_length
        windows = self.windows if length is None else self.windows.lasting(length, step)
        return replace(windows, n=windows.n * max(1, n_axes - 1))

    def n_draws(self, max_evaluations: int, of_frames: int) -> list[int]:
        """Of each round, so that everything together costs what is allowed.

        Args:
            max_evaluations: of all.
            of_frames: evaluations of the first frames.

        Raises:
            InputError: too few evaluations for one round.
        """
        if self.lifts is not None and self.lifts < self.n_first:
            raise InputError(f"`lifts` {self.lifts} is less than one round: give at least `n_first`, {self.n_first}")
        left = max_evaluations - of_frames - (2 * N_PILOT if self.network else 0)
        if self.lifts is not None:
            left = min(left, self.lifts)
        if left < self.n_first:
            least = max_evaluations - left + self.n_first
            raise InputError(
                f"`max_evaluations` {max_evaluations} is less than frames and one round need: give at least {least}"
            )
        rounds: list[int] = []
        while left > 0:
            rounds.append(self.next_draws(rounds, left))
            left -= rounds[-1]
        return rounds

    def next_draws(self, rounds: Sequence[int], left: int) -> int:
        """Of the round that follows.

        Args:
            rounds: draws of each so far.
            left: draws that are allowed yet.
        """
        planned = max(sum(rounds), (len(rounds) + 1) * self.n_first)
        # a rest that is smaller than its round belongs to this one
        return left if left < 2 * planned else planned
