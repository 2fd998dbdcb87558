import pytest
import torch

from lensing.dictionary.codes import Codes
from lensing.errors import UsageError
from lensing.measure.auroc import auroc, average_precision, score_latents


def _brute(scores: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    positive, negative = scores[labels].tolist(), scores[~labels].tolist()
    wins = sum(1.0 if p > n else 0.5 if p == n else 0.0 for p in positive for n in negative)
    precision, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        taken = scores >= threshold
        recall = float((taken & labels).sum()) / len(positive)
        precision += (recall - recall_before) * float((taken & labels).sum()) / float(taken.sum())
        recall_before = recall
    return wins / (len(positive) * len(negative)), precision


@pytest.mark.parametrize("levels", [2, 5, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_all_pairs_ties_included(levels: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    scores = torch.randint(levels, (60,), generator=g).float()
    labels = torch.rand(60, generator=g) < 0.3
    area, precision = _brute(scores, labels)
    assert auroc(scores, labels) == pytest.approx(area, abs=1e-12)
    assert average_precision(scores, labels) == pytest.approx(precision, abs=1e-12)


def test_known_answers() -> None:
    labels = torch.tensor([False, False, True, True])
    assert auroc(torch.tensor([0.1, 0.4, 0.35, 0.8]), labels) == 0.75
    assert average_precision(torch.tensor([0.1, 0.4, 0.35, 0.8]), labels) == pytest.approx(0.8333333333)
    assert auroc(torch.zeros(4), labels) == 0.5
    assert average_precision(torch.zeros(4), labels) == 0.5


def test_sparse_latents_score_as_their_dense_columns() -> None:
    g = torch.Generator().manual_seed(5)
    dense = torch.randint(0, 4, (80, 12), generator=g).float()
    dense[torch.rand(80, 12, generator=g) < 0.6] = 0
    dense[:, 3] = 0
    dense[:, 4] = 1 + torch.arange(80)
    labels = torch.rand(80, generator=g) < 0.25
    areas, precisions = score_latents(Codes.from_dense(dense), labels)
    for j in range(12):
        assert float(areas[j]) == pytest.approx(auroc(dense[:, j], labels), abs=1e-12)
        assert float(precisions[j]) == pytest.approx(average_precision(dense[:, j], labels), abs=1e-12)


def test_one_class_only_is_refused() -> None:
    with pytest.raises(UsageError, match="3 positives and 0 negatives"):
        auroc(torch.rand(3), torch.ones(3, dtype=torch.bool))
    with pytest.raises(UsageError, match="not a number"):
        auroc(torch.tensor([1.0, float("nan")]), torch.tensor([True, False]))
