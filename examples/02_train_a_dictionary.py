"""A dictionary of one's own, trained on text that the model writes itself; any Hugging Face model will do."""

import sys

import lensing as ln
from lensing.data.text import sample_documents

name, tokens = next(iter(sys.argv[1:]), "almanac"), 60_000
model = ln.load_model(name)
documents = sample_documents(model, tokens, seed=0)
source = ln.live(model, documents, sites="mlp_out.1")
sae = ln.train(source, ln.TopK(width=4 * model.d_model, k=16), tokens=4 * tokens, quiet=True)

print(f"{model.name} mlp_out.1: {sae.report.rows_per_second:,.0f} rows a second")
facts = sae.statistics
print(f"on held-out rows: FVU {facts.fvu:.3f}, L0 {facts.l0:.1f}, dead {facts.dead_share:.1%}")
