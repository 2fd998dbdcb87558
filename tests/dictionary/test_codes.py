import numpy as np
import pytest
import torch

from lensing.dictionary.codes import Codes
from lensing.errors import UsageError


@pytest.fixture
def dense() -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    x = torch.rand(7, 3, 11, generator=g)
    x[x < 0.7] = 0
    x[2, 1] = 0  # a row with nothing active
    return x


def test_round_trip_keeps_every_number(dense: torch.Tensor) -> None:
    codes = Codes.from_dense(dense)
    assert codes.shape == (21, 11)
    assert codes.leading == (7, 3)
    assert codes.indptr.dtype == torch.int64
    assert codes.index.dtype == torch.int32
    assert torch.equal(codes.dense(), dense.view(21, 11))
    again = Codes.from_dense(codes.dense())
    assert torch.equal(again.index, codes.index)
    assert torch.equal(again.value, codes.value)


@pytest.mark.parametrize("rows", [slice(0, 21), slice(4, 9), slice(7, 8), slice(5, 5), slice(-3, None)])
def test_a_slice_of_rows_is_that_slice_of_the_dense(dense: torch.Tensor, rows: slice) -> None:
    assert torch.equal(Codes.from_dense(dense).dense(rows), dense.view(21, 11)[rows])


def test_rows_and_columns_agree_with_brute_force(dense: torch.Tensor) -> None:
    codes, flat = Codes.from_dense(dense), dense.view(21, 11)
    for i in range(21):
        index, value = codes.row(i)
        assert index.tolist() == flat[i].nonzero().squeeze(1).tolist()
        assert torch.equal(value, flat[i][index])
    for j in range(11):
        rows, value = codes.column(j)
        assert rows.tolist() == flat[:, j].nonzero().squeeze(1).tolist()
        assert torch.equal(value, flat[rows, j])


def test_counts_density_and_maximum(dense: torch.Tensor) -> None:
    codes, flat = Codes.from_dense(dense), dense.view(21, 11)
    assert torch.equal(codes.counts(), (flat > 0).sum(1))
    assert codes.l0() == pytest.approx((flat > 0).sum().item() / 21)
    assert torch.allclose(codes.density(), (flat > 0).float().mean(0))
    assert torch.equal(codes.maximum, flat.amax(0))


def test_chunks_are_bounded_and_cover_everything(dense: torch.Tensor) -> None:
    codes = Codes.from_dense(dense)
    parts = list(codes.chunks(max_bytes=4 * 11 * 4))
    assert all(part.numel() * 4 <= 4 * 11 * 4 for _, part in parts)
    assert torch.equal(torch.cat([part for _, part in parts]), dense.view(21, 11))
    assert len(list(codes.chunks(max_bytes=1))) == 21


def test_rectangle_only_where_rows_are_equally_long() -> None:
    even = Codes.from_dense(torch.tensor([[1.0, 0, 2], [0, 3, 4]]))
    view = even.rectangle
    assert view is not None
    assert view[0].tolist() == [[0, 2], [1, 2]]
    assert view[1].tolist() == [[1, 2], [3, 4]]
    assert Codes.from_dense(torch.tensor([[1.0, 2, 3], [0, 0, 4]])).rectangle is None


def test_other_dtype_and_values(dense: torch.Tensor) -> None:
    codes = Codes.from_dense(dense)
    assert codes.to(torch.float16).value.dtype == torch.float16
    assert torch.equal(codes.with_values(codes.value * 2).dense(), dense.view(21, 11) * 2)


def test_wrong_requests_are_refused(dense: torch.Tensor) -> None:
    codes = Codes.from_dense(dense)
    with pytest.raises(UsageError, match="no latent 11 in a dictionary of 11"):
        codes.column(11)
    with pytest.raises(UsageError, match="no row 21"):
        codes.row(21)
    with pytest.raises(UsageError, match="row pointers"):
        Codes(torch.zeros(3, dtype=torch.int64), torch.zeros(0), torch.zeros(0), (5, 4))


def test_empty_codes() -> None:
    codes = Codes.from_dense(torch.zeros(3, 5))
    assert codes.nnz == 0
    assert codes.l0() == 0
    assert np.array_equal(codes.dense().numpy(), np.zeros((3, 5)))
    assert [t.numel() for t in codes.column(2)] == [0, 0]
