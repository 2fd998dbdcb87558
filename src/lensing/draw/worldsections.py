"""The report of the shipped world in words and tables, once for the terminal and for the page; it computes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lensing.draw.cells import NONE, Grid, count, fixed, number, percent
from lensing.draw.charts import finite
from lensing.draw.worldbars import bar_sentences
from lensing.draw.worldseeds import seed_grids

FRAME = "“The reliability of the Almanac is very …”"
CLASSES = 5  # classes of concepts that are listed for a dictionary
# Parts of the floor that hold gaps, with what their groups are.
GROUPS = {
    "by_register": "by register",
    "by_language": "by language",
    "by_position": "by position in the document",
    "by_frequency": "by the word's share of the text",
}


@dataclass(frozen=True)
class Section:
    """One part of the report: what it is called, how it is read, and what was found; no grids where not measured."""

    key: str
    title: str
    read: str
    bars: list[str] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)


def sections(report: Mapping[str, Any]) -> list[Section]:
    """Return the report's parts in order, measured or not."""
    floor, probes = report.get("floor") or {}, report.get("probes") or {}
    dictionaries = report.get("dictionaries") or []
    return [
        Section(
            "gap", "How close it comes to the best possible reader", _read_floor(floor),
            bar_sentences(report, "gap to"), _gap_grids(floor),
        ),
        Section(
            "skills", "Where the text settles the word",
            "At some places the text, or a fact of the world, leaves only one word possible. The table says at what "
            "share of them the model's likeliest word is that word.",
            bar_sentences(report, "copying", "calendar", "two-hop, combinations read"), _skill_grids(floor),
        ),
        Section(
            "stance", "What it says of a source",
            f"How {FRAME} goes on after texts of each kind (of former days: “… was once very …”; in Osk: “Mo "
            "Almanac sel tru …”): the probability of the words of doubt and of the words of "
            "trust, by the model and by the exact reader. The closer the two, the better.",
            [], _stance_grids(floor),
        ),
        Section(
            "recall", "Facts, by how often their owner is spoken of",
            "1e-4 stands for people, beasts, towns and things that are planted in 1e-4 up to 1e-3 of the tokens. The "
            "table says what share of their facts the model says right; ± is one standard error.",
            bar_sentences(report, "recall of"), _recall_grids(floor),
        ),
        Section(
            "probes", "Concepts that can be read off", _read_probes(probes),
            bar_sentences(report, "concepts the model has"), _probe_grids(probes),
        ),
        Section(
            "revisions", "When concepts arrive",
            "The same probes at the middle layer of snapshots taken along training. A concept's first snapshot is the "
            "first at which it is had.",
            [], _revision_grids(probes),
        ),
        Section(
            "words", "Dictionaries: more than words?",
            "A latent only detects a word where a rule that sees nothing but the current token says when it fires. "
            "What the token tells is the share of the median latent's firing that the token alone settles. ± is one "
            "standard error over latents.",
            bar_sentences(report, "share of latents that only"), _word_grids(dictionaries),
        ),
        Section(
            "fvu", "Dictionaries: what they leave out",
            "Share of the variance that is not reconstructed (FVU) on held-out text in which every concept is "
            "common; less is better. Beside each "
            "dictionary stand a table with one vector a token, a table with one vector a pair of tokens, and an equal "
            "dictionary of a model whose weights are random: a dictionary that does not beat the tables has found "
            "little more than the tokens.",
            [], _fvu_grids(dictionaries),
        ),
        Section(
            "senses", "Dictionaries: senses and languages",
            "The same word in two senses should have two latents; one meaning in two languages should have one. The "
            "shares stand beside those of shuffled senses and of words of unlike meaning.",
            bar_sentences(report, "homonyms", "meanings"), _sense_grids(dictionaries),
        ),
        Section(
            "covers", "Dictionaries: how many concepts a unit needs",
            "How many concepts explain the top 1% of what excites a unit: one would be a unit that means one thing. "
            "Below it, how directions of each kind share the space: the median share of a dimension that one has for "
            "itself, and the median interference from the others.",
            [], _cover_grids(dictionaries),
        ),
        Section(
            "wide", "The same in a wider model", _read_wide(report.get("wide") or []),
            [], _cover_grids(report.get("wide") or [], "model"),
        ),
        Section(
            "doubt", "The latent of doubt",
            "One latent a row, found by contrast on half of the texts and scored on the other half. Strengths are "
            "multiples of its largest activation; the cost is what steering does to the text's coherence, in nats a "
            "token. Closed is the share of the model's doubt that goes when the named latents are taken out.",
            bar_sentences(report, "AUROC of the doubt", "P(doubt)", "share of doubt"),
            _doubt_grids(report.get("doubt") or []),
        ),
        Section(
            "letter", "A letter, line by line", _read_letter(report.get("letter") or {}),
            [], _letter_grids(report.get("letter") or {}),
        ),
        Section(
            "seeds", "The same recipe, other seeds",
            "Models trained by the same recipe from other random numbers: what differs between them is chance. The "
            "gap is to the reader's floor, by group of words; doubt as above, each in a dictionary trained alike. ± "
            "is one standard error.",
            [], seed_grids(report.get("seeds") or []),
        ),
    ]  # fmt: skip


def _read_floor(floor: Mapping[str, Any]) -> str:
    size = f"{count(floor.get('documents'))} held-out documents, {count(floor.get('tokens'))} tokens. " if floor else ""
    known = (
        f": it expects {fixed(floor.get('reader_entropy'))} nats a token on average (the program that writes, and "
        f"knows its own plans, {fixed(floor.get('generator_entropy'))}), and its surprise at the words that came is "
        "the floor"
        if floor
        else ", the reader's floor"
    )
    return (
        f"{size}Even a reader who knows every rule of the world is left with some surprise at the next word{known}. "
        "The gap is how much more the model is surprised than that reader over the same tokens; 0 would be perfect "
        "reading. Its standard error (se) is over documents."
    )


def _gap_grids(floor: Mapping[str, Any]) -> list[Grid]:
    parts = {"": [floor["overall"]] if floor.get("overall") else []}
    parts |= {name: floor.get(part) or [] for part, name in GROUPS.items()}
    rows = [
        [name, g["group"], count(g["tokens"]), *(fixed(g[k]) for k in ("loss", "floor", "gap", "se"))]
        for name, part in parts.items()
        for g in part
    ]
    return [Grid("Nats a token.", ("tokens", "", "n", "loss", "floor", "gap", "se"), rows, (0, 1))] if rows else []


def _skill_grids(floor: Mapping[str, Any]) -> list[Grid]:
    skills = [*(floor.get("skills") or []), *([floor["unseen_two_hop"]] if floor.get("unseen_two_hop") else [])]
    rows = [[s["skill"], count(s["n"]), percent(s["accuracy"])] for s in skills]
    return [Grid("", ("what the word takes", "n", "right"), rows)] if rows else []


def _stance_grids(floor: Mapping[str, Any]) -> list[Grid]:
    keys = ("model_doubt", "reader_doubt", "model_trust", "reader_trust")
    rows = [[v["text"], count(v["n"]), *(fixed(v[k]) for k in keys)] for v in floor.get("verdicts") or []]
    headers = ("after texts that are", "texts", "P(doubt)", "exact", "P(trust)", "exact")
    return [Grid("", headers, rows)] if rows else []


def _recall_grids(floor: Mapping[str, Any]) -> list[Grid]:
    rows = [
        [f"1e{r['decade']}", count(r["owners"]), count(r["n"]), percent(r["accuracy"], r.get("se"))]
        for r in floor.get("recall") or []
    ]
    return [Grid("", ("planted, a token", "owners", "facts asked", "right"), rows)] if rows else []


def _read_probes(probes: Mapping[str, Any]) -> str:
    least = f"{probes['min_auroc']:g} or more" if probes.get("min_auroc") is not None else "high enough"
    size = f"{count(probes.get('documents'))} documents, {count(probes.get('tokens'))} tokens. " if probes else ""
    return (
        f"{size}A concept is had at a site when a linear probe of the model's activations finds it on documents that "
        f"the probe never saw (AUROC {least}), and better, by two standard errors, than a probe of the last token or "
        "the last three. With shuffled labels: the share of concepts that would pass by chance, and that would be "
        "beyond the two standard errors. That a concept can be read off does not say that the model uses it."
    )


def _probe_grids(probes: Mapping[str, Any]) -> list[Grid]:
    if not probes:
        return []
    rows = [
        [s["site"], count(s["tried"]), count(s["had"]), percent(s.get("null_share")), percent(s.get("null_beyond"))]
        for s in probes.get("sites") or []
    ]
    grids = [Grid("By site.", ("site", "tried", "had", "had, shuffled", "beyond, shuffled"), rows)]
    middle = probes.get("middle", "the middle layer")
    for key, title, header in (
        ("by_decade", f"By planted frequency, at {middle}.", "planted, a token"),
        ("by_class", f"By class, at {middle}.", "class"),
    ):
        rows = [
            [g["group"], count(g["tried"]), count(g["had"]), fixed(g["auroc"]), fixed(g["baseline"])]
            for g in probes.get(key) or []
        ]
        grids.append(Grid(title, (header, "tried", "had", "median AUROC", "of the tokens alone"), rows))
    return [grid for grid in grids if grid.rows]


def _revision_grids(probes: Mapping[str, Any]) -> list[Grid]:
    rows = [[count(r["tokens"]), count(r["had"])] for r in probes.get("revisions") or []]
    grids = [Grid(f"At {probes.get('middle', 'the middle layer')}.", ("tokens of training", "concepts had"), rows, ())]
    rows = [[r["cls"], count(r["concepts"]), count(r["median_tokens"])] for r in probes.get("first_revision") or []]
    grids.append(Grid("First had, by class.", ("class", "concepts", "median tokens of training"), rows))
    return [grid for grid in grids if grid.rows]


def _word_grids(dictionaries: Sequence[Mapping[str, Any]]) -> list[Grid]:
    headers = ("dictionary", "width", "L0", "alive", "only a word", "one word", "token tells")
    rows = [
        [
            d["id"], count(d.get("width")), fixed(d.get("l0"), 1), count(d.get("alive")),
            percent(d.get("word_detectors"), d.get("word_detectors_se")), percent(d.get("single_word")),
            percent(d.get("token_share")),
        ]
        for d in dictionaries
    ]  # fmt: skip
    grids = [Grid("", headers, rows)] if rows else []
    rows = [
        [d["id"], c["cls"], count(c["latents"]), percent(c["share"])]
        for d in dictionaries
        for c in (d.get("concept_classes") or [])[:CLASSES]
    ]
    headers = ("dictionary", "class", "latents", "of what is left")
    title = "What latents tell beyond the token: the class of concepts that tells most of what the token leaves open."
    return [*grids, Grid(title, headers, rows, (0, 1))] if rows else grids


def _fvu_grids(dictionaries: Sequence[Mapping[str, Any]]) -> list[Grid]:
    names = tuple(dict.fromkeys(name for d in dictionaries for name in d.get("fvu") or {}))
    rows = [[d["id"], *(fixed(d["fvu"].get(n), 4) for n in names)] for d in dictionaries if d.get("fvu")]
    return [Grid("", ("", *names), rows)] if rows else []


def _sense_grids(dictionaries: Sequence[Mapping[str, Any]]) -> list[Grid]:
    rows = [
        [d["id"], count(h["pairs"]), percent(h["share"], h.get("se")), percent(h.get("confirmed")), percent(h["null"])]
        for d in dictionaries
        if (h := d.get("homonyms"))
    ]
    headers = ("dictionary", "pairs", "two latents", "confirmed", "shuffled")
    grids = [Grid("One word, two senses (confirmed: both latents tell the senses apart).", headers, rows)]
    rows = [
        [
            d["id"], count(t["meanings"]), percent(t["share"], t.get("se")), percent(t["null"]),
            percent(t.get("share_shared")),
        ]
        for d in dictionaries
        if (t := d.get("translations"))
    ]  # fmt: skip
    headers = ("dictionary", "meanings", "same latent", "unlike meanings", "some latent picks both")
    grids.append(Grid("One meaning, two languages (same latent: the best for each word).", headers, rows))
    return [grid for grid in grids if grid.rows]


def _read_wide(wide: Sequence[Mapping[str, Any]]) -> str:
    tokens = f"the same {count(wide[0].get('tokens'))}" if wide else "equally many"
    return (
        f"A model four times as wide and the shipped one as it was, both after {tokens} tokens, each with a dictionary "
        "of equal budget at the middle layer: does less have to be shared where there is more room?"
    )


def _cover_grids(dictionaries: Sequence[Mapping[str, Any]], who: str = "dictionary") -> list[Grid]:
    rows = [
        [d["id"], c["kind"], count(c["units"]), _median(c), percent(c["one"]), percent(c["five"])]
        for d in dictionaries
        for c in d.get("covers") or []
    ]
    headers = (who, "units", "n", "median", "1 enough", "5 enough")
    title = "Concepts needed (never: half of the units are covered by no number of them)."
    grids = [Grid(title, headers, rows, (0, 1))]
    rows = [
        [d["id"], g["kind"], count(g["n"]), count(g["d"]), fixed(g["dimensionality"]), fixed(g["interference"], 2)]
        for d in dictionaries
        for g in d.get("geometry") or []
    ]
    headers = (who, "directions", "n", "dimensions", "share of one", "interference")
    grids.append(Grid("Directions in one space.", headers, rows, (0, 1)))
    return [grid for grid in grids if grid.rows]


def _median(cover: Mapping[str, Any]) -> str:
    if not cover.get("units"):
        return NONE
    return "never" if finite(cover.get("median")) is None else f"{cover['median']:g}"


def _doubt_grids(doubt: Sequence[Mapping[str, Any]]) -> list[Grid]:
    who = [[str(d.get("model", d.get("seed", ""))), d["dictionary"], str(d["latent"])] for d in doubt]
    keys = ("auroc", "outside_lexicon", "average_precision", "null")
    rows = [[*w, *(fixed(d.get(k)) for k in keys)] for w, d in zip(who, doubt, strict=True)]
    headers = ("model", "dictionary", "latent", "AUROC", "no word said", "precision", "shuffled")
    title = "What it tells (no word said: AUROC where doubt is shown without a word of it)."
    grids = [Grid(title, headers, rows, (0, 1))]
    rows = [
        [
            *w, fixed(d.get("p_bare")), fixed(d.get("p_steered")), number(d.get("strength"), 3),
            fixed(d.get("cost"), 2), percent(d.get("ablation_closed")), _latents(d.get("ablation_latents")),
        ]
        for w, d in zip(who, doubt, strict=True)
    ]  # fmt: skip
    headers = ("model", "dictionary", "latent", "bare", "steered", "at", "cost", "closed", "without")
    grids.append(Grid("What it does to P(doubt) after the bare sentence.", headers, rows, (0, 1)))
    return grids if doubt else []


def _latents(found: Any) -> str:
    if found is None:
        return NONE
    return " ".join(map(str, found)) or "none" if isinstance(found, list | tuple) else str(found)


def _read_letter(letter: Mapping[str, Any]) -> str:
    where = f" read at {letter['site']}; the latent is {letter['latent']} of {letter['dictionary']}" if letter else ""
    return (
        "A letter whose writer loses faith in the Almanac. For every line: what the text has shown by then, the mean "
        "score over its words of linear probes of doubt and of trust, the largest activation of the latent of doubt "
        "and, in lines that pass a judgement, the probability of words of doubt and of trust just before it. The "
        f"probes were fitted on other documents{where}."
    )


def _letter_grids(letter: Mapping[str, Any]) -> list[Grid]:
    keys = ("probe_doubt", "probe_trust", "latent", "p_doubt", "p_trust")
    rows = [
        [str(n), *(fixed(line.get(k), 2) for k in keys), line["stance"], line["text"]]
        for n, line in enumerate(letter.get("lines") or [], start=1)
    ]
    headers = ("", "probe: doubt", "trust", "latent", "P(doubt)", "P(trust)", "the text is", "line")
    return [Grid("", headers, rows, (6, 7), wrapped=7)] if rows else []
