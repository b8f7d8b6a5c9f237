"""What undoes the bias of frames: weights, columns, hills or a static bias, each compared with what is known of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..units import FloatArray, IntArray, thermal_energy
from .frames import Frames
from .inputs import InputUnits
from .periods import check_period
from .series import FrameTimes, Series, is_normalised, read_log_weights, read_weights
from .tables import is_bias, is_variable

if TYPE_CHECKING:
    from .colvar import Colvar
    from .kernel_bias import KernelBias
    from .static_bias import StaticBias

MAX_UNCOVERED = 0.5
"""Of the frames, that may lie where the bias of their run has no kernel."""


MIN_DIFFERENCE, MAX_DIFFERENCE = 1.0, 0.2
"""kJ/mol, and of its own deviations, by which a bias that was written may differ from one that is computed."""

MIN_CORRELATION, MAX_WEIGHT_DEVIATION = 0.99, 0.05
"""Of log-weights with a bias that they are made of, and of their factor from one."""


@dataclass(frozen=True)
class Undone:
    """What undoes the bias of frames."""

    log_weights: FloatArray | None = None
    bias_columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def given_log_weights(
    given: FloatArray | str | Path | None,
    weights: FloatArray | str | Path | None,
    table: "Colvar | None",
    frames: Frames,
    series: Series,
    stride: int,
) -> FloatArray | None:
    """Of the frames that are taken, from logarithms or weights; None where none are given."""
    n, step = len(series.values), stride if series.n_files == 1 else 1
    if table is not None and table.reordered and not (given is None and weights is None):
        raise InputError(
            f"the rows of {table.path} are not in the order of their times, and the weights may be in either order: "
            "sort both, or give the bias as a column of the table"
        )
    time = series.time
    if time is None and table is not None and frames.rows is not None and table.time is not None:
        time = table.time[frames.rows]
    times = None if time is None else FrameTimes(np.asarray(time, dtype=float), series.starts)
    if weights is not None:
        return read_weights(weights, n, step, times)
    return None if given is None else read_log_weights(given, n, step, times)


def weight_doubts(log_weights: FloatArray, written: dict[str, FloatArray], kT: float) -> tuple[str, ...]:
    """Log-weights that are a bias which a table holds, but in another unit or of the other sign.

    Args:
        log_weights: shape=(n,), of the frames.
        written: biases, kJ/mol, by their columns' names.
        kT: kJ/mol.
    """
    known = np.isfinite(log_weights)
    sums = dict(written) | ({" + ".join(written): np.sum(list(written.values()), axis=0)} if len(written) > 1 else {})
    for name, energies in sums.items():
        logs, bias = log_weights[known], energies[known] / kT
        if not (len(logs) > 2 and logs.std() > 0 and bias.std() > 0):
            continue
        slope = float(np.cov(logs, bias)[0, 1] / bias.var(ddof=1))
        if abs(np.corrcoef(logs, bias)[0, 1]) > MIN_CORRELATION and abs(slope - 1.0) > MAX_WEIGHT_DEVIATION:
            return (
                f"the log-weights are {slope:.3g} times {name} over kT: give its energy over kT, with its sign, or "
                f"`bias_columns={name.replace(' + ', ',')}` instead",
            )
    return ()


def _check_kernels(static: "KernelBias", energies: FloatArray, series: Series, acting: Sequence[int]) -> None:
    """Refuse kernels in another unit than the frames: of another period, or elsewhere."""
    names = ", ".join(series.names[i] for i in acting)
    for own, period in zip(static.periods, series.periods[list(acting)], strict=True):
        if np.isfinite(own) != np.isfinite(period) or (np.isfinite(own) and not np.isclose(own, period, rtol=1e-3)):
            raise InputError(
                f"the kernels have a period of {own:g}, {names} of the frames {period:g}: give both in one unit"
            )
    if (part := static.uncovered(energies)) > MAX_UNCOVERED:
        raise InputError(
            f"{100 * part:.0f} % of the frames lie where the bias on {names} has no kernel: check that both are of one "
            "run and in one unit, and the order of `bias_cvs`"
        )


def _fits_turned(static: "StaticBias", values: FloatArray, energies: FloatArray, periods: FloatArray) -> bool:
    """Whether frames of two variables tell that these are in the other order."""
    if values.shape[1] != 2 or periods[0] != periods[1]:
        return False
    from .bias_evidence import decide, log_likelihoods

    low, high = values.min(), values.max()
    axis = np.linspace(*((-periods[0] / 2, periods[0] / 2) if np.isfinite(periods[0]) else (low, high)), 49)[:-1]
    places = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    everywhere = static.energies(places)
    turned = static.energies(np.ascontiguousarray(values[:, ::-1]))
    found = decide([log_likelihoods(energies, everywhere), log_likelihoods(turned, everywhere)])
    return bool(found.decisive and found.best == 1)


def of_static_bias(
    bias: "StaticBias | Callable[[FloatArray], StaticBias]", series: Series, columns: tuple[int, ...], kT: float
) -> "Undone":
    """A bias that no longer changes, on the range and in the order that its frames fit."""
    from .kernel_bias import KernelBias
    from .static_bias import TabulatedBias, with_fitting_range

    static = bias(series.periods[list(columns)]) if callable(bias) else bias
    if not (hasattr(static, "n_variables") and hasattr(static, "energies")):
        raise InputError(
            f"`bias` is a {type(static).__name__}: give `metadynamics_bias(...)` or `opes_bias(...)`; energies of the "
            "frames go by `log_weights`, over kT"
        )
    acting = list(columns[: static.n_variables])
    if isinstance(static, KernelBias) and sorted(static.names) == sorted(series.names[i] for i in acting):
        acting = [acting[[series.names[i] for i in acting].index(name)] for name in static.names]
    values, note, doubt = np.asarray(series.values[:, acting], dtype=float), "", ""
    names = [series.names[i] for i in acting]
    if isinstance(static, TabulatedBias):
        static, note, doubt = with_fitting_range(static, values, names)
    energies = static.energies(values)
    if isinstance(static, KernelBias):
        _check_kernels(static, energies, series, acting)
    if _fits_turned(static, values, energies, series.periods[acting]):
        raise InputError(
            f"the frames fit the bias with its variables in the other order than {', '.join(names)}: "
            "name them in its own order by `bias_cvs`"
        )
    return Undone(energies / kT, notes=(note,) if note else (), doubts=(doubt,) if doubt else ())


def beside_static(undone: Undone, written: dict[str, FloatArray], series: Series, temperature: float) -> Undone:
    """The same with doubts about biases in a table that are not the one undone: of another state, or beside it."""
    from .bias_checks import unused_bias

    if undone.log_weights is None or not written:
        return undone
    mine = thermal_energy(temperature) * undone.log_weights
    late = np.arange(len(mine)) >= len(mine) // 2  # the bias may have grown before
    others = {}
    for name, energies in written.items():
        difference, own = (energies - mine)[late], energies[late]
        spread = np.median(np.abs(difference - np.median(difference)))
        if spread > max(MIN_DIFFERENCE, MAX_DIFFERENCE * np.median(np.abs(own - np.median(own)))):
            others[name] = energies
    found = unused_bias(others, (), temperature, series.values)
    return replace(undone, doubts=(*undone.doubts, *found.all))


def _all_columns(table: "Colvar", rows: IntArray) -> tuple[FloatArray, FloatArray]:
    """Every collective variable that a table holds, shape=(n, d), and their periods: what a bias may act on."""
    sound = [name for name in table.fields if is_variable(name) and table.is_sound(name)]
    names = [name for name in sound if np.ptp(table.column(name)[rows]) > 0]
    values = np.stack([table.column(name)[rows] for name in names], axis=1) if names else np.empty((len(rows), 0))
    return values, np.array([table.period(name) for name in names])


def unrelated_notes(undone: Undone, table: "Colvar | None", frames: Frames, series: Series) -> tuple[str, ...]:
    """A note on weights that have to do with nothing that is known of the frames: of other variables, or other rows."""
    from .bias_checks import follows

    if undone.log_weights is None:
        return ()
    spaces = [(np.asarray(series.values, dtype=float), series.periods)]
    if table is not None and frames.rows is not None:
        values, periods = _all_columns(table, frames.rows)
        spaces += [(values, periods), *((values[:, [i]], periods[[i]]) for i in range(len(periods)))]
    if any(follows(*space, undone.log_weights) for space in spaces):
        return ()
    what = " + ".join(undone.bias_columns) + " has" if undone.bias_columns else "the weights have"
    beside = " or the other columns" * (len(spaces) > 1)
    return (
        f"{what} nothing to do with {', '.join(series.names)}{beside}: right if the bias acts on other variables; else "
        "these rows are of other frames, or in another order",
    )


def written_biases(table: "Colvar | None", frames: Frames, units: InputUnits) -> dict[str, FloatArray]:
    """Biases that a COLVAR holds, kJ/mol, shape=(n,) each."""
    if table is None or frames.rows is None:
        return {}
    names = [name for name in table.fields if is_bias(name)]
    return {
        name: units.energy_of(name, table.units) * table.column(name)[frames.rows]
        for name in names
        if table.is_sound(name)
    }


def _check_sums(names: Sequence[str], written: dict[str, FloatArray]) -> None:
    """Refuse a bias together with a part of it.

    Raises:
        InputError: one is the sum of others.
    """
    from .bias_checks import parts_of

    for name in written.keys() & set(names):
        parts = parts_of(written[name], {other: bias for other, bias in written.items() if other != name})
        if set(parts) & set(names):
            raise InputError(f"{name} is the sum of {' and '.join(parts)}: give it alone, or these alone")


def _not_in(undone: Undone, written: dict[str, FloatArray], kT: float) -> dict[str, FloatArray]:
    """Biases that are neither parts nor sums of the columns that are undone."""
    from .bias_checks import parts_of

    if undone.log_weights is None or not undone.bias_columns:
        return written
    used = {name: bias for name, bias in written.items() if name in undone.bias_columns}
    others = {name: bias for name, bias in written.items() if name not in used}
    parts = parts_of(kT * undone.log_weights, others)
    return {name: bias for name, bias in others.items() if name not in parts and not parts_of(bias, used)}


def of_columns(
    table: "Colvar", columns: Sequence[str], units: InputUnits, frames: Frames, series: Series, temperature: float
) -> Undone:
    """The sum of bias columns, if it is one function of the collective variables for all runs."""
    from .bias_checks import bias_differences
    from .colvar import bias_log_weights, bias_names

    assert frames.rows is not None
    names = tuple(bias_names(table, columns))
    for name in names:
        if name in series.names:
            raise InputError(f"{name} is a collective variable here, and no bias: name the column of the bias")
        if is_normalised(table.column(name)[frames.rows]):
            raise InputError(f"{name} is normalised, as weights are: give them by `weights`, or the bias itself here")
    _check_sums(names, written_biases(table, frames, units))
    logs = bias_log_weights(table, names, temperature, frames.rows, lambda name: units.energy_of(name, table.units))
    spaces = [(np.asarray(series.values, dtype=float), series.periods), _all_columns(table, frames.rows)]
    several = series.n_files > 1 and not all(name.endswith("rbias") for name in names)  # less c(t), runs may be joined
    found = [bias_differences(*space, logs, series.starts) for space in spaces if several and len(space[1])]
    if any(differences.one_for_each_run for differences in found):
        raise InputError(
            f"{' + '.join(names)} at the same {', '.join(series.names)} differs from run to run, as in umbrella "
            "windows: give a table of them by `windows`, with the restraint of each; of metadynamics runs give rbias"
        )
    note = f"{' + '.join(names)} is taken to be in kJ/mol: if PLUMED's UNITS say otherwise, give `input_unit`"
    told = units.said or all(units.tells(name, table.units) for name in names)
    return Undone(logs, names, () if told else (note,))


def left_out(
    undone: Undone,
    table: "Colvar | None",
    units: InputUnits,
    frames: Frames,
    series: Series,
    temperature: float,
    windows: bool,
) -> Undone:
    """The same with what is to be said of the biases in a table that it leaves as they are.

    A bias beside the surface may be left out on purpose where others are named; one along it is a doubt. Of windows,
    only what is no restraint by its name is looked at: `window_checks` compares the restraints.
    """
    from .bias_checks import unused_bias
    from .window_checks import OTHER_BIASES

    written = written_biases(table, frames, units)
    if windows:
        written = {name: bias for name, bias in written.items() if any(part in name.lower() for part in OTHER_BIASES)}
    written = _not_in(undone, written, thermal_energy(temperature))
    found = unused_bias(written, undone.bias_columns, temperature, series.values)
    notes = found.beside if undone.bias_columns or windows else ()
    return replace(
        undone, notes=(*notes, *undone.notes), doubts=(*undone.doubts, *(found.along if notes else found.all))
    )


def _period(name: str, table: "Colvar", frames: Frames, series: Series) -> float:
    """Of a variable that hills act on: as it was given, or by its file, where its values do not contradict."""
    if name in series.names:
        return float(series.periods[series.names.index(name)])
    period = table.period(name)
    check_period(name, f"column:{name}", table.column(name)[frames.rows], period, series.starts)
    return period


def _beside_hills(
    columns: Sequence[str],
    of_hills: Sequence[str],
    table: "Colvar | None",
    units: InputUnits,
    frames: Frames,
    series: Series,
    temperature: float,
) -> Undone:
    """The sum of columns that are given beside hills: none of them the bias of the hills."""
    if not columns or table is None:
        return Undone()
    found = of_columns(table, columns, units, frames, series, temperature)
    for name in found.bias_columns:
        if name in of_hills or f"{name.rpartition('.')[0]}.bias" in of_hills:
            raise InputError(
                f"{name} is the bias of the hills already: leave it out of `bias_columns`, or leave `hills`"
            )
    return found


def of_hills(
    paths: Sequence[Path],
    table: "Colvar | None",
    units: InputUnits,
    frames: Frames,
    series: Series,
    columns: tuple[int, ...],
    temperature: float,
    beside: Sequence[str] = (),
) -> Undone:
    """The bias of hills as it was at each frame, less c(t); and static ones that acted beside them."""
    from .bias_checks import unused_bias
    from .hill_heights import height_doubts
    from .hills import check_bias, check_deposits, check_periods, hills_bias, read_hills, same_biases

    hills = read_hills(paths, units.energy)
    if (
        table is not None
        and frames.rows is not None
        and set(hills.names) <= set(table.fields)
        and table.time is not None
    ):
        check_periods(hills, [_period(name, table, frames, series) for name in hills.names])
        values = np.stack([table.column(name)[frames.rows] for name in hills.names], axis=1)
        times = table.time[frames.rows]
    elif series.time is not None and len(columns) >= len(hills.names):
        acting = list(columns[: len(hills.names)])
        check_periods(hills, series.periods[acting])
        values, times = np.asarray(series.values[:, acting], dtype=float), np.asarray(series.time, dtype=float)
    else:
        raise InputError(
            f"the hills of {hills.path} are on {', '.join(hills.names)} over time: give the COLVAR of the run by "
            "`colvar`, or trajectories that hold times (XTC) and its collective variables by `bias_cvs`"
        )
    check_deposits(hills, values, times)
    places = np.concatenate([values, hills.centres])
    both = hills_bias(hills, places, np.concatenate([times, hills.times]), temperature)
    bias, at_hills = both.parts(len(values))
    if not bias.settled.any():
        raise InputError(
            f"all frames are of the first tenth of the hills of {hills.path}, while the bias still filled: give "
            "those of the whole run"
        )
    written = written_biases(table, frames, units)
    doubts = check_bias(hills, bias, times, written)
    doubts += height_doubts(hills, at_hills.energies, temperature, units.said)
    mine = same_biases(bias, written)
    others = _beside_hills(beside, mine, table, units, frames, series, temperature)
    written = {name: energies for name, energies in written.items() if name not in mine}
    doubts += unused_bias(written, others.bias_columns, temperature, series.values).all
    note = f"heights of {hills.path} are taken to be in kJ/mol: if PLUMED's UNITS say otherwise, give `input_unit`"
    logs = bias.log_weights(temperature)
    if others.log_weights is not None:
        logs = logs + others.log_weights
    filling = (
        f"{int(np.isneginf(logs).sum())} frames of the first tenth of the hills have no weight: the bias still filled"
    )
    notes = (filling, *others.notes) if units.said else (filling, note, *others.notes)
    return Undone(logs, notes=notes, doubts=doubts)
