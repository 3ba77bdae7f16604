"""Fold other codebases' spectral norms and epsilons into weights and running variances, in float64."""

from pathlib import Path

from torch import Tensor

from sagan.errors import UserError
from sagan.importers.state_dict import StateDict
from sagan.model.batch_norm import EPS


def fold_spectral_norm(
    state: StateDict, key: str, weight: Tensor, u: Tensor, v: Tensor | None = None, *, eps: float = 0.0
) -> dict[str, Tensor]:
    """Divide a weight by its spectral norm sigma = u^T W v, as evaluation mode does; return it and sigma, `sn`.

    Args:
        key: of the layer in the file, for messages.
        weight: W (out, ...), read as a matrix (out, rest).
        u: a vector (out,).
        v: a vector (rest,). None: the codebase runs one power iteration from u in evaluation mode too.
        eps: added to the norms that the power iteration divides by.

    Raises:
        UserError: a vector has another length than the weight, or holds only zeros.
    """
    refusal = f"{state.path} is not a supported SAGAN"
    if weight.dim() < 2:
        raise UserError(f"{refusal}: {key} has the shape {tuple(weight.shape)}, expected 2 dimensions or more")
    w = weight.flatten(1)
    for vector, length in ((u, len(w)), (v, w.shape[1])):
        if vector is None:
            continue
        if vector.shape != (length,):
            raise UserError(
                f"{refusal}: {key} has a vector of the shape {tuple(vector.shape)} of its spectral norm, "
                f"expected ({length},)"
            )
        if not vector.any():
            raise UserError(
                f"{refusal} or damaged: {key} has a vector of zeros, with which its spectral norm divides by 0"
            )
    if v is None:
        v = u @ w
        v = v / (v.norm() + eps)
        u = w @ v
        u = u / (u.norm() + eps)
    sigma = u @ w @ v
    return {"weight": weight / sigma, "sn": sigma}


def fold_epsilon(path: Path, key: str, var: Tensor, eps: float) -> Tensor:
    """Return the running variance with which our batch norm, of epsilon EPS, divides by sqrt(var + eps).

    Raises:
        UserError: the variance is negative, or would become so.
    """
    if (var < 0).any():
        raise UserError(f"{path} is not a supported SAGAN or damaged: {key} has a negative variance")
    if eps == EPS:
        return var
    folded = var + (eps - EPS)
    if (folded < 0).any():
        raise UserError(
            f"{path} is not supported: {key} has a variance of {var.min():.2g} and an epsilon of {eps:g}, together "
            f"less than our epsilon of {EPS:g}"
        )
    return folded
