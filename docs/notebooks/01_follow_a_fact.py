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
# # Follow a fact through a transformer
#
# A model that was trained on the texts of an invented world is asked for the capital of a country. We look at what it
# carries at each word, at what its layers would say, at which parts speak for the answer, and then we change single
# activations until we know by which way the name of the country becomes the name of its capital.
#
# Nothing is downloaded: the model `almanac` is part of the package, and each cell runs in seconds on a laptop.

# %%
import torch
from IPython.display import HTML, display

import lensing as ln
from lensing.draw.heat import pattern_html

model = ln.load_model("almanac")
prompt = "The capital of Aurania is"
print(model)
print("tokens:", model.encode(prompt).strings[0])

# %% [markdown]
# ## One vector for each word, layer after layer
#
# At each token the model carries a vector of `d_model` numbers, the **residual stream**. Each layer reads it and adds
# to it: its attention moves something over from earlier tokens, its MLP works on the token alone. Every place in this
# computation has a name, a **site**, and `run_with_cache` captures those that are named.

# %%
logits, cache = model.run_with_cache(prompt, sites=["resid_pre.*", "resid_post.*", "attn_out.*", "mlp_out.*"])
print("resid_post.2:", list(cache["resid_post.2"].shape), "(batch, position, d_model)")

# what a layer adds is all that changes: the stream is a sum
layer = 3
total = cache["resid_pre", layer] + cache["attn_out", layer] + cache["mlp_out", layer]
print("largest difference:", float((total - cache["resid_post", layer]).abs().max()))
assert torch.allclose(total, cache["resid_post", layer], atol=1e-4)

# %% [markdown]
# The last vector is turned into a probability for every word of the vocabulary.

# %%
p = logits[0, -1].softmax(-1)
for value, token in zip(*p.topk(4), strict=True):
    print(f"{model.tok_str(int(token))[0]:>12} {float(value):.4f}")
answer = model.tok_str(int(p.argmax()))[0].strip()
assert answer == "Astwick"
assert p.max() > 0.9

# %% [markdown]
# ## What would each layer say? (the logit lens)
#
# All layers write into one stream, so we can stop early and turn an unfinished vector into words. That is a reading,
# not a measurement of what the model "thinks", but it shows *when* the answer appears, and at which token.

# %%
grid = ln.lens_grid(model, prompt)
display(HTML(grid._repr_html_()))
lens = ln.logit_lens(model, prompt, top=1)
for layer in lens.layers:
    word, probability = lens.top(layer)[0]
    print(f"after layer {layer}: {word.strip():>10} {probability:.2f}")
print("the answer leads from layer", lens.lead_layer())

# %% [markdown]
# ## Which parts speak for it? (direct logit attribution)
#
# The stream is a sum, and (with the final norm's scale held as it is) the logit of a word is a sum over the parts
# that wrote it. We take the *difference* between the right capital and that of another country: what both have in
# common then drops out. The parts sum to the model's own number, and how far they are from it is printed.

# %%
other = "Eskmouth"  # the capital of Galania
parts = ln.direct_logit_attribution(model, prompt, answer, minus=other, by="head")
display(parts)
print(f"{parts.whole:.3f} in all, the parts sum to within {parts.error:.1e}")
assert parts.error < 1e-3

# %% [markdown]
# ## What do the heads look at?
#
# A **head** of attention spreads its gaze over the tokens so far. The pattern says how much: one row for each token
# that looks, one column for each token that is looked at.

# %%
best = next(part for part in parts.top(10) if part.kind == "head")
_, seen = model.run_with_cache(prompt, sites=f"attn_pattern.{best.layer}")
words = cache.tokens[0]
pattern = seen[f"attn_pattern.{best.layer}"][0, best.index]
display(HTML(pattern_html(f"where {best.label} looks", words, pattern.tolist())))
assert torch.allclose(pattern.sum(-1), torch.ones(len(words)), atol=1e-4)

# %% [markdown]
# ## Change one activation: patching
#
# To *find out* what carries the country, we run the sentence about another country, and put one single activation of
# our sentence into it. 1 means: this one activation alone turns the answer from the other capital into ours.

# %%
clean, corrupt = "The capital of Aurania is", "The capital of Galania is"
metric = ln.logit_difference(model, answer, other)
patched = ln.patch(model, clean, corrupt, metric, site="resid_pre")
display(patched)
names, columns, effect = patched.grid()
country, last = clean.split().index("Aurania") + 1, len(columns) - 1
print("carried by the country's own token on the way in:", round(float(effect[0, country]), 2))
print("carried by the last token on the way out:", round(float(effect[-1, last]), 2))
assert effect[0, country] > 0.95
assert effect[-1, last] > 0.9

# %% [markdown]
# At first the fact stands at the name of the country, in the end at the last word: somewhere between, it is carried
# over. Which layer's attention does that, and which heads?

# %%
heads = ln.patch(model, clean, corrupt, metric, site="attn_z", positions=[last])
for name, share in heads.top(4):
    print(f"{share:+.2f}  {name}")
display(heads)
assert heads.top(1)[0][1] > 0.1

# %% [markdown]
# ## Take parts away: ablation
#
# Patching shows what is *enough* to bring the answer. What is *needed* shows when we take it away. In the place of
# each head's output we put its mean over other sentences, so that only what is particular to this one is lost.

# %%
countries = ["Galania", "Sarania", "Ildmark", "Belmark"]
reference = [f"The capital of {name} is" for name in countries]
lost = ln.ablation(model, prompt, metric, site="attn_z", method="mean", reference=reference)
for name, effect in lost.top(5):
    print(f"{effect:+.2f}  {name}")
print("whole:", round(lost.whole, 2))
assert lost.top(1)[0][1] < -0.5

# %% [markdown]
# ## What you have seen
#
# - The stream is a sum, so that each number the model gives can be divided into parts, exactly.
# - The logit lens says when an answer appears; patching and ablation say what brings it there.
# - A head that *writes* the answer (attribution) need not be the one that *carries* the question (patching): a later
#   part may read what an earlier one wrote.
#
# Next: [heads that learn to copy](02_induction_heads.py), on a model so small that we can read its circuit in the
# weights.
