"""What heads could do, read from their weights alone: OV and QK circuits, copying, composition, words of directions.

Matrices act on rows (x @ M). Gains of the norms before a head, after it and at the end are folded in, the division by
the norms' lengths is left out. Nothing as large as vocabulary by vocabulary is ever formed. Elhage et al. 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lensing.errors import SiteError, UsageError
from lensing.lens.words import direct_words
from lensing.model.matrices import matrix, weight_of
from lensing.model.run import Model


@final
@dataclass(frozen=True, eq=False)
class LowRank:
    """A product left @ right of a tall and a wide matrix, kept as the two."""

    left: Float[Tensor, "m r"]
    right: Float[Tensor, "r n"]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the product."""
        return self.left.shape[0], self.right.shape[1]

    @property
    def T(self) -> LowRank:
        """The transpose."""
        return LowRank(self.right.T, self.left.T)

    def __matmul__(self, other: LowRank | Tensor) -> LowRank:
        """The product with another matrix, at the smaller of the two ranks."""
        if isinstance(other, Tensor):
            return LowRank(self.left, self.right @ other)
        middle = self.right @ other.left
        if self.right.shape[0] <= other.left.shape[1]:
            return LowRank(self.left, middle @ other.right)
        return LowRank(self.left @ middle, other.right)

    def rows(self, index: Tensor | slice | int) -> Tensor:
        """Some rows of the product."""
        return self.left[index] @ self.right

    def dense(self) -> Float[Tensor, "m n"]:
        """The product itself; for small ones."""
        return self.left @ self.right

    def norm(self) -> float:
        """The Frobenius norm."""
        return float(((self.left.T @ self.left) * (self.right @ self.right.T)).sum().clamp(min=0).sqrt())

    def eigenvalues(self) -> Tensor:
        """The eigenvalues that are not zero by rank, of a square product: those of right @ left."""
        if self.shape[0] != self.shape[1]:
            raise UsageError(f"A matrix of shape {list(self.shape)} has no eigenvalues. Give a square one.")
        return torch.linalg.eigvals(self.right @ self.left)

    def svd(self) -> tuple[Float[Tensor, "m r"], Float[Tensor, " r"], Float[Tensor, "r n"]]:
        """Left vectors, singular values (largest first) and right vectors, without forming the product."""
        q1, r1 = torch.linalg.qr(self.left)
        q2, r2 = torch.linalg.qr(self.right.T)
        u, s, v = torch.linalg.svd(r1 @ r2.T, full_matrices=False)
        return q1 @ u, s, v @ q2.T


def ov(model: Model, layer: int, head: int) -> LowRank:
    """What a head moves: from the normed stream at the token it reads to what it adds at the token that reads."""
    _check(model, layer, head)
    block, verdict = model.adapter.blocks[layer], model.adapter.verdict(layer)
    kv = head // (model.n_heads // model.adapter.n_kv_heads)
    w_v = _gained(model, block.attn_norm, _projection(model, layer, "v", kv))
    w_o = matrix(block.linears["o"], model.device).double().reshape(model.n_heads, model.d_head, -1)[head]
    if verdict.attn is not None and verdict.attn.module is block.attn_post:
        norm = model.adapter.norm(block.attn_post)
        assert norm is not None
        w_o = w_o * norm.gain.double()
        w_o = w_o - w_o.mean(-1, keepdim=True) if norm.centres else w_o
    return LowRank(w_v, w_o if verdict.attn is None or verdict.attn.factor is None else w_o * verdict.attn.factor)


def qk(model: Model, layer: int, head: int) -> LowRank:
    """What a head looks for: x_query @ M @ x_key is its score, but for sqrt(d_head), biases and rotations.

    Rotary heads turn queries and keys by their positions, so this is their score at distance 0 only.
    """
    _check(model, layer, head)
    block = model.adapter.blocks[layer]
    kv = head // (model.n_heads // model.adapter.n_kv_heads)
    w_q = _gained(model, block.attn_norm, _projection(model, layer, "q", head))
    return LowRank(w_q, _gained(model, block.attn_norm, _projection(model, layer, "k", kv)).T)


def full_ov(model: Model, layer: int, head: int) -> LowRank:
    """What reading a token says about the next one: W_E OV W_U, vocabulary by vocabulary, of the embedding alone."""
    head_ov = ov(model, layer, head)
    return LowRank(_embedding(model) @ head_ov.left, head_ov.right @ matrix_of_words(model))


def copying(model: Model, layer: int, head: int) -> float:
    """sum(lambda) / sum(|lambda|) over the eigenvalues of the full OV circuit: 1 copies, -1 does the opposite."""
    values = full_ov(model, layer, head).eigenvalues()
    return float(values.sum().real / values.abs().sum())


def composition(
    model: Model, kind: Literal["q", "k", "v"], *, seed: int = 0, samples: int = 16
) -> Float[Tensor, "n_layers n_heads n_layers n_heads"]:
    """How much each later head reads of each earlier one through its queries, keys or values.

    Entry [l1, h1, l2, h2] is |A B|_F / (|A|_F |B|_F), A the OV of the earlier head and B the later one's QK (of keys
    transposed) or OV, less the mean of the same for random matrices of these shapes. 0 where l2 is not later.
    """
    if kind not in ("q", "k", "v"):
        raise UsageError(f"There is no composition through {kind!r}. Give 'q', 'k' or 'v'.")
    n, h = model.n_layers, model.n_heads
    writers = [[ov(model, layer, head) for head in range(h)] for layer in range(n)]
    readers = []
    for layer in range(n):
        made = [ov(model, layer, head) if kind == "v" else qk(model, layer, head) for head in range(h)]
        readers.append([m.T if kind == "k" else m for m in made])
    generator = torch.Generator().manual_seed(seed)

    def random(like: LowRank) -> LowRank:
        return LowRank(
            *(torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t) for t in (like.left, like.right))
        )

    chance = [_share(random(writers[0][0]), random(readers[0][0])) for _ in range(samples)]
    found = torch.zeros(n, h, n, h, dtype=torch.float64)
    for l1 in range(n):
        for l2 in range(l1 + 1, n):
            for h1 in range(h):
                for h2 in range(h):
                    found[l1, h1, l2, h2] = _share(writers[l1][h1], readers[l2][h2]) - sum(chance) / samples
    return found


def singular_words(
    model: Model, layer: int, head: int, *, n: int = 3, top: int = 8
) -> list[tuple[float, list[str], list[str]]]:
    """Return the largest singular directions of a head's OV: value, words it reads, words it then speaks for.

    The sign of a direction is arbitrary; both sides turn together. Millidge and Black 2022.
    """
    u, s, v = ov(model, layer, head).svd()
    reads = _embedding(model) @ u[:, :n]
    says = direct_words(model, v[:n].float())
    return [
        (
            float(s[i]),
            model.tok_str(reads[:, i].topk(min(top, model.d_vocab)).indices),
            model.tok_str(says[i].topk(min(top, model.d_vocab)).indices),
        )
        for i in range(min(n, len(s)))
    ]


def matrix_of_words(model: Model) -> Float[Tensor, "d_model vocab"]:
    """The unembedding with the final norm's gain folded in, in float64."""
    return _gained(model, model.adapter.final_norm, model.W_U.double())


def _share(a: LowRank, b: LowRank) -> float:
    return (a @ b).norm() / ((a.norm() * b.norm()) or 1.0)


def _embedding(model: Model) -> Float[Tensor, "vocab d_model"]:
    return weight_of(model.adapter.embedding, model.device).double()


def _projection(model: Model, layer: int, name: str, head: int) -> Float[Tensor, "d_model d_head"]:
    block = model.adapter.blocks[layer]
    if name in block.linears:
        weight = matrix(block.linears[name], model.device).double()
        return weight[:, head * model.d_head : (head + 1) * model.d_head]
    layout = model.adapter.verdict(layer).layouts.get(name)
    if layout is None:
        raise SiteError(f"{model.name} has no projection in which queries, keys and values could be told apart.")
    return matrix(block.linears["qkv"], model.device).double()[:, layout.index[head]]


def _gained(model: Model, module: nn.Module | None, weight: Float[Tensor, "d n"]) -> Float[Tensor, "d n"]:
    """A matrix that reads a norm's output, as it reads the norm's input times its scale."""
    norm = model.adapter.norm(module)
    return weight if norm is None else norm.pull(weight.T).T


def _check(model: Model, layer: int, head: int) -> None:
    if not 0 <= layer < model.n_layers or not 0 <= head < model.n_heads:
        raise UsageError(
            f"There is no head {head} of layer {layer}. Give heads 0 to {model.n_heads - 1} of layers 0 to "
            f"{model.n_layers - 1}."
        )
    if "o" not in model.adapter.blocks[layer].linears:
        raise SiteError(f"Layer {layer} of {model.name} has no output projection of attention.")
