"""One sentence through the shipped model: every layer's guess, and the latents that are active on its last word."""

import lensing as ln

PROMPT = "The reliability of the Almanac is very"

model = ln.load_model("almanac")
logits, cache = model.run_with_cache(PROMPT, sites=["resid_post.*"])

lens = ln.logit_lens(model, cache, top=3)
for layer in lens.layers:
    print(f"layer {layer}:", ", ".join(f"{word.strip()} {p:.2f}" for word, p in lens.top(layer)))
print("the final word leads from layer", lens.lead_layer())

sae = ln.load_dictionary("almanac/resid_post.5/w1024", model=model)
codes = sae.encode(cache["resid_post.5"])
latents, values = codes.row(codes.rows - 1)
for value, latent in sorted(zip(values.tolist(), latents.tolist(), strict=True), reverse=True)[:5]:
    print(f"latent {latent:4d} fires at {value:.2f}")
