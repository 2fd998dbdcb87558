"""Losses, as pure functions of a batch's places: nothing dense, and nothing of the network.

`value`, `index` and `fires` are of the active places of a batch, as in `Codes`; every loss is a mean over its rows.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from lensing.dictionary.kernels import Pattern, sparse_dot, sparse_mix
from lensing.dictionary.spread import top_of_all
from lensing.dist import ALONE, Group, World

OFTEN = 0.1  # the density above which the frequency penalty of Gemma Scope 2 begins


def reconstruction_loss(
    x: Float[Tensor, "rows d_in"], x_hat: Float[Tensor, "rows d_in"], variance: float
) -> Float[Tensor, ""]:
    """Mean over rows of |x - x_hat|^2, divided by the data's `variance` (mean |x - mu|^2)."""
    return (x - x_hat).square().sum() / (len(x) * variance)


def prefix_loss(
    y: Float[Tensor, "rows d_out"],
    rest: Float[Tensor, "rows d_out"],
    value: Float[Tensor, " nnz"],
    directions: Float[Tensor, "d_sae d_out"],
    pattern: Pattern,
    prefixes: tuple[int, ...],
    variance: float,
    latents: Group = ALONE.latents,
) -> tuple[Float[Tensor, ""], Float[Tensor, "rows d_out"]]:
    """Mean of the reconstruction losses of nested prefixes, the whole last, and the whole's reconstruction.

    `rest` is what every prefix adds to (b_dec, a skip connection); gradients reach it and the latents, through the loss
    alone. Source: Bussmann et al. 2025, equation 3, with the
    mean in place of the sum, so that rates and coefficients carry over.
    """
    first = latents.rank * pattern.columns  # the number of this process's first latent
    stacked, order = pattern.stacked(tuple(edge - first for edge in prefixes))
    parts = latents.leave(sparse_mix(value[order], directions, stacked)).view(len(prefixes) + 1, *y.shape)
    return _Nested.apply(parts, rest, y, 1 / (len(parts) * len(y) * variance))


class _Nested(Function):
    """What nested sums of parts leave of y, squared; written out because each prefix is as large as the batch."""

    @staticmethod
    def forward(ctx: Any, parts: Tensor, rest: Tensor, y: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        errors = parts.cumsum(0)
        errors += rest - y
        ctx.save_for_backward(errors)
        ctx.weight, ctx.shape = weight, rest.shape
        y_hat = errors[-1] + y
        ctx.mark_non_differentiable(y_hat)
        return torch.dot(errors.flatten(), errors.flatten()) * weight, y_hat

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (errors,) = ctx.saved_tensors
        grad = errors * (2 * ctx.weight * grads[0])
        for i in range(len(grad) - 2, -1, -1):  # a part is in its own prefix and in all later ones
            grad[i] += grad[i + 1]
        return grad, grad[0].sum_to_size(ctx.shape), None, None


def auxiliary_loss(
    error: Float[Tensor, "rows d_out"],
    centred: Float[Tensor, "rows d_in"],
    encoder: Float[Tensor, "dead d_in"],
    bias: Float[Tensor, " dead"],
    directions: Float[Tensor, "dead d_out"],
    k: int,
    *,
    quick: bool = False,
    world: World = ALONE,
    share: float = 1.0,
) -> Float[Tensor, ""]:
    """AuxK (Gao et al. 2024): how badly the k best dead latents of every row rebuild the error, as its share.

    `error` and `centred` are taken as given (detached); b_dec stands on neither side. Of several processes each has
    the `share` of the rows; the mean of their losses, so weighted, is the loss.
    """
    error, centred = error.detach(), centred.detach()
    most = k if world.latents.size > 1 else min(k, len(encoder))
    pattern = top_of_all(centred, encoder, bias, most, world.latents, quick=quick)
    value = sparse_dot(centred, encoder, bias, pattern).relu()
    power = world.data.sum(error.square().sum()) * share
    rebuilt = world.latents.leave(sparse_mix(value, directions, pattern))
    return (rebuilt - error).square().sum() / power.clamp(min=torch.finfo(power.dtype).tiny)


def l1_loss(
    value: Float[Tensor, " nnz"], index: Int[Tensor, " nnz"], norms: Float[Tensor, " d_sae"], rows: int
) -> Float[Tensor, ""]:
    """Mean over rows of the sum of f_i |W_dec,i| (Conerly et al. 2024); with unit rows the plain L1 norm."""
    return (value * norms[index]).sum() / rows


def tanh_loss(
    value: Float[Tensor, " nnz"], index: Int[Tensor, " nnz"], norms: Float[Tensor, " d_sae"], rows: int,
    steepness: float,
) -> Float[Tensor, ""]:  # fmt: skip
    """Mean over rows of the sum of tanh(steepness f_i |W_dec,i|) (Conerly et al. 2025; Ameisen et al. 2025)."""
    return torch.tanh(steepness * value * norms[index]).sum() / rows


def distance_loss(
    centred: Float[Tensor, "rows d_in"], encoder: Float[Tensor, "dead d_in"], bias: Float[Tensor, " dead"],
    threshold: Float[Tensor, " dead"], norms: Float[Tensor, " dead"],
) -> Float[Tensor, ""]:  # fmt: skip
    """Mean over rows of the sum of relu(t_i - pre_i) |W_dec,i| (Conerly et al. 2025), here of dead latents only."""
    below = (threshold - torch.addmm(bias, centred.detach(), encoder.t())).relu()
    return (below * norms).sum() / len(centred)


def l0_loss(fires: Float[Tensor, " nnz"], rows: int) -> Float[Tensor, ""]:
    """Mean number of active latents a row, with the gradients that `fires` has (Rajamanoharan et al. 2024)."""
    return fires.sum() / rows


def l0_distance(l0: Float[Tensor, ""], target: float) -> Float[Tensor, ""]:
    """2 / target times the square of (L0 - target), L0 being the batch's (Gemma Scope 2)."""
    return 2 / target * (l0 - target).square()


def frequency_loss(
    fires: Float[Tensor, " nnz"], index: Int[Tensor, " nnz"], rows: int, d_sae: int,
    data: Group = ALONE.data, share: float = 1.0,
) -> Float[Tensor, ""]:  # fmt: skip
    """Sum over latents of their density beyond a tenth, the densities being the batch's (Gemma Scope 2)."""
    density = data.leave(fires.new_zeros(d_sae).index_add(0, index, fires) / rows, share)
    return (density - OFTEN).relu().sum()


def gate_loss(
    y: Float[Tensor, "rows d_out"],
    gate: Float[Tensor, " nnz"],
    directions: Float[Tensor, "d_sae d_out"],
    rest: Float[Tensor, "*rows d_out"],
    pattern: Pattern,
    variance: float,
    latents: Group = ALONE.latents,
) -> Float[Tensor, ""]:
    """How badly the open gates' own pre-activations rebuild, the decoder taken as given (Rajamanoharan et al. 2024)."""
    y_hat = latents.leave(sparse_mix(gate.relu(), directions.detach(), pattern)) + rest.detach()
    return reconstruction_loss(y, y_hat, variance)


def kl_loss(clean: Float[Tensor, "rows vocab"], edited: Float[Tensor, "rows vocab"]) -> Float[Tensor, ""]:
    """Mean over rows of KL(clean || edited) in nats, from logits, in their own precision; gradients for `edited`."""
    p, q = clean.detach().log_softmax(-1), edited.log_softmax(-1)
    return F.kl_div(q, p, log_target=True, reduction="sum") / len(p)


def balanced_loss(loss: Float[Tensor, ""], divergence: Float[Tensor, ""], beta: float) -> Float[Tensor, ""]:
    """(loss + a beta KL) / (1 + beta), a = loss / (KL + 1e-8) without gradient: at beta 1 both terms are equal.

    Source: Karvonen 2025 ("Revisiting End-To-End Sparse Autoencoder Training"); Gemma Scope 2.
    """
    ratio = loss.detach() / (divergence.detach() + 1e-8)
    return (loss + ratio * beta * divergence) / (1 + beta)
