# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Heads that learn to copy, read in their weights
#
# "Mr Ab... said Mr Ab...": after a word that stood before, what came after it the last time is a good guess. Two
# heads of attention in a row can do that, and nothing smaller can. We train a model of two layers, attention alone,
# on random tokens said again and again; watch the moment when it finds out; find the heads; take them away; and then
# read the same circuit in the weights, without running the model at all.
#
# (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; Olsson et al. 2022, "In-context Learning
# and Induction Heads".) The training takes about a minute on two cores.

# %%
import torch
from IPython.display import HTML, display

import lensing as ln
from lensing.causal.attribute import attribute
from lensing.causal.metrics import LogitDifference
from lensing.causal.weights import composition, copying, full_ov, qk
from lensing.draw.heat import heat_html, pattern_html
from lensing.toy.induction import said_twice, train_induction

run = train_induction(quiet=True)
model = run.model
print(model)

# %% [markdown]
# ## The phase change
#
# The first time, a random token cannot be told: its loss stays at log 31 = 3.43 nats. The second time it can be, and
# there the loss does not fall slowly: it stays, and then falls all at once.

# %%
losses = list(zip(run.steps, run.loss_first, run.loss_second, strict=True))
for step, first, second in [*losses[:8], *losses[8::8]]:
    print(f"step {step:5d}   first time {first:.2f}   again {second:.2f}  {'#' * round(second * 12)}")
print("the loss on repeated tokens halves at step", run.phase_change)
assert run.phase_change is not None
assert run.loss_second[-1] < 0.5 < run.loss_first[-1]

# %% [markdown]
# ## Look at the patterns
#
# A text of 10 random tokens said twice. Each picture is one head: a row looks at columns. A stripe just below the
# diagonal is a head that looks at the **previous token**. A stripe further off is one that looks at the token *after*
# the last time that this token was said: an **induction head**.

# %%
generator = torch.Generator().manual_seed(4)
ids, _ = said_twice(1, d_vocab=32, shortest=10, longest=10, generator=generator)
text = ids[0].tolist()
_, cache = model.run_with_cache([text], sites="attn_pattern.*")
scores = ln.head_scores(model, length=14, texts=32)
previous = max(scores.heads("previous", 0.0), key=lambda item: (item[0] == 0, item[2]))[1]
induction = [head for layer, head, _ in scores.heads("induction", 0.5) if layer == 1]
words = [str(token) for token in text]
for layer, head, name in ((0, previous, "previous token"), (1, induction[0], "induction")):
    pattern = cache[f"attn_pattern.{layer}"][0, head]
    display(HTML(pattern_html(f"L{layer}H{head}: {name}", words, pattern.tolist())))

# %% [markdown]
# Not by eye alone: over 32 texts, how much of each head's gaze goes where such a head must look?

# %%
display(scores)
for kind in ("induction", "previous"):
    print(kind, [(f"L{layer}H{head}", round(score, 2)) for layer, head, score in scores.heads(kind, 0.5)])
assert induction, "an induction head, in the second layer"
assert float(scores.previous[0, previous]) > 0.5

# %% [markdown]
# ## Take heads away
#
# If this is how the model does it, then without those heads it cannot: its loss goes back to what it was before the
# phase change. And the previous-token head matters as much as the induction heads, though it writes nothing that
# looks like an answer.

# %%
many, told = said_twice(32, d_vocab=32, shortest=16, longest=16, generator=generator)


def loss(*edits):
    """Mean loss in nats on tokens that were said before."""
    with model.edit(*edits):
        logits = model.logits(many)
    each = logits[:, :-1].log_softmax(-1).gather(-1, many[:, 1:, None])[..., 0].neg()
    return float(each[told[:, 1:]].mean())


def silence(layer, heads):
    """An edit that takes away what some heads found."""

    def quiet(z):
        z = z.clone()
        z[:, :, heads] = 0
        return z

    return ln.Apply(f"attn_z.{layer}", quiet)


others = [head for head in range(4) if head != previous]
whole = loss()
without_induction, without_previous = loss(silence(1, induction)), loss(silence(0, [previous]))
without_others = loss(silence(0, others))
print(f"as it is                      {whole:.2f}")
print(f"without induction heads       {without_induction:.2f}")
print(f"without the previous-token    {without_previous:.2f}")
print(f"without the other {len(others)} of layer 0 {without_others:.2f}")
assert whole < 0.5
assert without_induction > 2.0
assert without_previous > 2.0

# %% [markdown]
# ## Which way does it go? (path patching)
#
# The induction head must *find* the right place. Its keys say "here stands a token before which stood X": that is
# what the previous-token head wrote there. So the way between the two should go through the **keys** (K-composition).
# We let the other text's value flow along one path only: out of a head of layer 0, into the keys (or the queries, or
# the values) of an induction head, and nowhere else.

# %%
other = text.copy()
other[6] = other[16] = next(t for t in range(1, 32) if t not in text)  # the token before the one to be told
clean = text[:17]  # ends with the token that was said at place 6; next comes what stood at 7
right, wrong = text[7], text[3]
metric = LogitDifference((right,), (wrong,))
with_same = [*other[:16], clean[16]]  # the same question, but what was said before has changed
print("answer", right, "logit difference", round(float(metric(model.logits([clean]))), 2))
print("after the other text", round(float(metric(model.logits([with_same]))), 2))
through = {}
for into in ("attn_k", "attn_q", "attn_v"):
    receivers = [(into, 1, head) for head in induction]
    found = ln.path_patch(model, [clean], [with_same], metric, receivers=receivers, layers=[0])
    through[into] = found.effect[0]
    print(f"into {into[-1]}:", {f"L0H{head}": round(float(share), 2) for head, share in enumerate(found.effect[0])})
assert through["attn_k"][previous] == max(effect.max() for effect in through.values())
assert through["attn_k"][previous] > 0.3

# %% [markdown]
# ## Estimates from gradients
#
# Running the model once for each node is exact, and slow on large models. Attribution patching estimates all of them
# at once from one gradient; integrated gradients take a few more. Where they rank nodes as patching does, they may be
# trusted to say where to look. A single gradient is blind where an attention pattern is saturated (a sure gaze does
# not move when its scores move a little), and such heads are the very ones we look for.

# %%
pair = ([clean], [with_same])
exact = ln.patch(model, *pair, metric, site="attn_z").effect.flatten()
estimates = {
    "gradient": attribute(model, *pair, metric, site="attn_z").effect.flatten(),
    "integrated gradients": attribute(model, *pair, metric, site="attn_z", method="ig", steps=16).effect.flatten(),
}


def ranks(x):
    """The place of each number when they are sorted."""
    return x.argsort().argsort().double()


for name, estimate in estimates.items():
    strong = exact.abs() > 0.02
    agreement = torch.corrcoef(torch.stack([ranks(exact[strong]), ranks(estimate[strong])]))[0, 1]
    print(f"{name}: rank correlation with patching {float(agreement):.2f} over {int(strong.sum())} nodes")

# %% [markdown]
# ## Read the circuit in the weights
#
# What a head *moves* is a matrix, W_E W_V W_O W_U: from the token it looks at to what it says about the next token.
# It is as large as the vocabulary squared, but of rank `d_head`, and is never formed. An induction head copies: it
# says the token it looks at, so the diagonal of this matrix is large.

# %%
for head in range(4):
    print(f"L1H{head}: copies {copying(model, 1, head):+.2f}", "(induction)" if head in induction else "")
ov = full_ov(model, 1, induction[0])
table = ov.dense()  # small enough here to look at
own = (table.argmax(1) == torch.arange(len(table))).double().mean()
print(f"L1H{induction[0]}: for {float(own):.0%} of all tokens, the token that is looked at is the one that is said")
some = text[:8]
display(HTML(heat_html("from token (row) to word (column)", words[:8], words[:8], table[some][:, some].tolist())))
assert copying(model, 1, induction[0]) > 0.5
assert own > 0.8

# %% [markdown]
# What a head *looks for* is another matrix, W_Q W_K^T. An induction head's keys must read what the previous-token
# head wrote. How much of what a head of layer 0 writes is read by the keys of a head of layer 1, less what random
# matrices of these shapes give:

# %%
k = composition(model, "k")
for head in induction:
    row = {f"L0H{h}": round(float(k[0, h, 1, head]), 3) for h in range(4)}
    print(f"keys of L1H{head} read", row)
    assert int(k[0, :, 1, head].argmax()) == previous
looks_for = qk(model, 1, induction[0])
print(f"its QK circuit: {looks_for.shape[0]} x {looks_for.shape[1]}, of rank {looks_for.left.shape[1]}, never formed")

# %% [markdown]
# ## What you have seen
#
# The same claim by five ways that know nothing of each other: patterns, ablation, paths, gradients, weights. That is
# what it takes to say "this is how the model does it", and here all of it fits on one page.
#
# Next: [neurons that mean many things, and latents that mean one](03_superposition_and_dictionaries.py).
