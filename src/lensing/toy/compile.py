"""Compile a program into the weights of a GPT-2 without norms, so that every direction and every circuit is known.

The idea is Tracr's (Lindner et al. 2023). A variable has columns of the residual stream of its own, one for each value;
a step that attends is the one head of a layer, a function of variables is neurons that fire for one combination each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lensing.model.create import new_relu_gpt2
from lensing.model.run import Model
from lensing.toy.rasp import Attend, Count, Map, Program

HARD = 200.0  # score of what is looked at, above what is not: e^-200 of the attention goes elsewhere
SHARP = 30.0  # logit of the answer


@final
@dataclass(frozen=True, eq=False)
class Compiled:
    """The model, and where each variable lives: its columns of the stream, and the layer and part that write it."""

    program: Program
    model: Model
    columns: dict[str, slice]
    written: dict[str, tuple[int, str]]

    def read(self, stream: Float[Tensor, "... d_model"], name: str) -> Float[Tensor, "... size"]:
        """Return a variable's columns of a residual stream: a one-hot, or a share."""
        return stream[..., self.columns[name]]

    def answers(self, words: list[int]) -> list[float]:
        """Return what the model says at the last n positions: the likeliest number, or the share."""
        _, cache = self.model.run_with_cache(self.program.text(words), sites=[f"resid_post.{self.model.n_layers - 1}"])
        stream = next(iter(cache.values()))[0]
        out = self.read(stream[-self.program.n :], self.program.output)
        return out[:, 0].tolist() if out.shape[1] == 1 else out.argmax(1).double().tolist()


def compile_program(program: Program, *, dtype: torch.dtype = torch.float64) -> Compiled:
    """Return a model that runs a program exactly, up to e^-200 of its attention."""
    columns, d = {}, 0
    for name, size in program.sizes.items():
        columns[name] = slice(d, d + size)
        d += size
    layers = layers_of(program)
    widest = max(sum(_neurons(step, program) for step in layer[1]) for layer in layers)
    vocab = max(program.words + 2, program.sizes[program.output])
    hf = new_relu_gpt2(d_vocab=vocab, d_model=d, n_layers=len(layers), d_mlp=max(widest, 1), context=program.length).to(
        dtype
    )
    written: dict[str, tuple[int, str]] = {}
    with torch.no_grad():
        for weight in hf.parameters():
            weight.zero_()
        for token in range(program.words + 2):
            hf.transformer.wte.weight[token, columns["token"].start + token] = 1
        for position in range(program.length):
            hf.transformer.wpe.weight[position, columns["index"].start + position] = 1
        for number, (attend, steps) in enumerate(layers):
            block = hf.transformer.h[number]
            if attend is not None:
                _write_head(block.attn, attend, program, columns)
                written[attend.name] = (number, "attn")
            first = 0
            for step in steps:
                first = _write_neurons(block.mlp, step, program, columns, first)
                written[step.name] = (number, "mlp")
        out = columns[program.output]
        for value in range(out.stop - out.start):
            hf.lm_head.weight[value, out.start + value] = SHARP if out.stop - out.start > 1 else 1.0
    return Compiled(program, Model(hf.eval().requires_grad_(False), name=program.name), columns, written)


def layers_of(program: Program) -> list[tuple[Attend | None, list[Map | Count]]]:
    """Put each step into the first layer in which all that it reads is there."""
    layers: list[tuple[Attend | None, list[Map | Count]]] = []
    for step in program.steps:
        if isinstance(step, Attend):
            layers.append((step, []))
            continue
        reads = {step.share} if isinstance(step, Count) else set(step.inputs)
        if not layers or reads & {other.name for other in layers[-1][1]}:
            layers.append((None, []))
        layers[-1][1].append(step)
    return layers


def _write_head(attn: nn.Module, step: Attend, program: Program, columns: dict[str, slice]) -> None:
    """Queries hold a row of what goes with them, keys and values one-hots."""
    d = attn.c_proj.weight.shape[0]  # type: ignore[union-attr]
    scale = HARD * d**0.5
    weight, out = attn.c_attn.weight, attn.c_proj.weight  # type: ignore[union-attr]
    for key in range(program.sizes[step.key]):
        weight[columns[step.key].start + key, d + key] = 1.0  # type: ignore[index]
        for query in range(program.sizes[step.query]):
            if step.goes(query, key):
                weight[columns[step.query].start + query, key] = scale  # type: ignore[index]
    for value in range(program.sizes[step.value]):
        row = columns[step.value].start + value
        if step.only is None:
            weight[row, 2 * d + value] = 1.0  # type: ignore[index]
            out[value, columns[step.name].start + value] = 1.0  # type: ignore[index]
        elif step.only(value):
            weight[row, 2 * d] = 1.0  # type: ignore[index]
    if step.only is not None:
        out[0, columns[step.name].start] = 1.0  # type: ignore[index]


def _neurons(step: Map | Count, program: Program) -> int:
    if isinstance(step, Count):
        return 2 * step.size
    total = 1
    for name in step.inputs:
        total *= program.sizes[name]
    return total


def _write_neurons(
    mlp: nn.Module, step: Map | Count, program: Program, columns: dict[str, slice], first: int
) -> int:  # fmt: skip
    """A neuron for every combination of inputs, or two for every edge between counts; returns the next free one."""
    into, bias, out = mlp.c_fc.weight, mlp.c_fc.bias, mlp.c_proj.weight  # type: ignore[union-attr]
    target = columns[step.name].start
    if isinstance(step, Count):
        for m in range(step.size):
            # above the edge there are m of them or fewer: a ramp from 0 to 1, narrower than what lies between counts
            edge = (1 / (m + 1) + 1 / (m + 2)) / 2
            steep = 4 / (1 / (m + 1) - 1 / (m + 2))
            for half, sign in ((0.5, 1.0), (-0.5, -1.0)):
                into[columns[step.share].start, first] = steep  # type: ignore[index]
                bias[first] = half - steep * edge  # type: ignore[index]
                out[first, target + m] += sign  # type: ignore[index]
                if m + 1 < step.size:
                    out[first, target + m + 1] -= sign  # type: ignore[index]
                first += 1
        return first
    for combination in torch.cartesian_prod(*(torch.arange(program.sizes[n]) for n in step.inputs)).tolist():
        values = combination if isinstance(combination, list) else [combination]
        for name, value in zip(step.inputs, values, strict=True):
            into[columns[name].start + value, first] = 1.0  # type: ignore[index]
        bias[first] = 1.0 - len(values)  # type: ignore[index]
        out[first, target + step.function(*values)] = 1.0  # type: ignore[index]
        first += 1
    return first
