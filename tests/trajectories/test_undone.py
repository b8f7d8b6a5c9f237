"""What undoes a bias: columns, hills, kernels, weights, on a surface that is known; and what is no such thing."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openmm_gancl import InputError
from openmm_gancl.free_energy.from_trajectories import analyse
from openmm_gancl.trajectories import opes_bias
from openmm_gancl.trajectories.bias_checks import bias_differences
from openmm_gancl.trajectories.hills import check_deposits, hills_bias, hills_log_weights, read_hills
from openmm_gancl.trajectories.observations import read

from .known_surface import (
    KT,
    TEMPERATURE,
    analysed,
    biased,
    colvar_text,
    deviation,
    drawn,
    energy,
    restraint,
    window_files,
    wrapped,
    write_windows,
)
from .known_surface import bias as level

LIMIT = 0.12
"""kT: 4,000 frames and 48 bins lie at 0.06 from the truth, what is wrong beyond 0.3."""


@pytest.fixture(scope="module")
def colvar(tmp_path_factory):
    folder = tmp_path_factory.mktemp("biased")
    phi, v = biased()
    (folder / "COLVAR").write_text(colvar_text({"phi": phi, "metad.bias": v, "wall.bias": 0 * v, "metad.work": 2 * v}))
    return folder


def test_a_bias_column_is_undone_and_its_unit_is_said(colvar):
    analysis = analysed(["column:phi"], colvar=[colvar / "COLVAR"], bias_columns=["metad.bias", " wall.bias"])
    assert deviation(analysis.surface)[0] < LIMIT and not analysis.doubts
    assert any("is taken to be in kJ/mol" in note for note in analysis.notes)


def test_a_bias_that_nobody_undoes_is_a_doubt(colvar, tmp_path):
    sources = {"colvar": [colvar / "COLVAR"]}
    without = analysed(["column:phi"], **sources)
    assert deviation(without.surface)[0] > 0.5
    (doubt,) = without.doubts  # none of the wall, which is nowhere
    assert "metad.bias, which varies by" in doubt and "give `bias_columns=metad.bias`" in doubt
    phi, v = biased()
    np.save(tmp_path / "w.npy", v / KT)
    assert not analysed(["column:phi"], log_weights=tmp_path / "w.npy", **sources).doubts
    (tmp_path / "COLVAR").write_text(colvar_text({"phi": phi, "metad.bias": v, "uwall.bias": v}))
    (doubt,) = analysed(["column:phi"], colvar=[tmp_path / "COLVAR"], bias_columns=["metad.bias"]).doubts
    assert "uwall.bias" in doubt and "bias_columns=metad.bias,uwall.bias" in doubt
    other = np.random.default_rng(0).exponential(2 * KT, len(phi))  # of a variable beside the surface
    (tmp_path / "COLVAR").write_text(colvar_text({"phi": phi, "metad.bias": v, "uwall.bias": other}))
    beside = analysed(["column:phi"], colvar=[tmp_path / "COLVAR"], bias_columns=["metad.bias"])
    assert not beside.doubts and any("uwall.bias" in note for note in beside.notes)


@pytest.mark.parametrize("name", ["uwall.bias", "wall_bias"])
def test_a_wall_on_the_surface_is_a_doubt_or_undone(tmp_path, name):
    """It hardly varies over the frames, and is all there is where it stands."""

    def wall(x):
        return np.where(x > 1.9, 12 * (x - 1.9) ** 2, 0.0)

    phi = drawn(4000, 3, lambda x: energy(x) + level(x) + wall(x))
    (tmp_path / "COLVAR").write_text(colvar_text({"phi": phi, "metad.bias": level(phi), name: wall(phi)}))
    assert wall(phi).std() < 0.5 * KT
    sources = {"colvar": [tmp_path / "COLVAR"]}
    left = analysed(["column:phi"], bias_columns=["metad.bias"], **sources)
    assert "along the surface" in left.doubts[0] and f"bias_columns=metad.bias,{name}" in left.doubts[0]
    right = analysed(["column:phi"], bias_columns=["metad.bias", name], **sources)
    assert not right.doubts
    beyond = np.arange(48)[(right.surface.edges[0][1:] > 1.9) & np.isfinite(right.surface.energy)]
    assert (right.surface.energy[beyond] < left.surface.energy[beyond] - 0.3).any()


def test_a_run_that_is_given_twice_is_refused(colvar, tmp_path):
    (tmp_path / "COLVAR").write_text((colvar / "COLVAR").read_text())
    sources = {"colvar": [colvar / "COLVAR", tmp_path / "COLVAR"], "bias_columns": ["metad.bias"]}
    with pytest.raises(InputError, match=r"holds the same frames as .*: give each run once"):
        read([], None, ["column:phi"], TEMPERATURE, **sources)


PARTS = {
    "a backup of its first half": lambda phi: (phi, phi[:500]),
    "the run that a backup is of": lambda phi: (phi[:500], phi),
    "printed at another stride": lambda phi: (phi, phi[::10]),
    "the other stride first": lambda phi: (phi[::10], phi),
    "parts that overlap, another between": lambda phi: (phi[:600], drawn(300, 9, energy), phi[500:]),
}


@pytest.mark.parametrize("name", PARTS)
def test_frames_that_are_in_two_files_are_refused(tmp_path, name):
    phi = drawn(1000, 8, energy)
    for i, part in enumerate(PARTS[name](phi)):
        (tmp_path / f"C{i}").write_text(colvar_text({"phi": part}))
    with pytest.raises(InputError, match=r"holds frames of .* again: give each frame once"):
        read([], None, ["column:phi"], TEMPERATURE, colvar=[tmp_path / "C*"])
    for i, part in enumerate((phi[:600], phi[500:], drawn(300, 9, energy).round(1), drawn(1000, 10, energy).round(1))):
        (tmp_path / f"C{i}").write_text(colvar_text({"phi": part}))
    found = read([], None, ["column:phi"], TEMPERATURE, colvar=[tmp_path / f"C{i}" for i in range(4)])
    assert len(found.series.values) == 2300 and "counted once" in found.notes[0]


def test_weights_are_not_taken_for_a_bias(tmp_path):
    phi, v = biased(500)
    for size in (np.exp(v / KT).max(), np.exp(v / KT).mean()):
        (tmp_path / "COLVAR").write_text(colvar_text({"phi": phi, "w": np.exp(v / KT) / size}))
        with pytest.raises(InputError, match=r"w is normalised, as weights are: give them by `weights`"):
            read([], None, ["column:phi"], TEMPERATURE, colvar=[tmp_path / "COLVAR"], bias_columns=["w"])


@pytest.mark.parametrize(("unit", "size"), [("kcal/mol", 4.184), ("kT", KT), ("kcal/mol, radians", 4.184)])
def test_biases_in_another_unit(tmp_path, unit, size):
    phi, v = biased()
    (tmp_path / "COLVAR").write_text(colvar_text({"phi": phi, "metad.bias": v / size}))
    sources = {"colvar": [tmp_path / "COLVAR"], "bias_columns": ["*.bias"]}
    assert deviation(analysed(["column:phi"], input_unit=unit, **sources).surface)[0] < LIMIT
    assert deviation(analysed(["column:phi"], **sources).surface)[0] > 0.3


@pytest.mark.parametrize("columns", [["time"], ["metad.work"], ["phi"], ["metad.rbias", "metad.bias"], ["nothing*"]])
def test_columns_that_are_no_bias_are_refused(tmp_path, columns):
    phi, v = biased(200)
    text = colvar_text({"phi": phi, "metad.bias": v, "metad.rbias": v - 3, "metad.work": v})
    (tmp_path / "COLVAR").write_text(text)
    with pytest.raises(InputError, match=r"no bias energy: give metad.bias, metad.rbias|is the bias already|no column"):
        read([], None, ["column:phi"], TEMPERATURE, colvar=[tmp_path / "COLVAR"], bias_columns=columns)


@pytest.mark.parametrize(
    ("period", "scale", "name"),
    [
        (("-pi", "pi"), 1.0, "phi"),
        (("0", "2*pi"), 1.0, "phi"),
        (("-pi/2", "3*pi/2"), 1.0, "phi"),
        (("-180", "180"), 180 / np.pi, "phid"),
        (("0", "360"), 180 / np.pi, "phid"),
    ],
)
def test_ranges_and_units_of_an_angle(tmp_path, period, scale, name):
    """The same surface wherever the period begins and whatever its unit; basins in it."""
    phi, v = biased(2000)
    low = {"-pi": -np.pi, "0": 0.0, "-pi/2": -np.pi / 2, "-180": -np.pi}[period[0]]
    written = scale * ((phi - low) % (2 * np.pi) + low)
    (tmp_path / "COLVAR").write_text(colvar_text({name: written, "metad.bias": v}, period=period, name=name))
    sources = {"colvar": [tmp_path / "COLVAR"], "bias_columns": ["metad.bias"]}
    analysis = analysed([f"column:{name}"], **sources)
    assert deviation(analysis.surface, 1 / scale)[0] < 0.15
    assert analysis.surface.units == ("degrees" if scale > 1 else "radians",)
    (tmp_path / "bare").write_text(colvar_text({name: written, "metad.bias": v}, period=None))
    if period[0] != "-pi/2":  # which is a full turn of its own kind
        with pytest.raises(InputError, match="give the period of an angle"):
            read([], None, [f"column:{name}"], TEMPERATURE, colvar=[tmp_path / "bare"], bias_columns=["metad.bias"])
    wrong = "360" if scale == 1 else "2pi"
    (tmp_path / "other").write_text(colvar_text({name: written, "metad.bias": v}, period=None))
    if period[0] != "-pi/2":
        with pytest.raises(InputError, match="has a period of"):
            read([], None, [f"column:{name}:{wrong}"], TEMPERATURE, colvar=[tmp_path / "other"])


def test_files_that_disagree_about_a_period_are_refused(tmp_path):
    phi, v = biased(300)
    for name, scale, period in (("a", 1, ("-pi", "pi")), ("b", 57.29578, ("-180", "180")), ("c", 1, None)):
        (tmp_path / name).write_text(colvar_text({"phi": scale * phi, "metad.bias": v}, period=period))
    other, w = biased(300, seed=1)
    (tmp_path / "d").write_text(colvar_text({"phi": other % (2 * np.pi), "metad.bias": w}, period=("0", "2pi")))
    (tmp_path / "e").write_text(colvar_text({"phi": 57.29578 * phi, "metad.bias": v}))
    for other, message in (("b", "a period of 360"), ("c", "no period")):
        with pytest.raises(InputError, match=message):
            read([], None, ["column:phi"], TEMPERATURE, colvar=[tmp_path / "a", tmp_path / other])
    assert (
        len(read([], None, ["column:phi"], TEMPERATURE, colvar=[tmp_path / "a", tmp_path / "d"]).series.values) == 600
    )
    (tmp_path / "f").write_text(colvar_text({"phi": phi, "metad.bias": v}, period=("-180", "180")))
    with pytest.raises(InputError, match="column:phi:2pi"):
        read([], None, ["column:phi"], TEMPERATURE, colvar=[tmp_path / "f"])
    assert read([], None, ["column:phi:2pi"], TEMPERATURE, colvar=[tmp_path / "f"]).series.units == ("radians",)
    with pytest.raises(InputError, match="by its file's SET lines, not of 360: leave it out"):
        read([], None, ["column:phi:360"], TEMPERATURE, colvar=[tmp_path / "a"])
    with pytest.raises(InputError, match="beyond its range"):
        read([], None, ["column:phi"], TEMPERATURE, colvar=[tmp_path / "e"])


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 1999), min_size=1, max_size=4, unique=True), st.sampled_from(["files", "runs"]))
def test_how_a_series_is_split_into_files_never_changes_its_frames(tmp_path_factory, cuts, how):
    folder, (phi, v) = tmp_path_factory.mktemp("split"), biased(2000)
    edges = [0, *sorted(cuts), 2000]
    texts = [colvar_text({"phi": phi[a:b], "metad.bias": v[a:b]}) for a, b in itertools.pairwise(edges) if b - a > 4]
    paths = [folder / f"C{i}" for i in range(len(texts))] if how == "files" else [folder / "C"]
    for path, text in zip(paths, texts if how == "files" else ["".join(texts)], strict=True):
        path.write_text(text)
    observed = read([], None, ["column:phi"], TEMPERATURE, colvar=paths, bias_columns=["metad.bias"])
    kept = np.concatenate([np.arange(a, b) for a, b in itertools.pairwise(edges) if b - a > 4])
    assert np.abs(wrapped(observed.series.values[:, 0] - phi[kept])).max() < 2e-6
    assert observed.log_weights == pytest.approx(v[kept] / KT, abs=1e-6)
    assert np.diff(observed.series.starts).tolist() == [b - a for a, b in itertools.pairwise(edges) if b - a > 4]


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1.0, 4.184, KT]), st.sampled_from([1.0, 180 / np.pi]))
def test_order_of_rows_and_units_never_change_the_surface(tmp_path_factory, seed, energy_unit, angle_unit):
    """Independent frames in another order, their bias and their angle in another unit: the same histogram."""
    folder, (phi, v) = tmp_path_factory.mktemp("order"), biased(800)
    order = np.random.default_rng(seed).permutation(len(phi))
    name = {1.0: "kJ/mol", 4.184: "kcal/mol", KT: "kT"}[energy_unit]
    period = ("-180", "180") if angle_unit > 1 else ("-pi", "pi")
    surfaces = []
    for file, rows, energies, angles, limits in (
        ("a", np.arange(len(phi)), 1.0, 1.0, ("-pi", "pi")),
        ("b", order, energy_unit, angle_unit, period),
    ):
        (folder / file).write_text(
            colvar_text({"phi": angles * phi[rows], "b.bias": v[rows] / energies}, period=limits)
        )
        observed = read(
            [],
            None,
            ["column:phi"],
            TEMPERATURE,
            colvar=[folder / file],
            bias_columns=["b.bias"],
            input_unit=name if file == "b" else None,
        )
        surfaces.append(analyse(observed, bins=12, discard=0, n_bootstrap=4, method="histogram").surface.energy)
    known = np.isfinite(surfaces[0])
    assert (known == np.isfinite(surfaces[1])).all()
    assert surfaces[1][known] == pytest.approx(surfaces[0][known], abs=0.02)  # kJ/mol, of six printed decimals


def test_two_runs_in_one_file_are_both_used(tmp_path):
    """Whether the second has a row of its first step or begins one later."""
    phi, v = biased()
    half = len(phi) // 2
    first = colvar_text({"phi": phi[:half], "metad.bias": v[:half]})
    for start in (0.0, 0.2):
        second = colvar_text({"phi": phi[half:], "metad.bias": v[half:]}, start=start)
        (tmp_path / "COLVAR").write_text(first + second)
        analysis = analysed(["column:phi"], colvar=[tmp_path / "COLVAR"], bias_columns=["metad.bias"])
        assert analysis.blocks.n_frames == len(phi) and deviation(analysis.surface)[0] < LIMIT
        assert any("holds 2 runs" in note for note in analysis.notes)


def test_windows_as_one_biased_run_are_recognised(tmp_path):
    rows = window_files(tmp_path)
    sources = {"colvar": [tmp_path / "w*.dat"], "bias_columns": ["restraint.bias"]}
    with pytest.raises(InputError, match=r"differs from run to run, as in umbrella windows: .* by `windows`"):
        read([], None, ["column:phi"], TEMPERATURE, **sources)
    with pytest.raises(InputError, match="differs from run to run"):
        (tmp_path / "all").write_text("".join((tmp_path / f"w{i}.dat").read_text() for i in range(16)))
        read([], None, ["column:phi"], TEMPERATURE, colvar=[tmp_path / "all"], bias_columns=["restraint.bias"])
    phi, v = biased(3000)
    for i in range(3):  # runs under one bias are not
        part = slice(1000 * i, 1000 * (i + 1))
        (tmp_path / f"r{i}").write_text(colvar_text({"phi": phi[part], "restraint.bias": v[part]}))
    read([], None, ["column:phi"], TEMPERATURE, colvar=[tmp_path / "r*"], bias_columns=["restraint.bias"])
    assert len(rows) == 16


def test_columns_that_nobody_asks_for_may_be_anything(tmp_path):
    """NaN, infinity and ranges that are not understood in a column beside those that are used."""
    phi, v = biased(2000)
    odd = np.where(np.arange(2000) % 7, phi, np.nan)
    for i in range(2):
        part = slice(1000 * i, 1000 * (i + 1))
        columns = {
            "phi": phi[part],
            "odd": odd[part],
            "even": phi[part] * 100,
            "a.bias": v[part],
            "odd.bias": odd[part],
        }
        text = colvar_text(columns).replace("#! SET min_phi", "#! SET min_even 0\n#! SET max_even abc\n#! SET min_phi")
        (tmp_path / f"C{i}").write_text(text)
    found = read([], None, ["column:phi"], TEMPERATURE, colvar=[tmp_path / "C*"], bias_columns=["a.bias"])
    assert len(found.series.values) == 2000
    rows = window_files(
        tmp_path, others=lambda phi: {"odd": np.full(len(phi), np.nan), "b.bias": np.full(len(phi), np.inf)}
    )
    table = write_windows(tmp_path / "w.csv", rows)
    assert not read([], None, ["column:phi"], TEMPERATURE, windows=table).doubts
    with pytest.raises(InputError, match="kappa is in kcal/mol"):
        read([], None, ["column:phi"], TEMPERATURE, windows=write_windows(tmp_path / "k.csv", rows, kappa=1 / 4.184))


def test_windows_of_a_coordinate_beside_the_surface_are_recognised(tmp_path):
    """Restraints on phi, a surface over psi: along psi alone the bias would only scatter."""
    window_files(tmp_path, others=lambda phi: {"psi": np.random.default_rng(1).normal(size=len(phi))})
    sources = {"colvar": [tmp_path / "w*.dat"], "bias_columns": ["restraint.bias"]}
    with pytest.raises(InputError, match="as in umbrella windows"):
        read([], None, ["column:psi"], TEMPERATURE, **sources)


def well_tempered(n_hills, *, seed=0, gamma=8.0, height=1.2, width=0.35, frames_per_hill=10, crash=0, lost=0):
    """Metadynamics of independent draws: hills, frames with the bias as it was, and c(t) of each.

    After a crash it goes on from a checkpoint so many hills before, which act nevertheless.
    """
    rng, grid = np.random.default_rng(seed), np.linspace(-np.pi, np.pi, 361)[:-1]
    v, f = np.zeros(360), energy(grid)
    rows, frames = [], []
    for k in range(n_hills):
        density = np.exp(-(f + v) / KT)
        cumulative = np.cumsum(density)
        x = grid[np.searchsorted(cumulative, rng.uniform(0, cumulative[-1], frames_per_hill))]
        x = wrapped(x + rng.uniform(-0.5, 0.5, frames_per_hill) * (grid[1] - grid[0]))
        bias = np.interp(x, np.append(grid, np.pi), np.append(v, v[0]))
        offset = KT * (np.logaddexp.reduce(gamma / (gamma - 1) * v / KT) - np.logaddexp.reduce(v / (gamma - 1) / KT))
        at = k - lost if crash and k >= crash else k
        for i in range(frames_per_hill):
            frames.append((0.1 * (frames_per_hill * at + i + 1), x[i], bias[i], bias[i] - offset))
        own = height * np.exp(-bias[-1] / ((gamma - 1) * KT))
        rows.append((0.1 * frames_per_hill * (at + 1), x[-1], width, own * gamma / (gamma - 1), gamma))
        v += own * np.exp(-0.5 * (wrapped(grid - x[-1]) / width) ** 2)
    return np.array(rows), np.array(frames)


def hills_text(rows, fields="time phi sigma_phi height biasf", kernel="gaussian"):
    head = [f"#! FIELDS {fields}", "#! SET multivariate false", f"#! SET kerneltype {kernel}"]
    head += ["#! SET min_phi -pi", "#! SET max_phi pi"]
    return "\n".join([*head, *(" ".join(f"{x:.9f}" for x in row) for row in rows)]) + "\n"


@pytest.fixture(scope="module")
def metadynamics(tmp_path_factory):
    folder = tmp_path_factory.mktemp("metadynamics")
    hills, frames = well_tempered(600)
    (folder / "HILLS").write_text(hills_text(hills))
    columns = dict(zip(("phi", "metad.bias", "metad.rbias"), frames[:, 1:].T, strict=True))
    (folder / "COLVAR").write_text(colvar_text(columns, every=0.1, start=0.1))
    return folder, hills, frames


def test_hills_give_the_bias_of_each_frame_and_its_offset(metadynamics):
    folder, _, frames = metadynamics
    hills = read_hills([folder / "HILLS"])
    logs = hills_log_weights(hills, frames[:, 1:2], frames[:, 0], TEMPERATURE)
    late = frames[:, 0] > 60.5
    assert KT * logs[late] == pytest.approx(frames[late, 3], abs=0.15) and np.isneginf(logs[~late][:590]).all()
    assert hills.bias_factor == pytest.approx(8.0) and hills.heights[0] == pytest.approx(1.2)


def direct(hills, values, times):
    """The definition of V - c(t), hill by hill."""
    gamma = hills.bias_factor
    axes, everywhere = [], np.concatenate([hills.centres, values])
    for places, period in zip(everywhere.T, hills.periods, strict=True):
        low, high = (-period / 2, period / 2) if np.isfinite(period) else (places.min(), places.max())
        axes.append(np.linspace(low, high, 60 if len(hills.names) == 2 else 300, endpoint=not np.isfinite(period)))
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))

    def potential(places, k):
        total = np.zeros(len(places))
        for centre, width, height in zip(hills.centres[:k], hills.widths[:k], hills.heights[:k], strict=True):
            d = places - centre
            d -= np.where(np.isfinite(hills.periods), np.nan_to_num(hills.periods, posinf=1.0), 0.0) * np.round(
                d / np.where(np.isfinite(hills.periods), hills.periods, 1.0)
            )
            half = 0.5 * ((d / width) ** 2).sum(axis=1)
            edge = np.exp(-6.25)
            kernel = np.maximum((np.exp(-half) - edge) / (1 - edge), 0) if hills.stretched else np.exp(-half)
            total += height * kernel
        return total

    logs = []
    for place, time in zip(values, times, strict=True):
        k = int((hills.times < time).sum())
        v = potential(grid, k)
        above, below = (1.0, 0.0) if np.isinf(gamma) else (gamma / (gamma - 1), 1 / (gamma - 1))
        offset = KT * (np.logaddexp.reduce(above * v / KT) - np.logaddexp.reduce(below * v / KT))
        logs.append((potential(place[None], k)[0] - offset) / KT)
    return np.array(logs)


@pytest.mark.parametrize("kernel", ["gaussian", "stretched-gaussian"])
@pytest.mark.parametrize("names", [["phi"], ["x"], ["phi", "psi"], ["x", "y"], ["x", "phi"]])
@pytest.mark.parametrize("gamma", [8.0, -1.0])
def test_the_bias_of_hills_is_that_of_their_definition(tmp_path, kernel, names, gamma):
    """One or two variables, with and without periods, well-tempered and plain."""
    rng, d = np.random.default_rng(0), len(names)
    centres = rng.uniform(-2.5, 2.5, (40, d))
    lines = [f"#! FIELDS time {' '.join(names)} {' '.join('sigma_' + name for name in names)} height biasf"]
    lines += [f"#! SET kerneltype {kernel}"]
    lines += [
        f"#! SET {end}_{name} {pi}" for name in names if name[0] == "p" for end, pi in (("min", "-pi"), ("max", "pi"))
    ]
    factor = gamma / (gamma - 1) if gamma > 1 else 1.0
    for k, centre in enumerate(centres):
        widths = rng.uniform(0.5, 0.7, d)
        lines.append(" ".join(f"{x:.9f}" for x in (k + 1, *centre, *widths, factor * rng.uniform(0.5, 2.0), gamma)))
    (tmp_path / "HILLS").write_text("\n".join(lines) + "\n")
    hills = read_hills([tmp_path / "HILLS"])
    values, times = rng.uniform(-3, 3, (12, d)), rng.uniform(6, 45, 12)
    found, expected = hills_log_weights(hills, values, times, TEMPERATURE), direct(hills, values, times)
    assert np.ptp(expected) > 2 and np.abs(found - expected).max() < 0.04


def multivariate_text(rows, factors, names=("phi", "x")):
    """HILLS of adaptive Gaussians; rows of time, centres, height; lower Cholesky factors of shape=(n, 2, 2)."""
    first, second = names
    sigmas = f"sigma_{first}_{first} sigma_{second}_{second} sigma_{second}_{first}"
    lines = [f"#! FIELDS time {first} {second} {sigmas} height biasf", "#! SET multivariate true"]
    lines += [f"#! SET min_{first} -pi", f"#! SET max_{first} pi"]
    for (time, a, b, height), root in zip(rows, factors, strict=True):
        numbers = (time, a, b, root[0, 0], root[1, 1], root[1, 0], height, 8.0)
        lines.append(" ".join(f"{number:.9f}" for number in numbers))
    return "\n".join(lines) + "\n"


def test_hills_with_covariances_are_summed(tmp_path):
    """Adaptive Gaussians, against their definition by the covariances themselves; those left out would show."""
    rng, n = np.random.default_rng(1), 30
    rows = np.column_stack([np.arange(1, n + 1), rng.uniform(-3, 3, n), rng.uniform(-1, 1, n), rng.uniform(1, 2, n)])
    correlated = np.array([[0.5, 0.0], [0.4, 0.3]])
    (tmp_path / "HILLS").write_text(multivariate_text(rows, np.repeat(correlated[None], n, axis=0)))
    hills = read_hills([tmp_path / "HILLS"])
    places = np.column_stack([rng.uniform(-3, 3, 8), rng.uniform(-1, 1, 8)])
    bias = hills_bias(hills, places, np.full(8, n + 0.5), TEMPERATURE).energies
    offsets = places[:, None] - rows[:, 1:3]
    offsets[..., 0] = wrapped(offsets[..., 0])

    def summed(covariance):
        half = 0.5 * np.einsum("pni,ij,pnj->pn", offsets, np.linalg.inv(covariance), offsets)
        return (rows[:, 3] * 7 / 8 * np.exp(-half)).sum(axis=1)

    covariance = correlated @ correlated.T
    assert np.abs(bias - summed(covariance)).max() < 0.02
    assert np.abs(bias - summed(np.diag(np.diag(covariance)))).max() > 0.3
    assert hills.narrowest == pytest.approx(np.linalg.inv(covariance).diagonal() ** -0.5)


def test_hills_in_batches_are_as_exact_as_one_by_one(metadynamics, monkeypatch):
    folder, _, frames = metadynamics
    hills = read_hills([folder / "HILLS"])
    exact = hills_log_weights(hills, frames[:, 1:2], frames[:, 0], TEMPERATURE)
    monkeypatch.setattr("openmm_gancl.trajectories.hills.MAX_UPDATES", 200)
    batched = hills_log_weights(hills, frames[:, 1:2], frames[:, 0], TEMPERATURE)
    exact, batched = (np.where(np.isneginf(logs), 0.0, logs) for logs in (exact, batched))
    # c(t) goes up by a step at each hill, which lies up to a tenth of a kT from the line between two updates
    assert np.abs(batched - exact).max() < 0.15 and np.abs(batched - exact).mean() < 0.03


def test_hills_undo_a_bias_that_grows_and_its_column_alone_is_a_doubt(metadynamics):
    folder, _, _ = metadynamics
    sources = {"colvar": [folder / "COLVAR"]}
    by_hills = analysed(["column:phi"], hills=[folder / "HILLS"], **sources)
    alone = analysed(["column:phi"], hills=[folder / "HILLS"])
    rbias = analysed(["column:phi"], bias_columns=["metad.rbias"], **sources)
    growing = analysed(["column:phi"], bias_columns=["metad.bias"], **sources)
    assert deviation(by_hills.surface)[0] < 0.12 and deviation(rbias.surface)[0] < 0.12
    assert not by_hills.doubts and not rbias.doubts
    assert alone.blocks.n_frames == 600 and deviation(alone.surface)[0] < 0.35
    assert (
        "metad.bias still grows" in growing.doubts[0]
        and "rbias" in growing.doubts[0]
        and "`hills`" in growing.doubts[0]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fields": "time phi sigma_phi height logweight"}, "holds no hills"),
        ({"fields": "time phi sigma_psi height biasf"}, "sigma columns are not understood"),
        ({"rows": lambda rows: np.concatenate([rows, rows])}, "starts anew within a file"),
        (
            {
                "rows": lambda rows: (
                    rows * [1, 1, 1, 1, 0] + np.arange(len(rows))[:, None] * [0, 0, 0, 0, 0.1] + [0, 0, 0, 0, 2]
                )
            },
            "bias factor changes",
        ),
    ],
)
def test_hills_that_cannot_be_summed_are_refused(metadynamics, tmp_path, change, message):
    rows = change.get("rows", lambda rows: rows)(metadynamics[1][:50])
    (tmp_path / "HILLS").write_text(hills_text(rows, change.get("fields", "time phi sigma_phi height biasf")))
    with pytest.raises(InputError, match=message):
        read_hills([tmp_path / "HILLS"])


def test_columns_beside_hills_need_a_table(metadynamics):
    """They were dropped where trajectories came with hills and no COLVAR."""
    sources = {"hills": [metadynamics[0] / "HILLS"], "bias_columns": ["uwall.bias"]}
    with pytest.raises(InputError, match="no file that contains them: give `colvar`"):
        read(["x.xtc"], "top.pdb", ["phi:2"], TEMPERATURE, **sources)


def test_frames_of_the_filling_alone_are_refused(metadynamics, tmp_path):
    folder = metadynamics[0]
    lines = (folder / "COLVAR").read_text().splitlines(keepends=True)
    (tmp_path / "COLVAR").write_text("".join(lines[: len(lines) // 20]))
    with pytest.raises(InputError, match=r"first tenth of the hills .* give those of the whole run"):
        read([], None, ["column:phi"], TEMPERATURE, hills=[folder / "HILLS"], colvar=[tmp_path / "COLVAR"])


def test_hills_of_another_run_are_refused(metadynamics):
    folder, _, frames = metadynamics
    hills = read_hills([folder / "HILLS"])
    check_deposits(hills, frames[:, 1:2], frames[:, 0])
    with pytest.raises(InputError, match="give the HILLS of this run"):
        check_deposits(hills, wrapped(frames[:, 1:2] + 2.0), frames[:, 0])


@pytest.mark.parametrize("gamma", [8.0, 1e6])
def test_hills_from_after_a_checkpoint_act(tmp_path, gamma):
    """PLUMED reads the whole file when it restarts, while the frames from after the checkpoint are written again."""
    rows, frames = well_tempered(600, gamma=gamma, height=1.2 if gamma < 10 else 0.2, crash=350, lost=40)
    (tmp_path / "HILLS").write_text(hills_text(rows))
    text = colvar_text({"phi": frames[:, 1], "metad.bias": frames[:, 2]})
    head = [line for line in text.splitlines() if line.startswith("#")]
    lines = [" ".join(f"{x:.6f}" for x in row[:3]) for row in frames]
    (tmp_path / "COLVAR").write_text("\n".join([*head, *lines]) + "\n")
    hills = read_hills([tmp_path / "HILLS"])
    assert len(hills.times) == 600
    late = frames[3500:]
    bias = hills_bias(hills, late[:, 1:2], late[:, 0], TEMPERATURE)
    assert bias.energies == pytest.approx(late[:, 2], abs=0.15)
    sources = {"hills": [tmp_path / "HILLS"], "colvar": [tmp_path / "COLVAR"]}
    analysis = analysed(["column:phi"], **sources)
    assert not analysis.doubts and deviation(analysis.surface)[1] < 1.6
    # the twin: without them the bias of the frames is another one
    (tmp_path / "HILLS").write_text(hills_text(np.delete(rows, slice(310, 350), axis=0)))
    missing = hills_bias(read_hills([tmp_path / "HILLS"]), late[:, 1:2], late[:, 0], TEMPERATURE)
    assert np.median(np.abs(missing.energies - late[:, 2])) > 1.0


CHANGES = {
    "of two walkers one": (lambda rows: rows[::2], "hills of this run and of no other, all of them"),
    "after a restart": (lambda rows: rows[300:], "hills of this run and of no other, all of them"),
    "in kcal/mol": (lambda rows: rows / [1, 1, 1, 4.184, 1], "both files in one unit"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_hills_are_compared_with_the_bias_that_the_run_wrote(metadynamics, tmp_path, name, monkeypatch):
    folder, rows, frames = metadynamics
    change, message = CHANGES[name]
    (tmp_path / "HILLS").write_text(hills_text(change(rows)))
    with pytest.raises(InputError, match=rf"metad.bias of the frames is .* kJ/mol in the median.* {message}"):
        read([], None, ["column:phi"], TEMPERATURE, hills=[tmp_path / "HILLS"], colvar=[folder / "COLVAR"])
    # the twin: where the run wrote no bias and heights are not looked at there is a number, and it is wrong
    (tmp_path / "COLVAR").write_text(colvar_text({"phi": frames[:, 1]}, every=0.1, start=0.1))
    monkeypatch.setattr("openmm_gancl.trajectories.hill_heights.MIN_HILLS", 10**9)
    analysis = analysed(["column:phi"], hills=[tmp_path / "HILLS"], colvar=[tmp_path / "COLVAR"])
    assert deviation(analysis.surface)[0] > 0.25
    assert ("begin after the frames" in " ".join(analysis.doubts)) == (name == "after a restart")


def test_hills_without_the_period_of_their_variable_are_refused(metadynamics, tmp_path):
    folder, rows, _ = metadynamics
    text = "\n".join(line for line in hills_text(rows).splitlines() if not line.endswith("pi"))
    (tmp_path / "HILLS").write_text(text + "\n")
    with pytest.raises(InputError, match=r"tells no period of phi, which is 6.283 .* add its lines #! SET min_phi"):
        read([], None, ["column:phi"], TEMPERATURE, hills=[tmp_path / "HILLS"], colvar=[folder / "COLVAR"])


def test_plain_hills_are_not_rescaled_and_stretched_ones_reach_zero(tmp_path):
    rows = [(1.0, 0.5, 0.3, 2.0, -1.0)]
    for kernel, far in (("gaussian", 2.0 * np.exp(-0.5 * 16)), ("stretched-gaussian", 0.0)):
        (tmp_path / "HILLS").write_text(hills_text(rows, kernel=kernel))
        hills = read_hills([tmp_path / "HILLS"])
        assert np.isinf(hills.bias_factor) and hills.heights.tolist() == [2.0]
        places = np.array([[0.5], [0.5 + 4 * 0.3], [0.5]])
        logs = KT * hills_log_weights(hills, places, np.array([2.0, 2.0, 0.5]), TEMPERATURE)
        assert logs[0] - logs[1] == pytest.approx(2.0 - far, abs=1e-3) and logs[2] == -np.inf


def opes_text(phi, weights, width, state=False):
    """Kernels as PLUMED writes them: the height holds the weight."""
    fields = "time phi sigma_phi height" + ("" if state else " logweight")
    head = [f"#! FIELDS {fields}", *(["#! SET action OPES_METAD_state"] if state else [])]
    head += ["#! SET biasfactor 10", f"#! SET epsilon {np.exp(-25.0 / (0.9 * KT)):.9g}", "#! SET kernel_cutoff 5"]
    head += ["#! SET compression_threshold 1", "#! SET min_phi -pi", "#! SET max_phi pi"]
    rows = [
        f"{i} {x:.6f} {width:.6f} {np.exp(w):.9f}" + ("" if state else f" {w:.6f}")
        for i, (x, w) in enumerate(zip(phi, weights, strict=True))
    ]
    return "\n".join([*head, *rows]) + "\n"


def test_kernels_of_plumed_make_the_bias_of_opes(tmp_path):
    """V = (1 - 1 / gamma) kT log(P / Z + epsilon) of P the density: up to a constant -(1 - 1 / gamma) F."""
    phi = drawn(2000, 3, energy)
    grid = np.linspace(-np.pi, np.pi, 91)[:-1]
    width = 0.12
    for state, name in ((False, "KERNELS"), (True, "STATE")):
        (tmp_path / name).write_text(opes_text(phi, np.zeros(len(phi)), width, state))
    direct = opes_bias(tmp_path / "STATE", temperature=TEMPERATURE, periods=[2 * np.pi])
    compressed = opes_bias(tmp_path / "KERNELS", temperature=TEMPERATURE, periods=[2 * np.pi])
    assert len(compressed.positions) < 60 < len(direct.positions) == 2000
    expected = -0.9 * energy(grid)
    low = energy(grid) - energy(grid).min() < 4 * KT
    for bias, tolerance in ((direct, 0.25), (compressed, 0.45)):
        difference = (bias.energies(grid[:, None]) - expected)[low] / KT
        assert np.abs(difference - np.median(difference)).max() < 2 * tolerance
        assert bias.barrier == pytest.approx(25.0, rel=1e-3) and bias.prefactor == pytest.approx(0.9 * KT)


def test_the_last_of_several_states_holds(tmp_path):
    first, last = opes_text([0.5], [0.0], 0.2, True), opes_text([1.5, 2.0], [0.0, 0.0], 0.2, True)
    (tmp_path / "STATE").write_text(first + last)
    bias = opes_bias(tmp_path / "STATE", temperature=TEMPERATURE, periods=[2 * np.pi])
    assert bias.positions[:, 0].tolist() == [1.5, 2.0]


@pytest.mark.parametrize(("factor", "wall"), [(1.0, 0.0), (1 / 4.184, 0.0), (-1.0, 0.0), (1.0, 1.0)])
def test_a_state_is_compared_with_the_bias_that_the_run_wrote(tmp_path, factor, wall):
    """The same up to a constant; in another unit, of another run or with a wall beside it a doubt."""
    (tmp_path / "STATE").write_text(opes_text(drawn(300, 3, energy), np.zeros(300), 0.2, True))
    static = opes_bias(tmp_path / "STATE", temperature=TEMPERATURE, periods=[2 * np.pi])
    phi = drawn(1000, 5, lambda x: 0.2 * energy(x))
    columns = {"phi": phi, "opes.bias": factor * static.energies(phi[:, None]) - 7.0}
    columns |= {"wall.bias": wall * np.where(phi > 1, 5 * (phi - 1) ** 2, 0.0)}
    (tmp_path / "COLVAR").write_text(colvar_text(columns))
    doubts = read([], None, ["column:phi"], TEMPERATURE, colvar=[tmp_path / "COLVAR"], bias=static).doubts
    expected = ["wall.bias"] * bool(wall) or ["opes.bias"] * (factor != 1.0)
    assert [name in doubt for name, doubt in zip(expected, doubts, strict=True)] == [True] * len(expected)


def test_files_that_hold_no_kernels_are_refused(tmp_path):
    (tmp_path / "COLVAR").write_text(colvar_text({"phi": np.zeros(3)}))
    with pytest.raises(InputError, match="holds no kernels of OPES"):
        opes_bias(tmp_path / "COLVAR", temperature=TEMPERATURE, periods=[2 * np.pi])
    (tmp_path / "KERNELS").write_text(opes_text([0.5], [0.0], 0.2))
    with pytest.raises(InputError, match="holds kernels on phi, named are 2 variables"):
        opes_bias(tmp_path / "KERNELS", temperature=TEMPERATURE, periods=[2 * np.pi, np.inf])


def kernels_of_two(path, names, centres):
    head = [f"#! FIELDS time {' '.join(names)} {' '.join(f'sigma_{name}' for name in names)} height logweight"]
    head += ["#! SET biasfactor 10", "#! SET epsilon 1e-4", "#! SET compression_threshold 1"]
    head += [f"#! SET {end}_{name} {pi}" for name in names for end, pi in (("min", "-pi"), ("max", "pi"))]
    rows = [f"{i} {a:.6f} {b:.6f} 0.3 0.5 1 0" for i, (a, b) in enumerate(centres)]
    path.write_text("\n".join([*head, *rows]) + "\n")
    return path


def test_kernels_find_their_variables_by_name(tmp_path):
    """Whatever the order of the coordinates of the surface."""
    phi, psi = drawn(600, 1, energy), drawn(600, 2, lambda x: 4 * np.cos(x))
    columns = {"phi": phi, "psi": psi}
    text = colvar_text(columns).replace("min_phi -pi", "min_phi -pi\n#! SET min_psi -pi\n#! SET max_psi pi")
    (tmp_path / "COLVAR").write_text(text)
    path = kernels_of_two(tmp_path / "KERNELS", ("phi", "psi"), zip(phi[:200], psi[:200], strict=True))

    def bias(periods):
        return opes_bias(path, temperature=TEMPERATURE, periods=periods)

    logs = [
        read([], None, cvs, TEMPERATURE, colvar=[tmp_path / "COLVAR"], bias=bias).log_weights
        for cvs in (["column:phi", "column:psi"], ["column:psi", "column:phi"])
    ]
    assert logs[0] == pytest.approx(logs[1]) and np.ptp(logs[0]) > 1
    right = opes_bias(path, temperature=TEMPERATURE, periods=[2 * np.pi] * 2)
    assert KT * logs[0] == pytest.approx(right.energies(np.stack([phi, psi], axis=1)), abs=1e-3)


def test_kernels_in_another_unit_are_refused(tmp_path):
    phi = drawn(300, 1, energy)
    (tmp_path / "KERNELS").write_text(opes_text(phi[:100], np.zeros(100), 0.2))
    far = tmp_path / "FAR"
    lines = opes_text(phi[:100], np.zeros(100), 0.2).splitlines()
    far.write_text("\n".join(line for line in lines if "min_phi" not in line and "max_phi" not in line))

    def undone(path, values, suffix):
        np.save(tmp_path / "x.npy", values)

        def bias(periods):
            return opes_bias(path, temperature=TEMPERATURE, periods=periods)

        return read([], None, [f"npy:{tmp_path / 'x.npy'}{suffix}"], TEMPERATURE, bias=bias)

    assert np.ptp(undone(tmp_path / "KERNELS", phi, ":2pi").log_weights) > 1
    with pytest.raises(InputError, match=r"the kernels have a period of 6.28319, x of the frames 360"):
        undone(tmp_path / "KERNELS", phi * 180 / np.pi, ":360")
    with pytest.raises(InputError, match=r"% of the frames lie where the bias on x has no kernel"):
        undone(far, 10 * np.abs(phi) + 40, ":none")


WEIGHTS = {
    "normalised": lambda v: np.exp(v / KT) / np.exp(v / KT).sum(),
    "of mean one": lambda v: np.exp(v / KT) / np.exp(v / KT).mean(),
    "at most one": lambda v: np.exp((v - v.max()) / KT),
    "as they are": lambda v: np.exp(3 * v / KT),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_not_taken_for_logarithms(tmp_path, name):
    phi, v = biased()
    np.save(tmp_path / "phi.npy", phi)
    np.savetxt(tmp_path / "w.dat", WEIGHTS[name](v))
    cv = [f"npy:{tmp_path / 'phi.npy'}:2pi"]
    with pytest.raises(InputError, match="as weights are, not their logarithms: give them by `weights`"):
        read([], None, cv, TEMPERATURE, log_weights=tmp_path / "w.dat")
    if name != "as they are":
        observed = read([], None, cv, TEMPERATURE, weights=tmp_path / "w.dat")
        assert deviation(analyse(observed, bins=48, discard=0, n_bootstrap=20).surface)[0] < LIMIT
    np.savetxt(tmp_path / "log.dat", v / KT)
    assert read([], None, cv, TEMPERATURE, log_weights=tmp_path / "log.dat").log_weights == pytest.approx(v / KT)
    np.savetxt(tmp_path / "less.dat", v / KT - 5)
    with pytest.raises(InputError, match="negative numbers, as logarithms do: give them by `log_weights`"):
        read([], None, cv, TEMPERATURE, weights=tmp_path / "less.dat")
    with pytest.raises(InputError, match="all weights are zero"):
        read([], None, cv, TEMPERATURE, weights=np.zeros(len(phi)))


def test_a_static_bias_of_hidden_variables_raises_no_alarm():
    """V(phi, psi) along phi alone scatters, but neither grows nor differs from run to run."""
    rng = np.random.default_rng(5)
    phi, psi = rng.uniform(-np.pi, np.pi, (2, 6000))
    v = 4 * np.cos(phi) + 3 * np.cos(psi)
    found = bias_differences(phi[:, None], np.array([2 * np.pi]), v, np.array([0, 2000, 4000, 6000]))
    assert not found.grows and not found.one_for_each_run and found.within > 1
    drift = v + np.tile(np.linspace(0, 3, 2000), 3)
    assert bias_differences(phi[:, None], np.array([2 * np.pi]), drift, np.array([0, 2000, 4000, 6000])).grows
    own = restraint(phi, np.repeat([-1.0, 0.0, 1.0], 2000)) / KT
    assert bias_differences(phi[:, None], np.array([2 * np.pi]), own, np.array([0, 2000, 4000, 6000])).one_for_each_run


def test_a_sum_of_biases_and_its_parts_are_one(tmp_path):
    """As of PLUMED's COMBINE: neither counts twice, and neither is left over; what is no part of it is."""
    phi, v = biased(1000)
    wall = np.where(phi > 1, 5 * (phi - 1) ** 2, 0.0)
    columns = {"phi": phi, "metad.bias": v, "uwall.bias": wall, "total.bias": v + wall}
    (tmp_path / "COLVAR").write_text(colvar_text(columns))
    sources = {"cvs": "column:phi", "temperature": TEMPERATURE, "colvar": tmp_path / "COLVAR"}
    whole = read([], None, bias_columns=["total.bias"], **sources)
    parts = read([], None, bias_columns=["metad.bias", "uwall.bias"], **sources)
    assert not whole.doubts and not parts.doubts
    assert whole.log_weights == pytest.approx(parts.log_weights, abs=1e-5)
    for columns in (["*.bias"], ["total.bias", "uwall.bias"]):
        with pytest.raises(InputError, match=r"total.bias is the sum of metad.bias and uwall.bias: give it alone"):
            read([], None, bias_columns=columns, **sources)
    assert len(read([], None, bias_columns=["metad.bias"], **sources).doubts) == 2


def test_weights_that_are_all_alike_undo_no_bias(tmp_path):
    phi, v = biased(1000)
    sources = {"cvs": "column:phi", "temperature": TEMPERATURE, "colvar": tmp_path / "COLVAR"}
    for columns, n in (({"phi": phi, "metad.bias": v}, 1), ({"phi": phi}, 0)):
        (tmp_path / "COLVAR").write_text(colvar_text(columns))
        doubts = read([], None, weights=np.full(len(phi), 3.0), **sources).doubts
        assert len(doubts) == n and all("metad.bias, which varies by" in doubt for doubt in doubts)


@pytest.mark.parametrize("kind", ["bias", "weights"])
def test_a_bias_of_other_rows_is_told(tmp_path, kind):
    """Or of other variables, which the frames cannot tell from it; a column of these does."""
    phi, v = biased(1000)
    other, psi = np.roll(v, 300), np.roll(phi, 300)
    for columns, bias, said in (({}, v, False), ({}, other, True), ({"psi": psi}, other, False)):
        text = colvar_text({"phi": phi, **columns, "metad.bias": bias})
        (tmp_path / "COLVAR").write_text(text if kind == "bias" else text.replace("metad.bias", "number"))
        if kind == "weights":
            (tmp_path / "COLVAR").write_text(colvar_text({"phi": phi, **columns}))
        undone = {"bias_columns": ["metad.bias"]} if kind == "bias" else {"log_weights": bias / KT}
        found = read([], None, "column:phi", TEMPERATURE, colvar=tmp_path / "COLVAR", **undone)
        assert any("nothing to do with phi" in note for note in found.notes) == said
        assert not found.doubts


@pytest.mark.parametrize("name", ["bias (kJ/mol)", "Vbias_energy", "E_metadynamics1", "rbias", "E_pot"])
def test_names_of_biases(tmp_path, name):
    """Of other programs too; a potential energy and a bias that is undone in part are none that is left over."""
    phi, v = biased(1000)
    lines = [f"{i},{x:.6f},{y:.6f}" for i, (x, y) in enumerate(zip(phi, v, strict=True))]
    (tmp_path / "c.csv").write_text("\n".join([f"step,phi,{name}", *lines]) + "\n")
    doubts = read([], None, "column:phi:2pi", TEMPERATURE, colvar=tmp_path / "c.csv").doubts
    assert [f"{name}, which varies by" in doubt for doubt in doubts] == [True] * (name not in ("rbias", "E_pot"))


def test_a_coordinate_is_no_bias(tmp_path):
    phi, v = biased(100)
    np.savetxt(tmp_path / "c.dat", np.column_stack([phi, v]))
    sources = {"cvs": "column:1:2pi", "temperature": TEMPERATURE, "colvar": tmp_path / "c.dat"}
    assert np.ptp(read([], None, bias_columns="2", **sources).log_weights) > 1
    with pytest.raises(InputError, match="1 is a collective variable here, and no bias"):
        read([], None, bias_columns="1", **sources)


@pytest.mark.parametrize("factor", [1.0, 1e4])
def test_a_broken_row_is_named(tmp_path, factor):
    """Its weight would leave zeros of all others."""
    phi, v = biased(1000)
    v[777] *= factor
    (tmp_path / "COLVAR").write_text(colvar_text({"phi": phi, "metad.bias": v}))
    observations = read([], None, "column:phi", TEMPERATURE, colvar=tmp_path / "COLVAR", bias_columns="metad.bias")
    if factor == 1.0:
        assert not analyse(observations, discard=0, n_bootstrap=10).doubts
        return
    with pytest.raises(InputError, match=r"frame 777 of trajectory 1 \(phi = .* weighs e\^"):
        analyse(observations, discard=0)


@pytest.mark.parametrize(("width", "refused"), [(0.03, False), (0.01, True)])
def test_hills_too_narrow_for_a_grid_are_refused(tmp_path, width, refused):
    """Of 0.01 over 6.2, that are kept on 300 points; wider ones are summed right."""
    rng, n = np.random.default_rng(2), 400
    centres = rng.uniform(-3.1, 3.1, (n, 2))
    rows = [f"{i + 1} {a:.6f} {b:.6f} {width} {width} 1.2 1" for i, (a, b) in enumerate(centres)]
    header = "#! FIELDS time x y sigma_x sigma_y height biasf\n#! SET multivariate false\n"
    (tmp_path / "HILLS").write_text(header + "\n".join(rows) + "\n")
    hills = read_hills([tmp_path / "HILLS"])
    places = centres[:50] + 0.5 * width * rng.normal(size=(50, 2))
    if refused:
        with pytest.raises(InputError, match="are too narrow beside the"):
            hills_bias(hills, places, np.full(50, n + 1.0), TEMPERATURE)
        return
    offsets = (places[:, None] - centres) / width
    exact = 1.2 * np.exp(-0.5 * (offsets**2).sum(axis=2)).sum(axis=1)
    found = hills_bias(hills, places, np.full(50, n + 1.0), TEMPERATURE).energies
    assert np.abs(found - exact).max() < 0.05
