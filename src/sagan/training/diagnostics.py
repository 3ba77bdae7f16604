"""Warnings from the metrics log: signs that training goes wrong, with advice on each."""

from typing import Any

from sagan.metric_names import distance_key

WORSE_EVALUATIONS = 3
"""Rises in a row of the distance to the data that are reported."""
WORSE_BY = 1.2
"""The last distance, as a multiple of the best one, from which on such rises count."""
SATURATED_ROWS = 10
"""Rows of the log in which a saturated discriminator's loss stays near 0."""
SATURATED_BELOW = 0.05
"""Near 0 means below this share of the uninformed loss."""
COLLAPSED_BELOW = 0.5
"""A generator is collapsing when its diversity is below this share of the highest so far."""


def find_problems(rows: list[dict[str, Any]], uninformed_loss: float) -> dict[str, str]:
    """Return the problems at the end of a metrics log: a line of advice by kind (worse, saturated, collapsed).

    Args:
        rows: the log, oldest first.
        uninformed_loss: the loss of a discriminator whose logits are all 0.
    """
    advice = {"worse": _worse(rows), "saturated": _saturated(rows, uninformed_loss), "collapsed": _collapsed(rows)}
    return {kind: line for kind, line in advice.items() if line}


def _worse(rows: list[dict[str, Any]]) -> str | None:
    key = distance_key(rows)
    evaluated = [(row[key], row["step"]) for row in rows if key in row]
    last = [value for value, _ in evaluated[-WORSE_EVALUATIONS - 1 :]]
    if len(last) <= WORSE_EVALUATIONS or sorted(set(last)) != last:
        return None
    best, step = min(evaluated)
    if last[-1] < WORSE_BY * best:
        return None
    return (
        f"{key} has risen {WORSE_EVALUATIONS} times in a row, to {last[-1]:.4g} (best: {best:.4g} at step {step}; "
        "that checkpoint is kept): more steps are unlikely to help; try lower --generator-lr and --discriminator-lr, "
        "or --lr-decay-from below 1"
    )


def _saturated(rows: list[dict[str, Any]], uninformed_loss: float) -> str | None:
    losses = [(row["loss/discriminator"], row["step"]) for row in rows if "loss/discriminator" in row]
    last = losses[-SATURATED_ROWS:]
    # A Wasserstein loss has no floor; its uninformed loss is 0.
    if not uninformed_loss or len(last) < SATURATED_ROWS or max(last)[0] >= SATURATED_BELOW * uninformed_loss:
        return None
    return (
        f"the discriminator's loss has been near 0 since step {last[0][1]}: it has memorised the data and no longer "
        "gives the generator a useful gradient; try --augment color translation cutout, more images, --r1 1, or a "
        "lower --discriminator-lr"
    )


def _collapsed(rows: list[dict[str, Any]]) -> str | None:
    values = [(row["diversity"], row["step"]) for row in rows if "diversity" in row]
    if not values:
        return None
    (now, _), (best, step) = values[-1], max(values)
    if now >= COLLAPSED_BELOW * best:
        return None
    return (
        f"samples of a class have become similar (diversity {now:.2f}; at step {step} {best:.2f}): the generator "
        "is collapsing to a few images; try a lower --generator-lr, a larger --batch-size, or --lecam 0.1"
    )
