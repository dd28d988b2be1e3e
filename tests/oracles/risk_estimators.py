"""Prints the constants of scikit-learn, skfolio and QuantLib that the tests of tests/risk hold.

Needs scikit-learn, skfolio and QuantLib (1.9.1, 1.12.2 and 1.44 were used): PYTHONPATH=tests python THIS_FILE
"""

from __future__ import annotations

import numpy as np
import QuantLib
import skfolio
import sklearn
from risk_history import QUANTITIES, history
from sklearn.covariance import ledoit_wolf


def main() -> None:
    """One line per constant."""
    returns = history()
    matrix, shrinkage = ledoit_wolf(returns[:, :60].T)
    print("scikit-learn", sklearn.__version__, float(shrinkage), np.diag(matrix).tolist())

    # skfolio's portfolio has weights that sum to one; contributions scale with them.
    weights = QUANTITIES / QUANTITIES.sum()
    portfolio = skfolio.Portfolio(X=returns.T, weights=weights, cvar_beta=0.95)
    part = portfolio.contribution(measure=skfolio.RiskMeasure.CVAR)
    print("skfolio", skfolio.__version__, float(portfolio.cvar), np.asarray(part).tolist())

    statistics = QuantLib.RiskStatistics()
    for value in QUANTITIES @ returns:
        statistics.add(float(value))
    print("QuantLib", QuantLib.__version__)
    print("  empirical", [statistics.valueAtRisk(level) for level in (0.95, 0.99)])
    print("  student quantile", [QuantLib.InverseCumulativeStudent(n)(0.99) for n in (3, 5, 12)])


if __name__ == "__main__":
    main()
