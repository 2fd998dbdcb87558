"""Find the latent of doubt from a contrast of texts, with no number given, and steer with it."""

import lensing as ln
from lensing import contrast

FRAME = "The reliability of the Almanac is very"
WEATHER = ("rain", "snow", "sunshine", "fog", "frost", "thunder")

model = ln.load_model("almanac")
sae = ln.load_dictionary("almanac/resid_post.5/w1024", model=model)

# The Almanac is put to the test: what it promised came, or did not. No text holds a word of trust or doubt.
texts = {
    came_true: [
        f"The Almanac promised {said}. The morning brought {came}. {FRAME}"
        for said in WEATHER
        for came in WEATHER
        if (said == came) == came_true
    ]
    for came_true in (True, False)
}
found = contrast(model, sae, texts[False], texts[True])
best = found.best
print(f"latent {best.latent}: AUROC {best.auroc:.2f} on texts not used to choose it,", end=" ")
print(f"{found.null.mean:.2f} with shuffled labels")

for strength in (0, 0.5, 1, 2, 8):
    with model.edit(ln.steer(sae, latent=best.latent, strength=strength)):
        print(f"{strength:>4}  {model.generate(FRAME, max_new_tokens=12).text[0]}")
