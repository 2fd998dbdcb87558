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
# # Neurons that mean many things, latents that mean one
#
# A model knows more things than it has neurons. It packs them together (**superposition**): one neuron answers to
# many things that rarely come together. A **sparse autoencoder** tries to undo this: it writes the model's vectors as
# sums of a few directions out of many, its **latents**. We look at one neuron, train such a dictionary in half a
# minute, look at its latents, turn one up, and then ask how much of the model it does *not* say.

# %%
import lensing as ln
from lensing.data.text import sample_documents
from lensing.measure.contexts import Passages, latent_columns, read_columns, strongest
from lensing.world.shipped import shipped_text, some_documents

model = ln.load_model("almanac")
SITE = "mlp_out.2"
documents, _ = some_documents(shipped_text("almanac"), 24_000)
text = Passages.of(model, documents, "the almanac's own text")
print(f"{text.documents} documents, {len(text.ids):,} tokens; the MLP of layer 2 has {model.d_mlp} neurons")


def show(columns, which=0, n=6):
    """Print where a column of numbers is largest, each place once."""
    for c in strongest(model, text, columns[:, which], n):
        words = [f"[{t.strip()}]" if i == c.peak else t.strip() for i, t in enumerate(c.tokens)]
        print(f"{c.value:7.2f}  {' '.join(words[max(0, c.peak - 9) : c.peak + 3])}")


# %% [markdown]
# ## One neuron
#
# We take the neuron that is strongest at the end of a sentence, and look for the places in other texts where it is as
# strong. What do they have in common?

# %%
prompt = "The reliability of the Almanac is very"
_, cache = model.run_with_cache(prompt, sites=["mlp_post.2", SITE])
neuron = int(cache["mlp_post.2"][0, -1].abs().argmax())
(neurons,) = read_columns(model, text, [("mlp_post.2", lambda rows: rows.float())])
print("neuron", neuron)
show(neurons, neuron, 8)

# %% [markdown]
# This one is easy to name: it is strong where a word of praise or blame must come. The strongest neuron of a sentence
# is not a typical one, though. How often is each neuron busy (above a tenth of its largest value)? We look at the one
# in the middle.

# %%
counted = neurons[text.counted].abs()
busy = (counted > 0.1 * counted.max(0).values).double().mean(0)
typical = int(busy.argsort()[len(busy) // 2])
print(f"neuron {neuron} is busy on {float(busy[neuron]):.0%} of all tokens")
print(f"neuron {typical}, the typical one, on {float(busy[typical]):.0%}:")
show(neurons, typical, 8)

# %% [markdown]
# Rain that was promised, and papers that counted seven geese: the typical neuron has no single name.
#
# ## Train a dictionary
#
# TopK: for each vector only the k largest latents may speak. `ln.train` reads the activations as the model makes
# them. FVU is the share of variance that the reconstruction misses, on text that was not trained on.

# %%
written = sample_documents(model, 60_000, seed=0)  # the model's own words: no data needed
sae = ln.train(ln.live(model, written, sites=SITE), ln.TopK(width=576, k=16), tokens=240_000, quiet=True)
facts = sae.statistics
print(f"FVU {facts.fvu:.3f}, {facts.l0:.0f} latents a token, {facts.dead_share:.1%} never active")
assert facts.fvu < 0.5
assert round(facts.l0) == 16

# %% [markdown]
# ## Latents
#
# The latents that are active at the end of our sentence, and where else they are.

# %%
codes = sae.encode(cache[SITE])
latents, values = codes.row(codes.rows - 1)
order = values.argsort(descending=True)[:4]
(columns,) = read_columns(model, text, [(SITE, latent_columns(sae, latents[order].tolist()))])
for i, latent in enumerate(latents[order].tolist()):
    density = float((columns[text.counted, i] > 0).double().mean())
    print(f"\nlatent {latent}, active on {density:.1%} of all tokens")
    show(columns, i, 4)

# %% [markdown]
# ## What does a latent do?
#
# Firing is not doing. For a difference of two next words, each latent's effect is measured through everything that
# comes after it, here by running the model without it. What the dictionary misses, its **error**, is in the list like
# any other. Where it stands high up, the list of latents does not explain the word.

# %%
fact = "The capital of Aurania is"
metric = ln.logit_difference(model, "Astwick", "Eskmouth")
shipped = ln.load_dictionary("almanac/resid_post.2/w1024", model=model)
effects = ln.latent_effects(model, shipped, fact, metric, corrupt="The capital of Galania is", method="exact")
for node in effects.top(8):
    print(f"{node.effect:+.2f}  {node.label}")
(site,) = effects.sites
print(
    f"all together {site.moved:+.2f}; single effects sum to {site.latents:+.2f}, and the error's to {site.error:+.2f}"
)
assert effects.whole > 5

# %% [markdown]
# ## Turn one up
#
# A contrast of two kinds of text finds a latent (chosen on half of them, scored on the other half); steering adds its
# direction while the model writes. Strength 1 is the largest activation that was ever seen.

# %%
weather = ("rain", "snow", "sunshine", "fog", "frost", "thunder")
pairs = [(said, came) for said in weather for came in weather]
sentence = "The Almanac promised {}. The morning brought {}. " + prompt
doubt = [sentence.format(*pair) for pair in pairs if pair[0] != pair[1]]
trust = [sentence.format(*pair) for pair in pairs if pair[0] == pair[1]]
deep = ln.load_dictionary("almanac/resid_post.5/w1024", model=model)
found = ln.contrast(model, deep, doubt, trust)
best = found.best
print(f"latent {best.latent}: AUROC {best.auroc:.2f} on other texts; with shuffled labels {found.null.mean:.2f}")
for strength in (0, 1, 2, 16):
    with model.edit(ln.steer(deep, latent=best.latent, strength=strength)):
        print(f"{strength:>4}  {model.generate(prompt, max_new_tokens=10).text[0]}")
assert best.auroc > found.null.p95

# %% [markdown]
# Far too much of anything ends in babble: a direction was found, and no more than that was shown.
#
# ## What stays dark
#
# Three gauges, and they are not the same. How much of the vector is missed (FVU)? How much of what the model *does*
# is lost when it must go on with the reconstruction (the splice)? And how many things does the model know for which
# there is no latent at all? The first two:

# %%
result = ln.evaluate(sae, documents, model=model)
print(f"missed of the vector: {result.fvu:.1%} of its variance")
cost = result.splice
spliced, ablated = cost.spliced - cost.clean, cost.mean_ablated - cost.clean
print(f"the splice costs {spliced:+.4f} nats a token; the mean in its place {ablated:+.4f}")
assert 0 < spliced < ablated

# %% [markdown]
# A dictionary can do well by one and badly by another, and a latent that looks clear in eight contexts may do
# something else in the ninth. What an instrument must do is to say so each time.
