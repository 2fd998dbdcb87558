"""How good is a trained dictionary? Plain numpy, in float64, so that every tool is scored by the same lines.

Imported by `_quality_trainers.py` in the interpreter of each tool: nothing but numpy is needed. A tool says how it
encodes and decodes; what it calls its own metrics plays no part.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

CHUNK = 4096
NEAR = 0.02  # how far log L0 may be from its target to be called reached
Run = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # rows -> (codes, reconstructions)


def score(run: Run, rows: np.ndarray, decoder: np.ndarray, truth: dict[str, np.ndarray] | None) -> dict[str, float]:
    """FVU, L0 and dead share over the rows; where the truth is known, features recovered, MCC and F1 as well.

    `decoder` is [d_sae, d_in]. `truth` holds `directions` [features, d_in] and `on` [rows, features]. Every feature is
    matched with one latent such that the sum of cosines is largest. `found`: features that any latent has a cosine
    above 0.9 with; `mcc`: mean cosine of the matched pairs; `f1`: mean F1 of "the latent is active" against "the
    feature is on" over the matched pairs. A feature without a latent counts as 0.
    """
    mean = rows.astype(np.float64).mean(0)
    error = total = 0.0
    fires = np.zeros(len(decoder), dtype=np.int64)
    both = None if truth is None else np.zeros((len(decoder), len(truth["directions"])), dtype=np.int64)
    for start in range(0, len(rows), CHUNK):
        x = rows[start : start + CHUNK]
        codes, rebuilt = run(x)
        active = codes > 0
        error += float(((x.astype(np.float64) - rebuilt) ** 2).sum())
        total += float(((x.astype(np.float64) - mean) ** 2).sum())
        fires += active.sum(0)
        if both is not None and truth is not None:
            on = truth["on"][start : start + CHUNK].astype(np.float32)
            both += np.rint(active.astype(np.float32).T @ on).astype(np.int64)
    found = {"fvu": error / total, "l0": fires.sum() / len(rows), "dead": float((fires == 0).mean())}
    if both is None or truth is None:
        return found
    cosine = unit(decoder) @ unit(truth["directions"]).T
    pairs = match(cosine.T)
    feature, latent = np.arange(len(pairs))[pairs >= 0], pairs[pairs >= 0]
    n = truth["on"].sum(0, dtype=np.int64)
    f1 = 2 * both[latent, feature] / np.maximum(fires[latent] + n[feature], 1)
    features = len(truth["directions"])
    return found | {
        "found": float((cosine.max(0) > 0.9).sum()), "mcc": float(cosine[latent, feature].sum() / features),
        "f1": float(f1.sum() / features),
    }  # fmt: skip


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows at length 1 (rows of zeros stay), float64."""
    rows = rows.astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)


def match(gain: np.ndarray) -> np.ndarray:
    """The column that each row gets so that the sum of gains is largest and no column goes twice; -1: none is left.

    The Hungarian method with potentials, in O(rows^2 columns).
    """
    turned = gain.shape[0] > gain.shape[1]
    cost = -(gain.T if turned else gain)
    n, m = cost.shape
    u, v, owner = np.zeros(n + 1), np.zeros(m + 1), np.zeros(m + 1, dtype=np.int64)
    for i in range(1, n + 1):
        owner[0], j0 = i, 0
        least, way, used = np.full(m + 1, np.inf), np.zeros(m + 1, dtype=np.int64), np.zeros(m + 1, dtype=bool)
        while True:
            used[j0] = True
            i0 = owner[j0]
            free = ~used[1:]
            now = cost[i0 - 1] - u[i0] - v[1:]
            better = free & (now < least[1:])
            least[1:][better], way[1:][better] = now[better], j0
            j1 = int(np.where(free, least[1:], np.inf).argmin()) + 1
            delta = least[j1]
            u[owner[used]] += delta
            v[used] -= delta
            least[~used] -= delta
            j0 = j1
            if owner[j0] == 0:
                break
        while j0:
            owner[j0] = owner[way[j0]]
            j0 = int(way[j0])
    out = np.full(n, -1, dtype=np.int64)
    for j in range(1, m + 1):
        if owner[j]:
            out[owner[j] - 1] = j - 1
    if not turned:
        return out
    back = np.full(m, -1, dtype=np.int64)
    back[out] = np.arange(n)
    return back


def interpolate(points: list[dict[str, Any]], l0: float) -> tuple[dict[str, float], bool]:
    """The numbers at an L0, linear in log L0 between the two points around it; the nearest's, and False, outside."""
    points = sorted(points, key=lambda point: point["l0"])
    for a, b in itertools.pairwise(points):
        if a["l0"] <= l0 <= b["l0"] and b["l0"] > a["l0"]:
            t = np.log(l0 / a["l0"]) / np.log(b["l0"] / a["l0"])
            return {key: float((1 - t) * a[key] + t * b[key]) for key in a if isinstance(a[key], float)}, True
    near = min(points, key=lambda point: abs(np.log(max(point["l0"], 1e-9) / l0)))
    return near, bool(abs(np.log(max(near["l0"], 1e-9) / l0)) < NEAR)
