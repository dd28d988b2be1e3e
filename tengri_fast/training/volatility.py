"""The volatility forecaster from data to proof: walk-forward training, rivals, unseen years, tables and a picture.

    python -m tengri_fast.training.volatility --data ../shared/data --out out/volatility

Each split trains on the past, stops on held-out years and is tested on the years after, with gaps between. Rivals are
fitted again at the start of every test year on everything before it, the network is not: what that costs falls on the
network. The child interpreter (``--python``, else TENGRI_TRAIN_PYTHON) needs PyTorch; everything else runs here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ModelLoadingError, NeuralIntegrationError
from tengri_fast.risk.garch import filter_variance, fit_garch
from tengri_fast.risk.neural_volatility import FEATURES, WARMUP, VolatilityFeatures, forecast_variances
from tengri_fast.risk.volatility import EwmaVolatility, fit_har
from tengri_fast.training.volatility_data import Series, load_series, simulated_series

__all__ = ["SPLITS", "Settings", "Split", "forecasts", "network_forecasts", "run", "test_rows", "train_split"]

Floats = npt.NDArray[np.float64]

#: Fewest returns before the first test year; a series with less is left out of a split.
MINIMUM_HISTORY = 1000


@dataclass(frozen=True)
class Split:
    """Dates of one walk-forward step, ISO, ends excluded."""

    name: str
    train_until: str
    held_out: tuple[str, str]
    test: tuple[str, str]


#: The second one makes the model that ships.
SPLITS = (
    Split("2005-2010", "2003-01-01", ("2003-02-01", "2004-12-01"), ("2005-01-01", "2011-01-01")),
    Split("2014-2022", "2012-01-01", ("2012-02-01", "2013-12-01"), ("2014-01-01", "2023-01-01")),
)


@dataclass(frozen=True)
class Settings:
    """Everything that decides a training besides its data."""

    seeds: tuple[int, ...] = (1, 2, 3, 4)
    hidden: int = 8
    epochs: int = 40
    patience: int = 40
    length: int = 200
    burn_in: int = 40
    batch: int = 32
    learning_rate: float = 4e-3
    decay: float = 1e-3
    golden_steps: int = 256


def _between(series: Series, span: tuple[str, str]) -> tuple[int, int]:
    """First and last + 1 index of the returns whose date lies within ``span``."""
    first, last = (int(k) for k in np.searchsorted(series.dates, np.array(span, dtype="datetime64[D]")))
    return first, last


def test_rows(series: Series, split: Split) -> tuple[int, int] | None:
    """Indices of the returns that a split tests, or None when the series has too little before or nothing in it."""
    first, last = _between(series, split.test)
    return (first, last) if first >= MINIMUM_HISTORY and last > first else None


def train_split(
    series: Sequence[Series],
    split: Split,
    out: Path,
    python: str,
    settings: Settings | None = None,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train one split in the child interpreter.

    Parameters
    ----------
    series : sequence of Series
    split : Split
    out : Path
        Gets ``model.onnx``, ``part0.onnx`` ... one a seed, and ``golden.npz``, whose rows are simulated.
    python : str
        Interpreter with PyTorch.
    settings : Settings, optional
    log : callable
        Takes lines of progress.

    Returns
    -------
    dict
        ``held_out`` QLIKE of each seed, ``held_out_merged``, ``curves``, ``parameters``, ``torch``, ``rows``.

    Raises
    ------
    ModelLoadingError
        When the child fails; carries its last words.
    """
    settings = settings or Settings()
    out.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {}
    count = trained = 0
    for one in series:
        end = _between(one, ("1900-01-01", split.train_until))[1]
        held = _between(one, split.held_out)
        if end - WARMUP < settings.length:
            continue
        # Row t foretells return t + 1: the last row of a span is the one before its last return.
        stop = held[1] if held[1] > held[0] else end
        rows, anchors = VolatilityFeatures().rows(one.returns[:stop], one.realised[:stop])
        arrays[f"x{count}"] = rows[:-1]
        arrays[f"ratio{count}"] = (one.returns[1:stop] ** 2 / anchors[:-1]).astype(np.float32)
        start = held[0] if held[1] > held[0] else stop - 1
        arrays[f"limits{count}"] = np.array([WARMUP, end - 1, start, stop - 1], dtype=np.int64)
        trained += end - 1 - WARMUP
        count += 1
    golden = simulated_series(20, settings.golden_steps, bars=True)
    measured = golden.realised.copy()
    measured[: settings.golden_steps // 2] = np.nan
    arrays["golden"] = VolatilityFeatures().rows(golden.returns, measured)[0]
    with tempfile.TemporaryDirectory() as folder:
        data, request, result = (Path(folder) / name for name in ("data.npz", "request.json", "result.json"))
        np.savez(data, count=count, **arrays)
        request.write_text(
            json.dumps(
                {
                    **asdict(settings),
                    "data": str(data),
                    "result": str(result),
                    "onnx": str(out / "model.onnx"),
                    "parts": str(out / "part{}.onnx"),
                    "golden": str(out / "golden.npz"),
                }
            ),
            encoding="utf-8",
        )
        script = Path(__file__).with_name("volatility_fit.py")
        child = subprocess.Popen(
            [python, str(script), str(request)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert child.stdout is not None
        assert child.stderr is not None
        for line in child.stdout:
            log(f"{split.name}: {line.rstrip()}")
        errors = child.stderr.read()
        if child.wait() != 0:
            raise ModelLoadingError(f"training of {split.name} must end with status 0, was {child.returncode}: "
                                    f"{errors.strip()[-800:]}")  # fmt: skip
        answer: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    answer["rows"] = trained
    return answer


def _stream(model: EwmaVolatility, returns: Floats) -> Floats:
    """Variance of return t given those before, by the streaming model itself; NaN until it is ready."""
    out = np.empty(len(returns))
    for t, r in enumerate(returns.tolist()):
        out[t] = model.forecast() ** 2
        model.update(r)
    return out


def network_forecasts(network: Any, returns: Floats, realised: Floats | None = None) -> Floats:
    """Variance of return t given those before, by a network in the C engine; NaN for the first."""
    said = forecast_variances(network, returns, realised)
    return np.concatenate([[np.nan], said[:-1]])


def forecasts(series: Series, split: Split, network: Any) -> dict[str, Floats]:
    """Variances that each method would have said before each test return.

    Parameters
    ----------
    series : Series
    split : Split
    network : Model
        Of this split, in the C engine.

    Returns
    -------
    dict of str to ndarray, shape (test returns,)
        "EWMA", "HAR", "GARCH", "GJR", "GRU"; with bars also "GRU, closes", the same network without them. Before the
        test years stand as many forecasts as there is history, under the same names with " (past)": what filtered
        simulation needs. Those of HAR, GARCH and GJR are in sample for the first test year.
    """
    span = test_rows(series, split)
    assert span is not None
    first, last = span
    r = series.returns[:last]
    known = np.flatnonzero(np.isfinite(series.realised[:last]))
    begins = int(known[0]) if len(known) else last  # of the bars; from there on there is no hole
    bars = first - begins >= MINIMUM_HISTORY
    result: dict[str, Floats] = {"EWMA": _stream(EwmaVolatility(), r)}
    years = np.unique(series.dates[first:last].astype("datetime64[Y]")).astype(np.int64) + 1970
    edges = [_between(series, (f"{year}-01-01", f"{year + 1}-01-01")) for year in years]
    origin, measured = (begins, series.realised[:last]) if bars else (0, r**2)
    table: dict[str, Floats] = {name: np.full(last, np.nan) for name in ("HAR", "GARCH", "GJR")}
    for k, (start, stop) in enumerate(edges):
        begin, stop = (0 if k == 0 else start), min(stop, last)
        for name, leverage in (("GARCH", False), ("GJR", True)):
            params = fit_garch(r[:start], leverage=leverage)
            table[name][begin:stop] = filter_variance(r[:stop], params)[begin:stop]
        har = fit_har(measured[origin:start])
        # A bar measures the session without the drift between closes: its level is brought to that of squared returns.
        level = float((r[origin:start] ** 2).mean() / measured[origin:start].mean())
        for t in range(max(begin - 22, origin), stop):
            if t >= begin and har.ready:
                table["HAR"][t] = level * har.forecast() ** 2
            har.update(r[t], measured[t])
    result.update(table)
    if bars:
        result["GRU, closes"] = network_forecasts(network, r)
    result["GRU"] = network_forecasts(network, r, series.realised[:last] if bars else None)
    test = {name: values[first:] for name, values in result.items()}
    past = {f"{name} (past)": values[:first] for name, values in result.items()}
    return {**test, **past}


def run(
    data: str | Path,
    out: str | Path,
    *,
    python: str | None = None,
    settings: Settings | None = None,
    trials: str = "",
    ship: str | Path | None = None,
    page: str | Path | None = None,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """The whole study: train both splits, test, write ``results.md``, ``results.json`` and ``volatility.png``.

    Parameters
    ----------
    data : str or Path
        Folder with the files of :data:`~tengri_fast.training.volatility_data.FILES`.
    out : str or Path
        Gets the results and, below ``splits``, the networks.
    python : str, optional
        Interpreter with PyTorch; default as :func:`~tengri_fast.training.recipe.training_python`.
    settings : Settings, optional
    trials : str
        How many configurations were tried, in words, for the card.
    ship : str or Path, optional
        A folder of the zoo that gets the network of the last split, its ``volatility.toml``, golden outputs and card.
    page : str or Path, optional
        A Markdown page whose tables are replaced, with the picture beside it.
    log : callable
        Takes lines of progress.

    Returns
    -------
    dict
        The content of ``results.json``.
    """
    from tengri_fast.inference import Model
    from tengri_fast.training.recipe import training_python
    from tengri_fast.training.volatility_report import picture, replace_between, results, write_text
    from tengri_fast.training.volatility_study import study

    interpreter = training_python(python)
    settings = settings or Settings()
    target = Path(out)
    target.mkdir(parents=True, exist_ok=True)
    series, hashes = load_series(data)
    record: dict[str, Any] = {"data_sha256": hashes, "settings": asdict(settings), "trials": trials, "splits": {}}
    for split in SPLITS:
        folder = target / "splits" / split.name
        training = train_split(series, split, folder, interpreter, settings, log)
        network = Model.from_onnx(folder / "model.onnx")
        parts = [Model.from_onnx(folder / f"part{k}.onnx") for k in range(len(settings.seeds))]
        log(f"{split.name}: testing")
        record["splits"][split.name] = {
            "dates": {"train_until": split.train_until, "held_out": split.held_out, "test": split.test},
            "training": training,
            **study(series, split, network, parts),
        }
    write_text(target / "results.json", json.dumps(record, indent=1, allow_nan=False) + "\n")
    write_text(target / "results.md", results(record) + "\n")
    picture(record, target / "volatility.png")
    if ship is not None:
        _ship(record, target / "splits" / SPLITS[-1].name, Path(ship), trials)
    if page is not None:
        text = Path(page).read_text(encoding="utf-8")
        write_text(Path(page), replace_between(text, results(record)))
        picture(record, Path(page).with_suffix(".png"))
    return record


def _ship(record: Mapping[str, Any], folder: Path, zoo: Path, trials: str) -> None:
    """Copy the network to the zoo, describe it, and write a card with the error that the C engine really has."""
    from tengri_fast.runtime.volatility import load_volatility
    from tengri_fast.training.volatility_report import card, write_text

    zoo.mkdir(parents=True, exist_ok=True)
    for name in ("model.onnx", "golden.npz"):
        temporary = zoo / f"{name}.tmp"
        temporary.write_bytes((folder / name).read_bytes())
        os.replace(temporary, zoo / name)
    digest = hashlib.sha256((zoo / "model.onnx").read_bytes()).hexdigest()
    features = "".join(f'  "{name}",\n' for name in FEATURES)
    hashes = "".join(f'"{name}" = "{value}"\n' for name, value in record["data_sha256"].items())
    write_text(
        zoo / "volatility.toml",
        f"""# Written by train.py. Do not edit by hand: hashes and golden outputs belong together.
id = "volatility_gru"
type = "GRU"
description = "Next day's variance of any instrument, as a correction of its exponentially weighted variance."
onnx = "model.onnx"
sha256 = "{digest}"
period = "1d"
output = "log variance over anchor"
trained_until = "{SPLITS[-1].held_out[1]}"
licence = "Apache-2.0"
features = [
{features}]

[golden]
path = "golden.npz"
tolerance = 1e-5

[data_sha256]
{hashes}""",
    )
    checked = load_volatility(zoo)
    write_text(zoo / "CARD.md", card(record, SPLITS[-1].name, digest, checked.golden_error, trials))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tengri_fast.training.volatility",
        description="Train the volatility forecaster, test it and its rivals on unseen years, write tables.",
    )
    parser.add_argument("--data", required=True, help="folder with the daily sets (docs/volatility.md lists the files)")
    parser.add_argument("--out", default="out/volatility", help="folder for results (%(default)s)")
    parser.add_argument("--python", help="interpreter with PyTorch (default: TENGRI_TRAIN_PYTHON, then this one)")
    options = parser.parse_args(arguments)
    try:
        run(options.data, options.out, python=options.python)
    except NeuralIntegrationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {options.out}/results.md, results.json and volatility.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
