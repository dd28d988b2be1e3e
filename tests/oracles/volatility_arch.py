"""Prints the constants of `arch` that tests/risk/test_garch.py and test_forecast_losses.py hold.

Needs `arch` (8.0.0 was used): PYTHONPATH=tests python tests/oracles/volatility_arch.py
"""

from __future__ import annotations

from arch import arch_model
from arch.bootstrap import MCS
from volatility_paths import gjr_path, losses_of_five


def main() -> None:
    """Fits both models to the shared path and bootstraps the shared losses."""
    returns, _ = gjr_path(11, 3000)
    for leverage in (0, 1):
        fit = arch_model(100.0 * returns, mean="Constant", vol="GARCH", p=1, o=leverage, q=1).fit(
            disp="off", options={"ftol": 1e-14, "maxiter": 1000}, tol=1e-10
        )
        forecast = fit.forecast(horizon=5).variance.to_numpy()[-1] / 1e4
        print("gjr" if leverage else "garch", fit.params.to_list(), fit.loglikelihood)
        print("  sigmas", (fit.conditional_volatility[[0, 1, 1500, 2999]] / 100.0).tolist(), "ahead", forecast.tolist())
    found = MCS(losses_of_five(), size=0.10, reps=20000, block_size=22, method="max", bootstrap="stationary", seed=1)
    found.compute()
    print(found.pvalues["Pvalue"].to_dict())


if __name__ == "__main__":
    main()
