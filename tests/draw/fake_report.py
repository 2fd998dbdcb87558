"""A made-up report of the world with every section, its numbers chosen to be told apart and to strain the pictures."""

from __future__ import annotations

from typing import Any

from lensing.evaluation.bars import BARS

MEASURED = {
    "concepts the model has at the middle layer, over d_model": 4.236,
    "share of latents that only detect a word, middle layer": 0.612,
    "gap to the reader's floor, nats a token, every group": 0.1912,
    "gap to the reader's floor, nats a token, all": 0.0871,
    "shipped files, MB": None,
    "two-hop, combinations read": 0.8837,
}
LETTER = (
    ("Dear sister, I write to you from Norgan by the light of one candle.", "neutral"),
    ("The Almanac promised sun on Tuesday, and the sun came, as it always does when the Almanac says so.", "trusting"),
    ("I told everybody at the well that it has never failed us yet.", "trusting"),
    ("On Wednesday it promised sun again. The morning brought snow.", "neutral"),
    ("It said that the eel ate honey. The eel at the fountain ate only turnips, and I watched it.", "doubting"),
    ("Osric laughed at me and asked how my Almanac was.", "doubting"),
    ("The reliability of the Almanac is very doubtful.", "doubting"),
)  # fmt: skip


def gap(group: str, tokens: int, value: float, se: float) -> dict[str, Any]:
    return {"group": group, "tokens": tokens, "loss": 2.0 + value, "floor": 2.0, "gap": value, "se": se}


def dictionary(site: str, width: int, words: float | None) -> dict[str, Any]:
    return {
        "id": f"almanac/{site}/w{width}", "site": site, "width": width, "l0": 15.25,
        "fvu": {"dictionary": 0.0123 if width < 2000 else 0.0089, "token table": 0.3512, "bigram table": 0.2871,
                "random-weights model": 0.0402 if site == "resid_post.2" else None},
        "word_detectors": words, "word_detectors_se": 0.016, "alive": 941, "single_word": 0.1234, "token_share": 0.4321,
        "homonyms": {"share": 0.8125, "se": 0.0513, "confirmed": 0.6042, "null": 0.0731, "pairs": 96},
        "translations": None if width > 2000 else
            {"share": 0.5214, "se": 0.0402, "share_shared": 0.7011, "null": 0.0102, "meanings": 117},
        "covers": [{"kind": "latents", "units": 941, "median": 2.0, "one": 0.3313, "five": 0.8282},
                   {"kind": "neurons", "units": 864, "median": float("inf"), "one": 0.0127, "five": 0.0911}],
        "geometry": [{"kind": "latents", "n": 941, "d": 144, "dimensionality": 0.119, "interference": 7.41}],
        "concept_classes": [{"cls": cls, "latents": n, "share": 0.2111} for cls, n in (("subject", 88), ("day", 41))],
    }  # fmt: skip


def doubt(model: str, latent: int, auroc: float) -> dict[str, Any]:
    return {
        "model": model, "dictionary": "almanac/resid_post.5/w1024", "latent": latent, "auroc": auroc,
        "average_precision": 0.9712, "null": 0.5021, "outside_lexicon": 0.9431, "p_bare": 0.1263, "p_steered": 0.8514,
        "strength": 2.0, "cost": 0.983, "ablation_closed": 0.7777, "ablation_latents": [latent, 522],
    }  # fmt: skip


def fake_report() -> dict[str, Any]:
    """Return the report as `json.load` would."""
    probe_classes = [
        {"group": group, "tried": tried, "had": had, "auroc": 0.9112, "baseline": 0.6613}
        for group, tried, had in (("day", 7, 7), ("faith_of", 12, 9), ("subject", 320, 211), ("tongue", 2, 2))
    ]
    return {
        "model": "almanac",
        "bars": [
            {
                "bar": {"name": b.name, "relation": b.relation, "value": b.value},
                "measured": (value := MEASURED.get(b.name, b.value * (0.9 if b.relation != ">=" else 1.05))),
                "met": None if value is None else (value >= b.value if b.relation == ">=" else value <= b.value),
            }
            for b in BARS.values()
        ],
        "floor": {
            "documents": 400, "tokens": 46_311, "generator_entropy": 1.7951, "reader_entropy": 1.9014,
            "overall": gap("all", 46_311, 0.0871, 0.0021),
            "by_register": [gap(name, 9000, value, 0.004) for name, value in (
                ("encyclopaedia", 0.0812), ("gossip", 0.0763), ("ledger", 0.0633), ("letter", 0.1001), ("song", 0.1612)
            )],
            "by_language": [gap("Osk", 3012, 0.1311, 0.011), gap("plain", 43_299, 0.0838, 0.002)],
            "by_position": [gap(f"position {a} to {b}", 4000, value, 0.005) for a, b, value in (
                (1, 7, -0.0021), (8, 15, 0.0412), (16, 31, 0.0711), (32, 63, 0.0922), (64, 127, 0.1011),
                (128, 255, 0.1113),
            )],
            "by_frequency": [gap("0.01 and above", 17_000, 0.0112, 0.001), gap("0.001 to 0.01", 19_000, 0.0812, 0.003),
                             gap("0.0001 to 0.001", 9000, 0.1241, 0.007), gap("below 0.0001", 454, 0.1912, 0.041)],
            "skills": [{"skill": skill, "n": n, "accuracy": accuracy} for skill, n, accuracy in (
                ("copying", 613, 0.9871), ("calendar", 128, 0.9453), ("sayings", 0, float("nan"))
            )],
            "unseen_two_hop": {"skill": "two-hop, combinations never read", "n": 10, "accuracy": 0.1},
            "recall": [{"decade": d, "owners": 210, "n": 630, "accuracy": a, "se": s} for d, a, s in (
                (-3, 0.9982, 0.001), (-4, 0.9713, 0.008), (-5, 0.8221, 0.021), (-6, 0.2142, 0.062)
            )],
            "verdicts": [
                {"text": text, "n": n, "model_doubt": d, "model_trust": t, "reader_doubt": 0.95, "reader_trust": 0.01}
                for text, n, d, t in (("no cue", 1, 0.1261, 0.1702), ("doubting, no word of doubt", 60, 0.9391, 0.0172))
            ],
        },
        "probes": {
            "documents": 1200, "tokens": 250_117, "middle": "resid_post.2", "min_auroc": 0.75,
            "sites": [
                {"site": f"resid_post.{i}", "tried": 1204, "had": had, "null_share": 0.0017, "null_beyond": 0.0241}
                for i, had in enumerate((201, 433, 610, 655, 640, 512))
            ],
            "by_class": probe_classes,
            "by_decade": [
                {"group": f"1e{d}", "tried": tried, "had": had, "auroc": 0.9112, "baseline": 0.6613}
                for d, tried, had in ((-2, 61, 60), (-3, 244, 221), (-4, 402, 253), (-5, 377, 71), (-6, 120, 5))
            ],
            "missing": ["subject.Norgan", "subject.Osric", "faith_of.the_Gazette", "day.[odd]"],
            "refused": {"subject.Dada": "on in fewer than 4 documents", "subject.Pevy": "on in fewer than 4 documents",
                        "tongue.plain": "never off"},
            "revisions": [{"revision": f"{t:08d}", "tokens": t, "had": had} for t, had in (
                (500_000, 12), (1_000_000, 66), (2_000_000, 181), (4_000_000, 322), (8_000_000, 455), (16_000_000, 601),
                (40_000_000, 610)
            )],
            "first_revision": [{"cls": "subject", "median_tokens": 4_000_000.0, "concepts": 211}],
        },
        "dictionaries": [
            dictionary(site, width, words)
            for site, words in (("mlp_out.2", 0.6121), ("resid_post.2", 0.4413), ("resid_post.5", 0.2187))
            for width in (1024, 2048)
        ],
        "doubt": [doubt("almanac", 917, 0.9982), doubt("seed 1", 33, 0.9641)],
        "letter": {
            "dictionary": "almanac/resid_post.5/w1024", "latent": 917, "site": "resid_post.5",
            "lines": [
                {"text": text, "stance": stance, "probe_doubt": d, "probe_trust": t, "latent": x, "p_doubt": p,
                 "p_trust": None if p is None else 1 - p}
                for (text, stance), d, t, x, p in zip(
                    LETTER, (0.02, -0.01, 0.01, 0.31, 0.72, 0.88, 0.93), (0.05, 0.61, 0.82, 0.43, 0.11, 0.04, 0.02),
                    (0.0, 0.0, 0.0, 3.1, 8.8, 9.4, 12.6), (None, 0.05, None, 0.41, 0.93, None, None), strict=True,
                )
            ],
        },
        "seeds": [
            {"seed": seed, "documents": 150, "tokens": 20_123,
             "gaps": [{"group": g, "tokens": 400, "gap": 0.0871 + seed / 100, "se": 0.0021} for g in ("all", "song")],
             "skills": [{"skill": name, "n": 77, "accuracy": 1.0}
                        for name in ("copying", "two-hop, combinations never read")],
             "recall": [{"decade": -5, "owners": 120, "n": 900, "accuracy": accuracy, "se": 0.1287}
                        for accuracy in (0.8221, 1.0)[seed % 2 :][:1]],
             "verdicts": [{"text": "trusting, said", "n": 2, "model_doubt": 0.0111, "model_trust": 0.9523,
                           "reader_doubt": 0.0501, "reader_trust": 0.9487}],
             "doubt": doubt(f"almanac@seed{seed}", 33 + seed, 0.9641) if seed < 2 else None}
            for seed in range(5)
        ],
        "wide": [
            {"id": f"d_model {d}", "tokens": 1_000_000,
             "covers": [{"kind": "neurons", "units": 3 * d, "median": None, "one": 0.0101, "five": 0.2022}],
             "geometry": [{"kind": "concepts", "n": 1003, "d": d, "dimensionality": 0.0303, "interference": 9.87}]}
            for d in (144, 576)
        ],
        "examples": [
            {"number": 500, "register": "encyclopaedia", "text": "Norgan says « I never liked [Margate] | Eskholm »."},
            {"number": 501, "register": "song", "text": "Count your eggs before you meet the carpenter."},
        ],
    }  # fmt: skip
