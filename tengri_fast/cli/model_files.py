"""What the model commands read: networks, and rows of features from arrays, tables or market data."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError, MissingExtraError

if TYPE_CHECKING:
    from tengri_fast.inference.network import Network

__all__ = ["LoadedNetwork", "RowSplit", "load_network", "load_rows", "resolve_model", "split_rows"]

MARKET = ("quotes", "trades", "depth")
RUN = 16
"""Rows that follow each other in both the calibration and the held-out rows show that these overlap."""
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LoadedNetwork:
    """A network, the hash of the file it came from, and its description if there is one."""

    network: Network
    path: Path
    sha256: str
    nbytes: int
    spec: Path | None

    @property
    def name(self) -> str:
        """What a report calls it: the file's name, or its folder's where the file is just called model."""
        return self.path.parent.name if self.path.stem == "model" and self.path.parent.name else self.path.stem


@dataclass(frozen=True)
class RowSplit:
    """Rows to calibrate on, and rows that calibration has not seen, as stretches from reset."""

    calibration: list[FloatArray]
    held_out: list[FloatArray]
    how: str


def resolve_model(model: Path) -> tuple[Path, Path | None]:
    """The ONNX or compiled file of a model, and its model.toml.

    Parameters
    ----------
    model : Path
        A file (.onnx, .tgp), a model.toml, its folder, or a name of the zoo.
    """
    if model.suffix in (".onnx", ".tgp"):
        return model, None
    from tengri_fast.models import model_path
    from tengri_fast.runtime.model_spec import load_model_spec

    spec = model if model.exists() else model_path(str(model))
    spec = spec / "model.toml" if spec.is_dir() else spec
    return spec.parent / load_model_spec(spec).onnx, spec


def load_network(model: Path) -> LoadedNetwork:
    """The network of a model; see :func:`resolve_model`.

    Raises
    ------
    ModelLoadingError
        If the file is missing, damaged, or holds something that the native engine does not run.
    ConfigurationError
        If it is a compiled file, whose weights are packed for good.
    """
    from tengri_fast.inference.graph import read_network
    from tengri_fast.inference.onnx_reader import read_source

    path, spec = resolve_model(model)
    if path.suffix == ".tgp":
        raise ConfigurationError(f"`model` must be an ONNX file, was {path}: a compiled file cannot be taken apart")
    data = read_source(path)
    digest = hashlib.sha256(data).hexdigest()
    network = read_network(data)
    kept = {"source_sha256": digest, **network.metadata}
    return LoadedNetwork(replace(network, metadata=kept), path, digest, len(data), spec)


def load_rows(paths: Sequence[Path], features: Path | None, width: int) -> list[FloatArray]:
    """Rows of features, one stretch per array, table or session.

    Parameters
    ----------
    paths : sequence of Path
        ``.npy`` ([T, F], or [N, T, F] for N stretches); ``.npz`` (the array ``x``, or ``x0``, ``x1``, ... for several
        stretches, or else its only array); ``.parquet`` with one numeric column per feature, in order, or as
        ``tengri features --float32`` writes it (ready rows, a stretch for each session); or, with `features`, market
        data named ``STEM.quotes.parquet``, ``STEM.trades.parquet``, ``STEM.depth.parquet``: files of one stem are one
        stretch and go through the feature engine.
    features : Path, optional
        The model.toml whose features, clock and normalisation turn market data into rows.
    width : int
        Features of the model.

    Raises
    ------
    ConfigurationError
        If a file cannot be read as rows; the text names it.
    """
    stretches: list[FloatArray] = []
    market: dict[Path, dict[str, Path]] = {}
    for path in paths:
        kind = path.name.split(".")[-2] if path.name.count(".") >= 2 else ""
        if kind in MARKET:
            stem = path.with_name(path.name.rsplit(f".{kind}.", 1)[0])
            market.setdefault(stem, {})[kind] = path
        else:
            stretches += _arrays(path, width)
    if market and features is None:
        raise ConfigurationError(
            "`features` must name a model.toml to turn market data into rows, was missing (--features model.toml)"
        )
    for stem in market:
        assert features is not None
        stretches.append(_market(market[stem], features))
    if paths and not sum(len(rows) for rows in stretches):
        raise ConfigurationError(f"`{paths[0]}` must hold rows, held none")
    for number, rows in enumerate(stretches):
        if rows.ndim != 2 or rows.shape[1] != width:
            raise ConfigurationError(f"rows {number} must have {width} features, have shape {list(rows.shape)}")
    return stretches


def _arrays(path: Path, width: int) -> list[FloatArray]:
    try:
        if path.suffix == ".parquet":
            return _feature_file(path) or [_table(path)]
        if path.suffix == ".npy":
            found = [np.load(path, allow_pickle=False)]
            if not isinstance(found[0], np.ndarray):
                raise ValueError("it holds several arrays, as a .npz file")
        elif path.suffix == ".npz":
            with open(path, "rb") as file:
                if file.read(2) != b"PK":
                    raise ValueError("it is no zip archive")
            with np.load(path, allow_pickle=False) as stored:
                names = list(stored.files)
                numbered = sorted((n for n in names if n[:1] == "x" and n[1:].isdigit()), key=lambda n: int(n[1:]))
                chosen = ["x"] if "x" in names else numbered or names
                if len(chosen) > 1 and chosen is names:
                    raise ConfigurationError(
                        f"`{path}` must hold an array `x`, or x0, x1, ..., held {', '.join(names)}"
                    )
                found = [stored[name] for name in chosen]
        else:
            raise ConfigurationError(f"`{path}` must be .npy, .npz or .parquet, was {path.suffix or 'without suffix'}")
    except FileNotFoundError:
        raise ConfigurationError(f"`{path}` must exist, does not") from None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigurationError(f"`{path}` cannot be read as arrays: {error}") from None
    out: list[FloatArray] = []
    for array in found:
        if array.dtype.kind not in "fiu" or array.ndim not in (2, 3):
            raise ConfigurationError(f"`{path}` must hold numbers [T, {width}], held {array.dtype} {list(array.shape)}")
        with np.errstate(over="ignore"):  # rows beyond float32 are infinite, and refused by place
            rows = array.astype(np.float32)
        out += [rows] if rows.ndim == 2 else list(rows)
    return out


def _feature_file(path: Path) -> list[FloatArray]:
    """Ready rows of each session of a file that ``tengri features`` wrote; none where it is another file."""
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        return []
    from tengri_fast.features.tables import FACTS, read_features

    try:
        metadata = parquet.read_schema(path).metadata or {}
    except (arrow.ArrowException, OSError):
        return []
    if FACTS not in metadata:
        return []
    try:
        table = read_features(path)
    except DataConversionError as error:
        raise ConfigurationError(f"`{path}`: {error}") from None
    if table.values.dtype != np.float32:
        raise ConfigurationError(
            f"`{path}` must hold rows as the model is fed, with its normalisation, held raw values "
            "(tengri features MODEL --float32)"
        )
    sessions = [table.values[table.ready & (table.session == number)] for number in np.unique(table.session)]
    return [np.ascontiguousarray(rows) for rows in sessions if len(rows)]


def _table(path: Path) -> FloatArray:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "data", "reading Parquet") from None
    try:
        table: Any = parquet.read_table(path)
    except (arrow.ArrowException, OSError) as error:
        raise ConfigurationError(f"`{path}` cannot be read as Parquet: {error}") from None
    columns = []
    for name in table.column_names:
        values = table.column(name).to_numpy()
        if values.dtype.kind not in "fiu":
            raise ConfigurationError(f"`{path}`: column `{name}` must hold numbers, holds {values.dtype}")
        with np.errstate(over="ignore"):
            columns.append(values.astype(np.float32))
    if not columns:
        raise ConfigurationError(f"`{path}` must have a column for each feature, has none")
    return np.ascontiguousarray(np.stack(columns, axis=1))


def _market(files: dict[str, Path], features: Path) -> FloatArray:
    from tengri_fast.features import FeaturePlan, parse_spec
    from tengri_fast.market import read_depth, read_quotes, read_trades
    from tengri_fast.runtime.model_spec import load_model_spec
    from tengri_fast.training.recipe import normalise

    spec = load_model_spec(features)
    plan = FeaturePlan([parse_spec(text) for text in spec.inputs.features])
    out = plan.compute(
        read_quotes(files["quotes"]) if "quotes" in files else None,
        read_trades(files["trades"]) if "trades" in files else None,
        read_depth(files["depth"]) if "depth" in files else None,
        clock=spec.inputs.clock,
    )
    norm = spec.normalisation
    rows = normalise(out.values, np.array(norm.mean), np.array(norm.scale), norm.clip)
    return np.ascontiguousarray(rows[out.ready])


def _runs(part: FloatArray) -> Iterator[bytes]:
    """Hashes of all stretches of so many rows that follow each other and are not all the same one."""
    rows = [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in np.ascontiguousarray(part)]
    length = min(RUN, len(rows))
    for start in range(len(rows) - length + 1 if rows else 0):
        some = rows[start : start + length]
        if len(set(some)) > 1 or length < RUN:
            yield b"".join(some)


def split_rows(calibration: Sequence[FloatArray], held_out: Sequence[FloatArray], share: float) -> RowSplit:
    """Calibration rows and held-out rows.

    Parameters
    ----------
    calibration, held_out : sequence of numpy.ndarray
        As given; with no `held_out`, the last `share` of the calibration rows is held out, and a stretch that the cut
        goes through begins again from reset.
    share : float
        In (0, 1).

    Raises
    ------
    ConfigurationError
        If the two hold the same rows, or `share` is out of range.
    """
    total = sum(len(part) for part in calibration)
    if held_out:
        known = {run for part in calibration for run in _runs(part)}
        if any(run in known for part in held_out for run in _runs(part)):
            raise ConfigurationError(
                f"the held-out rows must not be calibration rows, but {RUN} rows in a row are in both"
            )
        count = sum(len(part) for part in held_out)
        return RowSplit(list(calibration), list(held_out), f"{total:,} rows to calibrate, {count:,} held out, as given")
    if not 0.0 < share < 1.0:
        raise ConfigurationError(f"`split` must lie in (0, 1), was {share}")
    first = round(total * (1.0 - share))
    seen, left, right = 0, [], []
    for part in calibration:
        at = min(max(first - seen, 0), len(part))
        left += [part[:at]] if at else []
        right += [part[at:]] if at < len(part) else []
        seen += len(part)
    return RowSplit(left, right, f"first {first:,} rows to calibrate, last {total - first:,} held out ({share:.0%})")
