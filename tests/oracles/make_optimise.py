"""Prints what skfolio and Riskfolio-Lib answer on one data set, as the constants of tests/risk/optimise_pinned.py.

    python tests/oracles/make_optimise.py > tests/optimise_pinned.py

Made with skfolio and Riskfolio-Lib of the versions that the file names; our package is not imported.
"""

from __future__ import annotations

import importlib.metadata
import sys
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from optimise_data import N, data


def skfolio_answers(returns: np.ndarray) -> dict[str, list[float]]:
    from skfolio import RiskMeasure
    from skfolio.optimization import MeanRisk, ObjectiveFunction, RiskBudgeting

    def weights(model: object) -> list[float]:
        return [float(w) for w in model.fit(returns).weights_]  # type: ignore[attr-defined]

    groups = [["a", "a", "b", "b", "c", "c"]]
    return {
        "minimum variance": weights(MeanRisk()),
        "minimum variance, box and groups": weights(
            MeanRisk(min_weights=0.02, max_weights=0.4, groups=groups, linear_constraints=["b >= 0.3", "c <= 0.35"])
        ),
        "minimum variance, long and short": weights(MeanRisk(min_weights=-0.3, max_weights=0.8)),
        "maximum Sharpe": weights(MeanRisk(objective_function=ObjectiveFunction.MAXIMIZE_RATIO)),
        "maximum Sharpe, box": weights(
            MeanRisk(objective_function=ObjectiveFunction.MAXIMIZE_RATIO, max_weights=0.3, min_weights=0.05)
        ),
        "mean-variance, costs": weights(
            MeanRisk(
                objective_function=ObjectiveFunction.MAXIMIZE_UTILITY,
                risk_aversion=4.0,
                transaction_costs=2e-4,
                previous_weights=np.full(N, 1 / N),
            )
        ),
        "minimum CVaR": weights(MeanRisk(risk_measure=RiskMeasure.CVAR, cvar_beta=0.95)),
        "risk parity": weights(RiskBudgeting()),
        "risk parity, budgets": weights(RiskBudgeting(risk_budget=[0.3, 0.1, 0.1, 0.2, 0.1, 0.2])),
    }


def riskfolio_answers(returns: np.ndarray) -> dict[str, list[float]]:
    import pandas as pd
    import riskfolio as rp

    frame = pd.DataFrame(returns, columns=[f"a{i}" for i in range(N)])
    single = rp.Portfolio(returns=frame)
    single.assets_stats(method_mu="hist", method_cov="hist")
    tree = rp.HCPortfolio(returns=frame)
    answers = {
        "minimum variance": single.optimization(model="Classic", rm="MV", obj="MinRisk", rf=0, l=0, hist=True),
        "maximum Sharpe": single.optimization(model="Classic", rm="MV", obj="Sharpe", rf=0, l=0, hist=True),
        "minimum CVaR": single.optimization(model="Classic", rm="CVaR", obj="MinRisk", rf=0, l=0, hist=True),
        "risk parity": single.rp_optimization(model="Classic", rm="MV", rf=0, b=None, hist=True),
        "hierarchical risk parity, direct distance": tree.optimization(
            model="HRP", codependence="pearson", rm="MV", rf=0, linkage="single", leaf_order=False
        ),
    }
    return {name: [float(w) for w in found["weights"]] for name, found in answers.items()}


def main() -> None:
    warnings.simplefilter("ignore")
    returns, _, _ = data()
    print('"""Weights of other libraries on the data set of tests/oracles/make_optimise.py, which printed this."""\n')
    print("from __future__ import annotations\n")
    for label, package, answers in (
        ("SKFOLIO", "skfolio", skfolio_answers(returns)),
        ("RISKFOLIO", "Riskfolio-Lib", riskfolio_answers(returns)),
    ):
        print(f"# {package} {importlib.metadata.version(package)}")
        print(f"{label} = {{")
        for name, weights in answers.items():
            print(f'    "{name}": [')
            for weight in weights:
                print(f"        {weight:.12g},")
            print("    ],")
        print("}")


if __name__ == "__main__":
    main()
