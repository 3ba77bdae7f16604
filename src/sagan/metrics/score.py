"""The classifier score of generated pictures (Salimans et al. 2016); the Inception Score with Inception's classes."""

import numpy as np


def classifier_score(probabilities: np.ndarray, *, splits: int = 10) -> tuple[float, float]:
    """Mean and standard deviation over splits of exp(E_x KL(p(y|x) || p(y))), from p(y|x) as rows (N, K).

    From 1 (all pictures look alike, or like nothing) to K. Splits are consecutive rows, fewer of them if N < splits.
    """
    values = []
    for p in np.array_split(probabilities.astype(np.float64), min(splits, len(probabilities))):
        tiny = np.finfo(np.float64).tiny  # 0 log 0 = 0
        logs = np.log(np.maximum(p, tiny)) - np.log(np.maximum(p.mean(0), tiny))
        values.append(np.exp((p * logs).sum(1).mean()))
    return float(np.mean(values)), float(np.std(values))
