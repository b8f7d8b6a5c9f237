"""The triangular map: from normal and uniform numbers to the coordinates of a chart, conditional on labels; scriptable.

Wide torsions first, then rotors with symmetric wells, each with a circular density; then all narrow coordinates
together, normal with a mean and a precision that depend on the labels and on the circular coordinates' values.
The density of a draw is known, and the inverse is exact.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from ..units import FloatArray, IntArray
from .circular import CircularDensity
from .coupling import NoNetwork
from .label_basis import LabelBasis

TAIL_START, TAIL_END, TAIL_SLOPE = 3.0, 4.5, 3.0
"""A narrow coordinate is wider than normal from 3 standard deviations on: its slope rises to 3 at 4.5 and stays.

Of 57 perfectly fitted coordinates this costs 1 % of the effective samples; one of them fitted too narrow by a factor
of 1.7 leaves 21 % instead of none.
"""

WIDTH_RANGE = 1.5
"""A conditional width stays within exp(+-1.5) of its typical one."""


FEW = 32
"""Draws at a time that are solved for by matrices of their own; for more, one coordinate after the other is cheaper."""

CUBIC_RANGE, CUBIC_WIDTH_RANGE, MAX_SKEW = 3.5, 0.7, 0.12
"""Numbers to which cubic terms reach, their largest log width, and a skew with which the map still rises everywhere."""


class WiderTails(nn.Module):
    """A monotone map of each normal number that leaves the bulk as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.span, self.slope = TAIL_START, TAIL_END - TAIL_START, TAIL_SLOPE
        self.curve = (self.slope - 1.0) / self.span

    def forward(self, normals: Tensor) -> tuple[Tensor, Tensor]:
        """Normal numbers to wider ones, and the log of the slope, same shapes."""
        size = torch.abs(normals)
        into = torch.clamp(size - self.start, 0.0, self.span)
        beyond = torch.clamp(size - (self.start + self.span), min=0.0)
        added = 0.5 * self.curve * into * into + (self.slope - 1.0) * beyond
        return normals + torch.sign(normals) * added, torch.log1p(self.curve * into)

    def inverse(self, widened: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of `forward`, and the log of the slope that it has there."""
        size = torch.abs(widened)
        width = self.span + 0.5 * self.curve * self.span * self.span
        into = torch.clamp(size - self.start, 0.0, width)
        # of x + curve x^2 / 2 = into
        root = 2.0 * into / (1.0 + torch.sqrt(1.0 + 2.0 * self.curve * into))
        beyond = torch.clamp(size - (self.start + width), min=0.0) / self.slope
        return torch.sign(widened) * (torch.clamp(size, max=self.start) + root + beyond), torch.log1p(self.curve * root)


class Condition(nn.Module):
    """What the narrow coordinates depend on: smooth functions of labels and wide torsions, waves of symmetric rotors.

    Args:
        basis: of labels and wide torsions together.
        n_axes: how many they are.
        folds: of the symmetric rotors, which follow them among the conditions.
        order: highest order of the functions.
    """

    functions: Tensor
    first_functions: Tensor
    coarse_functions: Tensor
    folds: Tensor
    orders: Tensor
    roughness: Tensor

    def __init__(self, basis: LabelBasis, n_axes: int, folds: list[int], order: int):
        super().__init__()
        self.basis, self.n_axes, self.order = basis, n_axes, order
        self.register_buffer("functions", torch.nonzero(basis.total_orders <= order)[:, 0])
        self.register_buffer("first_functions", torch.nonzero(basis.total_orders <= 1)[:, 0])
        coarse = (basis.total_orders <= 2) & (basis.total_orders > 0)
        self.register_buffer("coarse_functions", torch.nonzero(coarse)[:, 0])
        self.n_network_features = int(coarse.sum()) + 2 * len(folds)
        self.register_buffer("folds", torch.as_tensor(np.array(folds, dtype=float)))
        # a wave alone is of order one, with a function of order one of order two
        for name, one, of_basis in (("orders", 1, basis.total_orders), ("roughness", 1.0, basis.roughness)):
            crossed = (of_basis[self.first_functions] + one).repeat_interleave(2 * len(folds))
            self.register_buffer(name, torch.cat([of_basis[self.functions], crossed]))

    @torch.jit.unused
    def wave_numbers(self) -> IntArray:
        """Of each feature in each condition's phase, shape=(n_features, n_conditions): of cosines and sines alike."""
        numbers = self.basis.wave_numbers()
        rotors = np.eye(len(self.folds), dtype=np.int64)
        alone = np.pad(numbers[self.functions.numpy()], ((0, 0), (0, len(rotors))))
        first = numbers[self.first_functions.numpy()]
        waves = np.tile(rotors, (2, 1))
        crossed = np.concatenate([first.repeat(len(waves), axis=0), np.tile(waves, (len(first), 1))], axis=1)
        return np.concatenate([alone, crossed])

    @torch.jit.unused
    def phases(self, conditions: Tensor) -> Tensor:
        """In which the features are waves of whole numbers, shape=(n, n_conditions)."""
        of_axes = self.basis.phases(conditions[:, : self.n_axes])
        return torch.cat([of_axes, self.folds * conditions[:, self.n_axes :]], dim=1)

    @torch.jit.unused
    def places(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Conditions at random, shape=(n, n_conditions)."""
        return np.concatenate([self.basis.places(n, rng), rng.uniform(-np.pi, np.pi, (n, len(self.folds)))], axis=1)

    def network_features(self, conditions: Tensor) -> Tensor:
        """What a network sees: the functions up to order two, and the rotors' waves."""
        return self.network_features_of(self.basis(conditions[:, : self.n_axes]), self.waves(conditions))

    def network_features_of(self, functions: Tensor, waves: Tensor) -> Tensor:
        """`network_features` of functions of the axes and of waves that are known."""
        return torch.cat([functions.index_select(1, self.coarse_functions), waves], dim=1)

    def features_of(self, functions: Tensor, waves: Tensor) -> Tensor:
        """`forward` of functions of the axes and of waves that are known."""
        first = functions.index_select(1, self.first_functions)
        crossed = (first.unsqueeze(2) * waves.unsqueeze(1)).flatten(1)
        return torch.cat([functions.index_select(1, self.functions), crossed], dim=1)

    def waves(self, conditions: Tensor) -> Tensor:
        """Cosines of the rotors' phases, then sines, shape=(n, 2 n_rotors)."""
        phases = self.folds * conditions[:, self.n_axes :]
        return torch.cat([torch.cos(phases), torch.sin(phases)], dim=1)

    def forward(self, conditions: Tensor) -> Tensor:
        """Conditions, shape=(n, n_axes + n_rotors), to features, shape=(n, n_features); the first is constant."""
        return self.features_of(self.basis(conditions[:, : self.n_axes]), self.waves(conditions))


class CubicTerms(nn.Module):
    """What is cubic in the log density of nearly normal numbers, as a triangular map.

    ``e_i = shift_i + exp(width_i) (u_i + skew_i (u_i^2 - 1))``, the shift a sum of products of two numbers before i,
    the width linear in those before i; beyond `CUBIC_RANGE` products, widths and skews go on as at its ends.

    Args:
        coefficients: shape=(k, k, k): of ``e_a e_b`` in the shift of i at [i, a, b], a <= b < i.
        widths: shape=(k, k), strictly lower.
        skews: shape=(k,).
    """

    left: Tensor
    right: Tensor
    same: Tensor
    shifts: Tensor
    widths: Tensor
    skews: Tensor

    def __init__(self, coefficients: Tensor, widths: Tensor, skews: Tensor):
        super().__init__()
        self.reach, self.width_range = CUBIC_RANGE, CUBIC_WIDTH_RANGE
        pairs = torch.nonzero((coefficients != 0).any(dim=0))
        left, right = pairs[:, 0], pairs[:, 1]
        self.register_buffer("left", left)
        self.register_buffer("right", right)
        self.register_buffer("same", (left == right).double())
        self.register_buffer("shifts", coefficients[:, left, right].T.contiguous())
        self.register_buffer("widths", widths.T.contiguous())
        self.register_buffer("skews", skews)
        sources = (coefficients != 0).any(dim=1) | (coefficients != 0).any(dim=2) | (widths != 0)
        self.depth = int(dependency_depths(sources).max()) if len(sources) else 0

    @classmethod
    def none(cls, k: int) -> "CubicTerms":
        """The identity of k numbers."""
        zero = torch.zeros(k, dtype=torch.float64)
        return cls(zero.repeat(k, k, 1), zero.repeat(k, 1), zero)

    def _shift(self, near: Tensor) -> Tensor:
        products = near.index_select(1, self.left) * near.index_select(1, self.right)
        return (products - self.same) @ self.shifts

    def forward(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers, shape=(n, k), to numbers, and the log volume, shape=(n,)."""
        near = torch.clamp(numbers, -self.reach, self.reach)
        shift = self._shift(near)
        log_width = torch.clamp(near @ self.widths, -self.width_range, self.width_range)
        slope = 1.0 + 2.0 * self.skews * near
        skewed = numbers + self.skews * (near * near - 1.0) + (slope - 1.0) * (numbers - near)
        return shift + torch.exp(log_width) * skewed, (log_width + torch.log(slope)).sum(dim=1)

    def inverse(self, cubic: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of `forward`, with the log volume that it has there."""
        low = self.skews * (self.reach**2 - 1.0) - self.reach
        high = self.skews * (self.reach**2 - 1.0) + self.reach
        numbers, log_width, slope = cubic, cubic, cubic
        # numbers that depend on none are right after one turn, those that depend on these after two
        for _ in range(self.depth + 1):
            near = torch.clamp(numbers, -self.reach, self.reach)
            shift = self._shift(near)
            log_width = torch.clamp(near @ self.widths, -self.width_range, self.width_range)
            skewed = (cubic - shift) * torch.exp(-log_width)
            # of x + skew (x^2 - 1) = y, and linear beyond the reach
            bounded = torch.minimum(torch.maximum(skewed, low), high)
            inner = bounded + self.skews
            root = 2.0 * inner / (1.0 + torch.sqrt(1.0 + 4.0 * self.skews * inner))
            slope = 1.0 + 2.0 * self.skews * root
            numbers = root + (skewed - bounded) / slope
        return numbers, (log_width + torch.log(slope)).sum(dim=1)


def dependency_depths(sources: Tensor) -> Tensor:
    """How long a chain of dependencies leads to each number, shape=(k,): zero where it depends on none.

    Args:
        sources: shape=(k, k), whether number i depends on number j, j < i.
    """
    depths = torch.zeros(len(sources), dtype=torch.int64)
    for i, row in enumerate(sources):
        if row.any():
            depths[i] = depths[row].max() + 1
    return depths


class NarrowCoordinates(nn.Module):
    """Narrow coordinates given the conditions, each from the ones before it, with wider than normal tails.

    In units of ``scale`` from ``origin``: ``d_i = sum_(j<i) a_ij(c) d_j + exp(l_i(c)) n_i``, ``y = m(c) + d``; m, l and
    a are linear in the features of the conditions. Most couplings a are constant.

    Args:
        condition: the features, of which the first is constant.
        mean: shape=(n_features, n), of m.
        log_width: shape=(n_features, n), of l.
        coupling: shape=(n_features, n, n), strictly lower, of a.
        cubic: of the numbers n.
        origin: shape=(n,), nm or radians.
        scale: shape=(n,).
    """

    mean: Tensor
    log_width: Tensor
    coupling: Tensor
    varying: Tensor
    variation: Tensor
    later: Tensor
    earlier: Tensor
    origin: Tensor
    scale: Tensor
    ends: list[int]

    def __init__(
        self,
        condition: Condition,
        mean: Tensor,
        log_width: Tensor,
        coupling: Tensor,
        cubic: CubicTerms,
        origin: Tensor,
        scale: Tensor,
    ):
        super().__init__()
        self.condition, self.cubic = condition, cubic
        self.n, self.width_range, self.few = len(origin), WIDTH_RANGE, FEW
        self.tails = WiderTails()
        self.has_network = False
        self.network: nn.Module = NoNetwork()
        flat = coupling.reshape(len(coupling), -1)
        varying = torch.nonzero((flat[1:] != 0).any(dim=0))[:, 0]
        self.register_buffer("mean", mean)
        self.register_buffer("log_width", log_width)
        self.register_buffer("coupling", torch.eye(self.n, dtype=torch.float64).reshape(-1) - flat[0])
        self.register_buffer("varying", varying)
        self.register_buffer("variation", -flat[1:, varying])
        self.register_buffer("later", varying // self.n, persistent=False)
        self.register_buffer("earlier", varying % self.n, persistent=False)
        self.register_buffer("origin", origin)
        self.register_buffer("scale", scale)
        self.ends = torch.bincount(self.later, minlength=self.n).cumsum(0).tolist()

    @torch.jit.unused
    def set_network(self, network: nn.Module) -> None:
        """Put an invertible network between the normal numbers and the rest of the map."""
        self.has_network = True
        self.network = network

    def mean_and_log_width(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Both shape=(n, k), at features of conditions."""
        centre = self.log_width[0]
        log_width = torch.clamp(features @ self.log_width - centre, -self.width_range, self.width_range)
        return features @ self.mean, centre + log_width

    def matrices(self, features: Tensor) -> Tensor:
        """``1 - a``, shape=(n, k, k), at features of conditions."""
        constant = self.coupling.repeat(features.shape[0], 1)
        return constant.index_add(1, self.varying, features[:, 1:] @ self.variation).reshape(-1, self.n, self.n)

    def steps(self, features: Tensor, deviation: Tensor) -> Tensor:
        """``d - a d`` of deviations d, shape=(n, k), at features of conditions."""
        varied = (features[:, 1:] @ self.variation) * deviation.index_select(1, self.earlier)
        return (deviation @ self.coupling.reshape(self.n, self.n).T).index_add(1, self.later, varied)

    def deviations(self, features: Tensor, steps: Tensor) -> Tensor:
        """The inverse of `steps`."""
        if steps.shape[0] < self.few:
            matrices = self.matrices(features)
            return torch.linalg.solve_triangular(matrices, steps[:, :, None], upper=False, unitriangular=True)[:, :, 0]
        # varying couplings are in the order of the coordinates that they lead to
        varied, coupling = (features[:, 1:] @ self.variation).T, self.coupling.reshape(self.n, self.n)
        found, begin = steps.T.clone(memory_format=torch.contiguous_format), 0
        for i, end in enumerate(self.ends):
            found[i] -= coupling[i, :i] @ found[:i]
            if end > begin:
                known = found.index_select(0, self.earlier[begin:end])
                found[i] -= (varied[begin:end] * known).sum(dim=0)
            begin = end
        return found.T

    def forward(self, normals: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Standard normal numbers to coordinates, and the log of coordinate volume per volume of normals."""
        features = self.condition(conditions)
        mean, log_width = self.mean_and_log_width(features)
        log_network = torch.zeros_like(conditions[:, 0])
        if self.has_network:
            normals, log_network = self.network(normals, self.condition.network_features(conditions))
        widened, log_slopes = self.tails(normals)
        numbers, log_cubic = self.cubic(widened)
        deviation = self.deviations(features, torch.exp(log_width) * numbers)
        log_volume = log_network + log_cubic + (log_slopes + log_width).sum(dim=1) + torch.log(self.scale).sum()
        return self.origin + self.scale * (mean + deviation), log_volume

    def inverse(self, coordinates: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of `forward`, with the log volume that it has there."""
        return self.inverse_of(coordinates, conditions, self.condition.basis(conditions[:, : self.condition.n_axes]))

    def inverse_of(self, coordinates: Tensor, conditions: Tensor, functions: Tensor) -> tuple[Tensor, Tensor]:
        """`inverse` where the functions of the conditions' axes are known."""
        waves = self.condition.waves(conditions)
        features = self.condition.features_of(functions, waves)
        mean, log_width = self.mean_and_log_width(features)
        steps = self.steps(features, (coordinates - self.origin) / self.scale - mean)
        widened, log_cubic = self.cubic.inverse(torch.exp(-log_width) * steps)
        normals, log_slopes = self.tails.inverse(widened)
        log_network = torch.zeros_like(log_cubic)
        if self.has_network:
            seen = self.condition.network_features_of(functions, waves)
            normals, log_network = self.network.inverse(normals, seen)
        return normals, log_network + log_cubic + (log_slopes + log_width).sum(dim=1) + torch.log(self.scale).sum()

    @torch.jit.unused
    def numbers_and_gradients(self, conditions: Tensor, y: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers of coordinates y in units of the map, cubic terms left out, and their log density's gradient."""
        with torch.no_grad():
            features = self.condition(conditions)
            mean, log_width = self.mean_and_log_width(features)
            numbers = self.steps(features, y - mean) * torch.exp(-log_width)
            pulled = self._pulled(features, gradients)
        return numbers, pulled * torch.exp(log_width)

    @torch.jit.unused
    def normals_and_gradients(
        self, conditions: Tensor, coordinates: Tensor, gradients: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Normal numbers of coordinates, any network left out, and their log density's gradient, shape=(n, k) each.

        Args:
            conditions: shape=(n, n_conditions).
            coordinates: shape=(n, k).
            gradients: shape=(n, k), of the log density of the coordinates.
        """
        y = (coordinates - self.origin) / self.scale
        numbers, pulled = self.numbers_and_gradients(conditions, y, gradients * self.scale)
        with torch.no_grad():
            normals, _ = self.tails.inverse(self.cubic.inverse(numbers)[0])
        normals.requires_grad_(True)
        with torch.enable_grad():
            widened, log_slopes = self.tails(normals)
            again, log_cubic = self.cubic(widened)
            total = (again * pulled).sum() + log_slopes.sum() + log_cubic.sum()
        (found,) = torch.autograd.grad(total, normals)
        return normals.detach(), found

    @torch.jit.unused
    def _pulled(self, features: Tensor, gradients: Tensor) -> Tensor:
        """Gradients in deviations d, shape=(n, k), as gradients in the steps ``d - a d``: the last coordinate first."""
        matrix, earlier = self.coupling.reshape(self.n, self.n), self.earlier
        order = torch.argsort(earlier, stable=True)
        varied = (features[:, 1:] @ self.variation[:, order]).T
        later, ends = self.later[order], torch.bincount(earlier, minlength=self.n).cumsum(0).tolist()
        pulled = gradients.T.clone()
        for i in range(self.n - 2, -1, -1):
            pulled[i] -= matrix[i + 1 :, i] @ pulled[i + 1 :]
            which = slice(ends[i - 1] if i else 0, ends[i])
            pulled[i] -= (varied[which] * pulled[later[which]]).sum(dim=0)
        return pulled.T

    @torch.jit.unused
    def transport(self, conditions: Tensor, coordinates: Tensor, gradients: Tensor, n: int) -> Tensor:
        """``v . g + div v`` of the velocity ``v = dy/dc`` at fixed normals along the first n conditions."""
        conditions = conditions.detach().requires_grad_(True)
        with torch.enable_grad():
            differentiable = self.condition(conditions)
        features = differentiable.detach()
        mean, _ = self.mean_and_log_width(features)
        deviation = (coordinates - self.origin) / self.scale - mean
        gradients = gradients * self.scale
        steps, solved = self.steps(features, deviation), self._pulled(features, gradients)
        i, j = self.later, self.earlier
        # of each feature: the velocity is linear in the features' slopes
        by_feature = gradients @ self.mean.T + (solved * steps + 1.0) @ self.log_width.T
        by_feature[:, 1:] -= (solved[:, i] * deviation[:, j]) @ self.variation.T
        with torch.enable_grad():  # of a sum: gradients of several outputs import torch's compiler
            total = (by_feature.detach() * differentiable).sum()
        (slopes,) = torch.autograd.grad(total, conditions)
        return slopes[:, :n]


class TriangularMap(nn.Module):
    """Base numbers to the coordinates of a chart, conditional on labels, with their log density; and back.

    Base numbers are uniform on [0, 1) for circular coordinates, which come first, and standard normal for narrow ones.

    Args:
        n_coordinates: of the chart.
        label_indices: shape=(d,), coordinates that are labels.
        circular_indices: wide torsions, then rotors with symmetric wells.
        n_wide: how many of them are wide torsions.
        narrow_indices: shape=(k,), the others.
        periodic: shape=(k,), which narrow coordinates are torsions.
        circular: the density of each circular coordinate.
        narrow: the narrow coordinates' map.
    """

    label_indices: Tensor
    circular_indices: Tensor
    narrow_indices: Tensor
    periodic: Tensor

    def __init__(
        self,
        n_coordinates: int,
        label_indices: Tensor,
        circular_indices: Tensor,
        n_wide: int,
        narrow_indices: Tensor,
        periodic: Tensor,
        circular: list[CircularDensity],
        narrow: NarrowCoordinates,
    ):
        super().__init__()
        self.n_coordinates, self.n_wide, self.n_circular = n_coordinates, n_wide, len(circular)
        self.register_buffer("label_indices", label_indices)
        self.register_buffer("circular_indices", circular_indices)
        self.register_buffer("narrow_indices", narrow_indices)
        self.register_buffer("periodic", periodic)
        self.circular = nn.ModuleList(circular)
        self.narrow = narrow

    def _basis(self, labels: Tensor, wide: list[Tensor]) -> Tensor:
        """The functions of labels and the wide torsions known so far; those of later ones are not to be used."""
        known = torch.cat([labels] + wide, dim=1)  # noqa: RUF005  # TorchScript has no star
        unknown = torch.zeros(len(labels), labels.shape[1] + self.n_wide - known.shape[1], dtype=labels.dtype)
        return self.narrow.condition.basis(torch.cat([known, unknown.to(labels.device)], dim=1))

    def _log_base(self, normals: Tensor) -> Tensor:
        return -0.5 * (normals * normals).sum(dim=1) - 0.5 * math.log(2 * math.pi) * normals.shape[1]

    def forward(self, base: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Base numbers, shape=(n, n_base), to coordinates, shape=(n, n_coordinates), and their log density."""
        angles: list[Tensor] = []
        basis = self._basis(labels, angles)
        log_density = torch.zeros_like(labels[:, 0])
        for i, density in enumerate(self.circular):
            if 0 < i <= self.n_wide:
                basis = self._basis(labels, angles)
            angle, log_angle = density(base[:, i], basis)
            angles.append(angle[:, None])
            log_density = log_density + log_angle
        conditions = torch.cat([labels] + angles, dim=1)  # noqa: RUF005
        normals = base[:, self.n_circular :]
        narrow, log_volume = self.narrow(normals, conditions)
        coordinates = torch.zeros(labels.shape[0], self.n_coordinates, dtype=labels.dtype, device=labels.device)
        indices = torch.cat([self.label_indices, self.circular_indices, self.narrow_indices])
        coordinates = coordinates.index_copy(1, indices, torch.cat([conditions, narrow], dim=1))
        return coordinates, log_density + self._log_base(normals) - log_volume

    @torch.jit.export
    def inverse(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """Base numbers of coordinates, labels included, and the log density of the coordinates given the labels."""
        labels = coordinates.index_select(1, self.label_indices)
        circular = coordinates.index_select(1, self.circular_indices)
        basis = self._basis(labels, [circular[:, : self.n_wide]])
        log_density = torch.zeros_like(labels[:, 0])
        base: list[Tensor] = []
        for i, density in enumerate(self.circular):
            uniform, log_angle = density.inverse(circular[:, i], basis)
            base.append(uniform[:, None])
            log_density = log_density + log_angle
        conditions = torch.cat([labels, circular], dim=1)
        normals, log_volume = self.narrow.inverse_of(self.narrow_values(coordinates), conditions, basis)
        base.append(normals)
        return torch.cat(base, dim=1), log_density + self._log_base(normals) - log_volume

    @torch.jit.export
    def narrow_values(self, coordinates: Tensor) -> Tensor:
        """The narrow coordinates, torsions within half a turn of their origin."""
        values, origin = coordinates.index_select(1, self.narrow_indices), self.narrow.origin
        turned = torch.remainder(values - origin + math.pi, 2 * math.pi) - math.pi
        return torch.where(self.periodic, origin + turned, values)

    @torch.jit.export
    def inside(self, coordinates: Tensor) -> Tensor:
        """Whether a draw has its narrow torsions within half a turn of their origin, so that `inverse` finds it."""
        far = torch.abs(coordinates[:, self.narrow_indices] - self.narrow.origin) > math.pi
        return ~(far & self.periodic).any(dim=1)
