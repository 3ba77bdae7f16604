"""Signs, in the metrics log, of a training that is coming apart, and what to do about each."""

from typing import Any

from sagan.metric_names import distance_key

WORSE_EVALUATIONS = 3
WORSE_BY = 1.2  # times the best distance
SATURATED_ROWS = 10
SATURATED_BELOW = 0.05  # of the loss of a discriminator that knows nothing
DIVERSITY_LOST = 0.5  # of the highest so far


def find_problems(rows: list[dict[str, Any]], chance_loss: float) -> dict[str, str]:
    """What is going wrong at the end of a metrics log: a line of advice each, by kind.

    Args:
        rows: the log, oldest first.
        chance_loss: the loss of a discriminator whose logits are all 0.
    """
    return {
        kind: advice
        for kind, advice in (
            ("worse", _worse(rows)),
            ("saturated", _saturated(rows, chance_loss)),
            ("collapsed", _collapsed(rows)),
        )
        if advice
    }


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
        f"{key} has risen {WORSE_EVALUATIONS} times in a row, to {last[-1]:.4g} (best: {best:.4g} at step {step}, "
        "whose checkpoint is kept): more steps will hardly help; try lower --generator-lr and --discriminator-lr, or "
        "--lr-decay-from below 1"
    )


def _saturated(rows: list[dict[str, Any]], chance_loss: float) -> str | None:
    losses = [(row["loss/discriminator"], row["step"]) for row in rows if "loss/discriminator" in row]
    last = losses[-SATURATED_ROWS:]
    # A Wasserstein loss has no such floor; its chance loss is 0.
    if not chance_loss or len(last) < SATURATED_ROWS or max(last)[0] >= SATURATED_BELOW * chance_loss:
        return None
    return (
        f"the discriminator's loss is near 0 since step {last[0][1]}: it knows the real pictures by heart and teaches "
        "the generator no more; try --augment color translation cutout, more pictures, --r1 1, or a lower "
        "--discriminator-lr"
    )


def _collapsed(rows: list[dict[str, Any]]) -> str | None:
    values = [(row["diversity"], row["step"]) for row in rows if "diversity" in row]
    if not values:
        return None
    (now, _), (best, step) = values[-1], max(values)
    if now >= DIVERSITY_LOST * best:
        return None
    return (
        f"the samples of a class differ less and less (diversity {now:.2f}, at step {step} {best:.2f}): the generator "
        "is collapsing to few pictures; try a lower --generator-lr, a larger --batch-size, or --lecam 0.1"
    )
