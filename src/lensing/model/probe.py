"""One tiny forward pass that shows what structure cannot: what adds up to the stream, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lensing.model.attention import AttentionTap, eager
from lensing.model.blocks import Block
from lensing.model.places import Layout, first_input, first_output

LENGTH = 6


@dataclass(frozen=True)
class Contribution:
    """What is added to the stream: this module's output, times a factor."""

    module: nn.Module
    factor: float | None = None


@dataclass
class Verdict:
    """What the probe showed of one block; a contribution that is None was not found."""

    sequential: bool = False
    attn: Contribution | None = None
    mlp: Contribution | None = None
    sinks: int | None = None
    """Columns that the softmax has behind the keys; None where there is not one softmax of scores by head."""
    layouts: dict[str, Layout] = field(default_factory=dict)
    """q, k and v in the output of a fused projection."""
    up: tuple[nn.Module, slice] | None = None
    """In a gated MLP: the map whose output (or half of it) is multiplied by the activated gate."""
    z_exact: bool = False
    """Whether patterns times values are what W_O reads."""

    @property
    def adds_up(self) -> bool:
        """Whether contributions were found that add up to the stream."""
        return self.attn is not None and self.mlp is not None


@dataclass
class Findings:
    """What the probe showed of a model."""

    verdicts: list[Verdict]
    written_over: set[tuple[int, str]]
    left_alone: set[tuple[int, str]]
    """Spots (module id, side) whose tensor later code writes into."""
    tuples: list[int]
    """Of each block: how many things it returns, 0 for a bare tensor."""
    last: Tensor
    logits: Tensor


class _Watch:
    """Inputs and outputs of modules, softmaxes of attention modules, and copies to tell what was written over."""

    def __init__(self) -> None:
        self.seen: dict[tuple[int, str], Tensor] = {}
        self.copies: dict[tuple[int, str], Tensor] = {}
        self.softmaxes: dict[int, list[tuple[Tensor, Tensor]]] = {}
        self.tuples: dict[int, int] = {}
        self._handles: list[Any] = []

    def both_sides(self, module: nn.Module | None) -> None:
        if module is None:
            return

        def on_in(m: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._note((id(m), "in"), first_input(args, kwargs))

        def on_out(m: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self.tuples[id(m)] = len(output) if isinstance(output, tuple) else 0
            self._note((id(m), "out"), first_output(output))

        self._handles += [module.register_forward_pre_hook(on_in, with_kwargs=True),
                          module.register_forward_hook(on_out)]  # fmt: skip

    def softmax(self, module: nn.Module | None) -> None:
        if module is None:
            return
        calls = self.softmaxes.setdefault(id(module), [])

        def on_softmax(scores: Tensor, run: Any) -> Tensor:
            pattern = run(scores)
            calls.append((scores, pattern))
            return pattern

        self._handles.append(AttentionTap(module, on_softmax).attach())

    def _note(self, key: tuple[int, str], value: Tensor) -> None:
        self.seen[key], self.copies[key] = value, value.clone()

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


@torch.no_grad()
def probe(hf: Any, config: Any, blocks: Sequence[Block], ids: Tensor, n_heads: int, d_head: int) -> Findings:
    """Run the model once on a few tokens, and of every block find which parts add up."""
    watch = _Watch()
    try:
        for block in blocks:
            parts = [block.module, block.attn, block.attn_norm, block.attn_post, block.mlp, block.mlp_norm]
            for module in {id(m): m for m in [*parts, block.mlp_post, block.act, *block.linears.values()]}.values():
                watch.both_sides(module)
            watch.softmax(block.attn)
        with eager(config):
            logits = hf(input_ids=ids, use_cache=False).logits
    finally:
        watch.close()
    over = {key for key, value in watch.seen.items() if not torch.equal(value, watch.copies[key])}
    seen = watch.copies
    factor = getattr(config, "residual_multiplier", None)
    verdicts = []
    for block in blocks:
        verdict = _additions(block, seen, factor if isinstance(factor, float) else None)
        if (block.module and (id(block.module), "in") in seen) and block.attn is not None:
            _attention(verdict, block, seen, watch.softmaxes[id(block.attn)], n_heads, d_head)
        _gate(verdict, block, seen)
        verdicts.append(verdict)
    last = seen.get((id(blocks[-1].module), "out"), logits)
    return Findings(
        verdicts, over, set(watch.seen) - over, [watch.tuples.get(id(b.module), 0) for b in blocks], last, logits
    )


def _additions(block: Block, seen: dict[tuple[int, str], Tensor], multiplier: float | None) -> Verdict:
    pre, post = seen.get((id(block.module), "in")), seen.get((id(block.module), "out"))
    if pre is None or post is None:
        return Verdict()
    mid = seen.get((id(block.middle), "in"))
    size = pre.shape
    factors = [None] if multiplier is None else [multiplier, None]

    def candidates(part: str) -> list[tuple[Contribution, Tensor]]:
        return [
            (Contribution(m, f), seen[id(m), "out"].reshape(size) * (1.0 if f is None else f))
            for m in block.contributions(part)
            for f in factors
            if (id(m), "out") in seen and seen[id(m), "out"].numel() == size.numel()
        ]

    attn, mlp = candidates("attn"), candidates("mlp")
    if mid is not None and mid.numel() == pre.numel():
        mid = mid.reshape(pre.shape)
        a = next((c for c, value in attn if close(mid, pre + value)), None)
        m = next((c for c, value in mlp if close(post, mid + value)), None)
        if a is not None and m is not None and not close(mid, pre):
            return Verdict(sequential=True, attn=a, mlp=m)
    for a, value in attn:
        for m, other in mlp:
            if close(post, pre + value + other):
                return Verdict(attn=a, mlp=m)
    return Verdict()


def _attention(
    verdict: Verdict, block: Block, seen: dict[tuple[int, str], Tensor], calls: list[tuple[Tensor, Tensor]],
    n_heads: int, d_head: int,
) -> None:  # fmt: skip
    """Find the softmax's shape, and where q, k and v lie in a fused projection, by pattern times values = z."""
    if len(calls) != 1 or calls[0][0].dim() != 4:
        return
    scores, pattern = calls[0]
    queries = scores.shape[-2]
    if scores.shape[1] != n_heads or not 0 <= scores.shape[-1] - queries <= 1:
        return
    verdict.sinks = scores.shape[-1] - queries
    z = seen.get((id(block.linears.get("o")), "in"))
    if z is None or z.numel() != queries * n_heads * d_head:
        return
    z = z.reshape(1, queries, n_heads, d_head)
    weights = pattern[..., :queries].to(z.dtype)

    def gives_z(v: Tensor) -> bool:
        v = v.repeat_interleave(n_heads // v.shape[2], 2)
        return close(torch.einsum("bhqk,bkhd->bqhd", weights, v), z, slack=8)

    if "v" in block.linears:
        v = seen[id(block.linears["v"]), "out"]
        verdict.z_exact = gives_z(v.reshape(1, queries, -1, d_head)) if v.shape[-1] % d_head == 0 else False
    elif "qkv" in block.linears:
        fused = seen[id(block.linears["qkv"]), "out"].reshape(1, queries, -1)
        for layout in _layouts(fused.shape[-1], n_heads, d_head, fused.device):
            if gives_z(layout["v"].take(fused)):
                verdict.layouts, verdict.z_exact = layout, True
                break


def _layouts(width: int, n_heads: int, d_head: int, device: torch.device) -> list[dict[str, Layout]]:
    """The ways in which families lay q, k and v of all heads side by side."""
    slots = width // d_head
    if width % d_head or slots <= n_heads or (slots - n_heads) % 2:
        return []
    index = torch.arange(width, device=device).reshape(slots, d_head)
    kv = (slots - n_heads) // 2
    group = n_heads // kv
    # all queries, then all keys, then all values (GPT-2, Phi-3, MPT)
    apart = {"q": index[:n_heads], "k": index[n_heads : n_heads + kv], "v": index[n_heads + kv :]}
    # for each key head: its queries, its key, its value (NeoX, Bloom, Falcon)
    by_group = index.reshape(kv, group + 2, d_head)
    together = {"q": by_group[:, :group].reshape(n_heads, d_head), "k": by_group[:, group], "v": by_group[:, group + 1]}
    return [{name: Layout(part) for name, part in one.items()} for one in (apart, together)]


def _gate(verdict: Verdict, block: Block, seen: dict[tuple[int, str], Tensor]) -> None:
    """Find what the activated gate is multiplied by."""
    act, down = seen.get((id(block.act), "out")), seen.get((id(block.linears.get("down")), "in"))
    if act is None or down is None or act.numel() != down.numel() or close(act.reshape(down.shape), down):
        return
    act = act.reshape(down.shape)
    for module in block.ups.values():
        out = seen.get((id(module), "out"))
        if out is None:
            continue
        half = out.shape[-1] // 2
        for part in (slice(None), slice(half), slice(half, None)):
            value = out[..., part]
            if value.numel() == down.numel() and close(act * value.reshape(down.shape), down):
                verdict.up = module, part
                return


def close(a: Tensor, b: Tensor, slack: float = 1.0) -> bool:
    """Equal up to a few roundings of the larger of the two."""
    scale = max(float(a.abs().max()), float(b.abs().max()))
    return float((a - b).abs().max()) <= slack * 8 * torch.finfo(a.dtype).eps * scale
