"""Return scenarios that grow while the engine runs: ``[risk.scenarios] source = "rolling"``.

The last mid of every instrument is sampled on a regular grid of times (multiples of ``step_ns``), the last ``window``
of them are kept, and overlapping returns over ``horizon_ns`` are built from them on request. On the same quotes the
result is bit for bit that of :func:`tengri_fast.risk.scenarios.scenario_builder`, as far as the window reaches.

*Gaps.* A grid time counts only when the quotes around it are at most ``max_gap_ns`` apart, or one is exactly on it. So
it is decided by the quote that follows, and a scenario ends no later than the last quote of its slowest instrument.

*Order.* A time before the last one of its instrument is dropped and counted (``backward``), a mid that is not finite
and positive likewise (``invalid``). After a time from far in the future all that follow are before it: scenarios run
out, the gate closes, and ``reset`` starts anew.

*Cost.* A quote that passes no grid time costs a comparison and two stores. Memory is 16 bytes per instrument and grid
time, taken at the start. Building is NumPy over instruments times window; it is not for the order path.

*Threads.* One, the one that delivers the quotes.
"""

from libc.stdint cimport int64_t
from libc.math cimport INFINITY

import json
import zipfile
from pathlib import Path

import numpy as np

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk._files import written_whole
from tengri_fast.risk.scenarios import ScenarioSet, _series

cdef int64_t FORMAT = 1
# A ring larger than this was not meant: 16 GiB of prices and stamps.
cdef int64_t MOST_CELLS = 1 << 30


cdef inline int64_t grid_at_or_after(int64_t ts, int64_t step) noexcept nogil:
    cdef int64_t rest = ts % step
    return ts if rest == 0 else ts - rest + step


def _at_least(str name, object value, int64_t least):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not least <= value < 1 << 62:
        raise ConfigurationError(f"`{name}` must be an integer >= {least}, was {value!r}")
    return int(value)


cdef class RollingScenarios:
    """Scenarios from the quotes of a running engine.

    Parameters
    ----------
    instrument_ids : sequence of str
        N distinct names.
    horizon_ns, step_ns : int
        Length of a scenario and step of the grid, ns; the horizon is a multiple of the step.
    max_gap_ns : int
        A longer silence of an instrument is a gap, ns; at least one step.
    max_scenarios : int
        At most so many scenarios, the most recent ones.
    min_scenarios : int
        Fewer are not ready.
    window : int, optional
        Grid times that are kept; by default twice what ``max_scenarios`` need without a gap.
    refresh_ns : int
        Time between two builds by :meth:`poll`, ns.

    Raises
    ------
    ConfigurationError
        When a setting breaks its rule.
    """

    def __init__(
        self,
        instrument_ids,
        *,
        horizon_ns,
        step_ns=1_000_000_000,
        max_gap_ns=5_000_000_000,
        max_scenarios=1000,
        min_scenarios=100,
        window=None,
        refresh_ns=60_000_000_000,
    ):
        names = tuple(instrument_ids)
        if isinstance(instrument_ids, str) or not names or not all(isinstance(name, str) and name for name in names):
            raise ConfigurationError(f"`instrument_ids` must be names that are not empty, was {instrument_ids!r}")
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigurationError(f"`instrument_ids` must be distinct, {twice!r} is there twice")
        self.step_ns = _at_least("step_ns", step_ns, 1)
        self.horizon_ns = _at_least("horizon_ns", horizon_ns, 1)
        if self.horizon_ns % self.step_ns:
            raise ConfigurationError(f"`horizon_ns` must be a multiple of `step_ns` ({step_ns}), was {horizon_ns}")
        self.max_gap_ns = _at_least("max_gap_ns", max_gap_ns, 1)
        if self.max_gap_ns < self.step_ns:
            raise ConfigurationError(f"`max_gap_ns` must be >= `step_ns` ({step_ns}), was {max_gap_ns}")
        self._steps = self.horizon_ns // self.step_ns
        most = _at_least("max_scenarios", max_scenarios, 1)
        least = _at_least("min_scenarios", min_scenarios, 1)
        if least > most:
            raise ConfigurationError(f"`min_scenarios` must be <= `max_scenarios` ({most}), was {least}")
        kept = 2 * most + self._steps if window is None else _at_least("window", window, 1)
        if kept < least + self._steps:
            raise ConfigurationError(
                f"`window` must be >= {least + self._steps} (`min_scenarios` and a horizon of {self._steps} steps), "
                f"was {kept}"
            )
        if kept * len(names) > MOST_CELLS:
            raise ConfigurationError(
                f"`window` times instruments must be <= {MOST_CELLS}, was {kept} times {len(names)}"
            )
        self.refresh_ns = _at_least("refresh_ns", refresh_ns, 1)
        self.instrument_ids = names
        self.max_scenarios = most
        self.min_scenarios = least
        self.window = kept
        self._count = len(names)
        self._rows = {name: i for i, name in enumerate(names)}
        self._prices = np.ones((self._count, kept))
        self._stamps = np.full((self._count, kept), -1, dtype=np.int64)
        self._last_ts = np.full(self._count, -1, dtype=np.int64)
        self._last_mid = np.ones(self._count)
        self._next = np.full(self._count, -1, dtype=np.int64)
        self.prices = <double *><size_t>self._prices.ctypes.data
        self.stamps = <int64_t *><size_t>self._stamps.ctypes.data
        self.last_ts = <int64_t *><size_t>self._last_ts.ctypes.data
        self.last_mid = <double *><size_t>self._last_mid.ctypes.data
        self.next_ts = <int64_t *><size_t>self._next.ctypes.data
        self.backward = 0
        self.invalid = 0
        self._due = 0
        self.scenarios = None

    def __reduce__(self):
        raise TypeError("RollingScenarios cannot be pickled; to_file and restore keep its state")

    # -- quotes ------------------------------------------------------------------------------------------------------

    cdef void advance(self, Py_ssize_t row, int64_t ts) noexcept nogil:
        """Decide the grid times from the last quote up to, and without, ``ts``."""
        cdef int64_t step = self.step_ns, window = self.window
        cdef int64_t at = self.next_ts[row], last = self.last_ts[row], index
        cdef int64_t end = grid_at_or_after(ts, step)
        cdef double *prices = self.prices + row * window
        cdef int64_t *stamps = self.stamps + row * window
        if at >= 0:
            if ts - last <= self.max_gap_ns:
                if (end - at) // step > window:
                    at = end - window * step
                while at < end:
                    index = at // step
                    prices[index % window] = self.last_mid[row]
                    stamps[index % window] = index
                    at += step
            elif at == last:
                index = at // step
                prices[index % window] = self.last_mid[row]
                stamps[index % window] = index
        self.next_ts[row] = end

    cdef void feed(self, Py_ssize_t row, double mid, int64_t ts) noexcept nogil:
        if not (0.0 < mid < INFINITY) or ts < 0:
            self.invalid += 1
            return
        if ts < self.last_ts[row]:
            self.backward += 1
            return
        if ts > self.next_ts[row]:
            self.advance(row, ts)
        self.last_ts[row] = ts
        self.last_mid[row] = mid

    def row(self, str instrument_id):
        """Row of an instrument for :meth:`on_mid`; an unknown one is an error."""
        found = self._rows.get(instrument_id)
        if found is None:
            raise DataConversionError(f"`instrument_id` must be one of {len(self._rows)} known, was {instrument_id!r}")
        return found

    def on_mid(self, Py_ssize_t row, double mid, int64_t ts):
        """A mid price: row of the instrument, quote currency, time in ns."""
        if not 0 <= row < self._count:
            raise DataConversionError(f"`row` must be within 0 and {self._count - 1}, was {row}")
        self.feed(row, mid, ts)

    def on_quote(self, str instrument_id, double bid, double ask, int64_t ts):
        """A quote by name; one that is not finite, not positive or crossed counts as ``invalid``."""
        cdef object found = self._rows.get(instrument_id)
        if found is None:
            raise DataConversionError(f"`instrument_id` must be one of {len(self._rows)} known, was {instrument_id!r}")
        if not (bid > 0.0 and bid <= ask < INFINITY):
            self.invalid += 1
            return
        self.feed(found, 0.5 * (bid + ask), ts)

    def warm(self, series):
        """Feed history: per instrument times in ns and mids, or quote columns, as ``scenario_builder`` takes them.

        Raises
        ------
        DataConversionError
            When an instrument is unknown, its arrays are malformed or hold no valid quote. Nothing is fed then.
        """
        cdef const int64_t *ts
        cdef const double *mid
        cdef Py_ssize_t i, count, row
        cleaned = []
        for name, source in series.items():
            row = self.row(name)
            times, mids = _series(name, source)
            if times[0] < 0:
                raise DataConversionError(f"{name}: times must be >= 0, was {times[0]}")
            cleaned.append((row, np.ascontiguousarray(times), np.ascontiguousarray(mids)))
        for found, times, mids in cleaned:
            row = found
            count = times.size
            ts = <const int64_t *><size_t>times.ctypes.data
            mid = <const double *><size_t>mids.ctypes.data
            with nogil:
                for i in range(count):
                    self.feed(row, mid[i], ts[i])

    def reset(self):
        """Forget everything, as before the first quote."""
        self._stamps[:] = -1
        self._last_ts[:] = -1
        self._next[:] = -1
        self.backward = self.invalid = 0
        self._due = 0
        self.scenarios = None

    # -- scenarios ---------------------------------------------------------------------------------------------------

    @property
    def ready(self):
        """Whether :attr:`scenarios` is there; until then only reducing orders should pass."""
        return self.scenarios is not None

    @property
    def head_ns(self):
        """Time of the last grid point at or before the last quote of any instrument, -1 before the first."""
        last = int(self._last_ts.max())
        return -1 if last < 0 else last - last % self.step_ns

    def build(self):
        """Scenarios of what is there now, None when they are fewer than ``min_scenarios``; changes nothing."""
        cdef int64_t steps = self._steps, window = self.window, step = self.step_ns
        if self.head_ns < 0:
            return None
        head = self.head_ns // step
        grid = np.arange(max(head - window + 1, 0), head + 1, dtype=np.int64)
        if grid.size <= steps:
            return None
        cells = grid % window
        prices = self._prices[:, cells]
        valid = self._stamps[:, cells] == grid
        # A quote exactly on the grid is valid before another one follows.
        last = self._last_ts
        on_grid = (last >= 0) & (last % step == 0) & (last // step >= grid[0])
        rows = np.flatnonzero(on_grid)
        columns = last[rows] // step - grid[0]
        prices[rows, columns] = self._last_mid[rows]
        valid[rows, columns] = True
        seen = np.concatenate(([0], np.cumsum(valid.all(axis=0))))
        whole = np.flatnonzero(seen[steps + 1 :] - seen[: seen.size - steps - 1] == steps + 1)[-self.max_scenarios :]
        if whole.size < self.min_scenarios:
            return None
        with np.errstate(over="ignore"):
            returns = (prices[:, whole + steps] / prices[:, whole] - 1.0).astype(np.float32)
        if not np.isfinite(returns).all():
            raise DataConversionError("`returns` must be finite: two mids of one instrument are too far apart")
        facts = {
            "source": "rolling",
            "step_ns": str(step),
            "overlapping": "yes" if steps > 1 else "no",
            "max_gap_ns": str(self.max_gap_ns),
            "first_ns": str(int(grid[whole[0]]) * step),
            "last_ns": str(int(grid[int(whole[whole.size - 1]) + steps]) * step),
            "backward": str(self.backward),
            "invalid": str(self.invalid),
        }
        return ScenarioSet(self.instrument_ids, returns, self.horizon_ns, facts)

    def poll(self, int64_t now_ns):
        """Build when it is time to: a new set of scenarios, or None when it is not or there are too few.

        A set that cannot be renewed (all its prices have left the window) is given up: :attr:`ready` turns false.
        """
        if now_ns < self._due:
            return None
        self._due = now_ns + self.refresh_ns
        self.scenarios = None  # also when building raises
        self.scenarios = self.build()
        return self.scenarios

    # -- files -------------------------------------------------------------------------------------------------------

    def to_file(self, path):
        """Write the state (.npz of plain arrays): all of it or, when anything fails, nothing."""
        with written_whole(path) as stream:
            np.savez(
                stream,
                format=np.int64(FORMAT),
                settings=np.array(json.dumps({"step_ns": self.step_ns, "max_gap_ns": self.max_gap_ns}), np.str_),
                instrument_ids=np.array(self.instrument_ids, dtype=np.str_),
                prices=self._prices,
                stamps=self._stamps,
                last_ts=self._last_ts,
                last_mid=self._last_mid,
                counters=np.array([self.backward, self.invalid], dtype=np.int64),
            )

    def restore(self, path):
        """Take the state from a file of :meth:`to_file`; what was here before is forgotten.

        Step and gap must be those of the file. Instruments may differ: those not in the file start empty. With another
        window the most recent prices are kept.

        Raises
        ------
        ConfigurationError
            When there is no such file, or its step or gap is another one.
        DataConversionError
            When the file is damaged. In both cases nothing is changed.
        """
        cdef int64_t step = self.step_ns
        source = Path(path)
        if not source.is_file():
            raise ConfigurationError(f"`path` must name a file, was {str(source)!r}, which does not exist")
        try:
            with np.load(source, allow_pickle=False) as archive:
                if int(archive["format"]) != FORMAT:
                    raise DataConversionError(f"`format` must be {FORMAT}, was {int(archive['format'])}")
                settings = json.loads(str(archive["settings"]))
                names = [str(name) for name in archive["instrument_ids"]]
                arrays = {key: archive[key] for key in ("prices", "stamps", "last_ts", "last_mid", "counters")}
            _check(arrays, names, settings)
        except DataConversionError as error:
            raise DataConversionError(f"{source.name}: {error}") from error
        except (OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, zipfile.BadZipFile) as error:
            raise DataConversionError(
                f"{source.name} is not a file of rolling scenarios (.npz of plain arrays): "
                f"{type(error).__name__}: {error}"
            ) from error
        for key, here in (("step_ns", self.step_ns), ("max_gap_ns", self.max_gap_ns)):
            if settings[key] != here:
                raise ConfigurationError(f"{source.name}: `{key}` must be {here}, was {settings[key]}")
        self.reset()
        self.backward, self.invalid = (int(number) for number in arrays["counters"])
        for i, name in enumerate(names):
            row = self._rows.get(name)
            if row is None or arrays["last_ts"][i] < 0:
                continue
            self._last_ts[row] = arrays["last_ts"][i]
            self._last_mid[row] = arrays["last_mid"][i]
            rest = int(arrays["last_ts"][i]) % step
            self._next[row] = int(arrays["last_ts"][i]) + (step - rest if rest else 0)
            kept = arrays["stamps"][i]
            newest = int(kept.max())
            used = (kept >= 0) & (kept > newest - self.window)
            self._stamps[row, kept[used] % self.window] = kept[used]
            self._prices[row, kept[used] % self.window] = arrays["prices"][i][used]


def _check(dict arrays, list names, object settings):
    """Rules that every written state obeys; a file that does not was damaged."""
    if not isinstance(settings, dict) or not all(type(settings.get(key)) is int for key in ("step_ns", "max_gap_ns")):
        raise DataConversionError(f"`settings` must hold step_ns and max_gap_ns, was {settings!r}")
    if settings["step_ns"] < 1:
        raise DataConversionError(f"`step_ns` must be >= 1, was {settings['step_ns']}")
    count = len(names)
    shape = arrays["prices"].shape
    if not count or len(set(names)) != count or len(shape) != 2 or shape[0] != count or shape[1] < 1:
        raise DataConversionError(f"`prices` must have one row for each of {count} distinct names, had shape {shape}")
    for key, wanted, kind in (
        ("prices", shape, np.float64),
        ("stamps", shape, np.int64),
        ("last_ts", (count,), np.int64),
        ("last_mid", (count,), np.float64),
        ("counters", (2,), np.int64),
    ):
        if arrays[key].shape != wanted or arrays[key].dtype != kind:
            raise DataConversionError(
                f"`{key}` must be {np.dtype(kind)} {wanted}, was {arrays[key].dtype} {arrays[key].shape}"
            )
    for key in ("prices", "last_mid"):
        if not (np.isfinite(arrays[key]) & (arrays[key] > 0.0)).all():
            raise DataConversionError(f"`{key}` must be finite and > 0")
    stamps, last = arrays["stamps"], arrays["last_ts"]
    misplaced = (stamps != -1) & ((stamps < 0) | (stamps % shape[1] != np.arange(shape[1])))
    late = stamps > (last // settings["step_ns"])[:, None]
    if misplaced.any() or ((stamps != -1) & late).any() or (last < -1).any() or (arrays["counters"] < 0).any():
        raise DataConversionError("`stamps`, `last_ts` and `counters` must fit together, they do not")
