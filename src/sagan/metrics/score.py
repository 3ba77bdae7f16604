"""Compute the classifier score (Salimans et al. 2016): the Inception Score with Inception's classes."""

import numpy as np


def classifier_score(probabilities: np.ndarray, *, splits: int = 10) -> tuple[float, float]:
    """Return mean and standard deviation over splits of exp(E_x KL(p(y|x) || p(y))), with p(y|x) as rows (N, K).

    The score ranges from 1 (all images look the same, or like no class) to K. Splits are consecutive rows; there are at
    most N.
    """
    values = []
    for p in np.array_split(probabilities.astype(np.float64), min(splits, len(probabilities))):
        tiny = np.finfo(np.float64).tiny  # 0 log 0 = 0
        logs = np.log(np.maximum(p, tiny)) - np.log(np.maximum(p.mean(0), tiny))
        values.append(np.exp((p * logs).sum(1).mean()))
    return float(np.mean(values)), float(np.std(values))
