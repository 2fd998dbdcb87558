"""An index as plain pages, for a paper's supplement: they need no server, and nothing else."""

from __future__ import annotations

from pathlib import Path

from lensing.db import Notes
from lensing.draw.pages import latent_html, page, table_page
from lensing.files import atomic_folder
from lensing.index.explain import explain
from lensing.index.index import Index


def write_pages(index: Index, out: str | Path, *, notes: Notes | None = None, subject: str = "") -> Path:
    """Write `index.html`, a table that sorts and filters, and a page for each latent that fires."""
    labels = dict(enumerate(explain(index)))
    if notes is not None:
        labels |= {i: label.text for i, label in notes.best(subject, range(index.d_sae)).items()}
    count, density, top = (index.array(name) for name in ("count", "density", "max"))
    rows = [
        {"latent": i, "label": labels[i], "tokens": int(count[i]), "density": float(density[i]), "max": float(top[i])}
        for i in range(index.d_sae)
        if count[i]
    ]
    d, t = index.facts.dictionary, index.facts.text
    title = f"Latents of {d['id'] or d['site']}"
    about = f"{len(rows):,} of {index.d_sae:,} latents fire on {t['rows']:,} tokens of {t['name']}."
    out = Path(out)
    with atomic_folder(out) as temporary:
        (temporary / "latent").mkdir()
        text = table_page(title, about, rows, ("latent", "label", "tokens", "density", "max"))
        (temporary / "index.html").write_text(text, encoding="utf-8")
        for row in rows:
            i = int(str(row["latent"]))
            body = '<p><a href="../index.html">All latents</a></p>' + latent_html(index.latent(i), label=labels[i])
            (temporary / "latent" / f"{i}.html").write_text(page(f"Latent {i}", body), encoding="utf-8")
    return out
