"""Training a tiny language model: it learns, goes on where it stopped, and stops at a loss that is no number."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import lensing.recipes.pretrain as pretraining
from lensing.errors import Interrupted, TrainingError
from lensing.model.create import new_gemma2
from lensing.recipes.pretrain import Pretraining, batches, pretrain
from lensing.world.almanac.grammar import almanac
from lensing.world.corpus import write_corpus
from lensing.world.tokens import vocabulary


def tiny():
    size = {"d_model": 16, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "d_mlp": 24, "context": 256, "window": 8}
    return new_gemma2(d_vocab=len(vocabulary(almanac())), **size, bos_id=1, eos_id=2, pad_id=0)


@pytest.fixture(scope="module")
def corpus():
    return write_corpus(almanac(), 40, quiet=True)


SETTINGS = Pretraining(tokens=9_000, batch_tokens=1024, bf16=False)


def test_every_document_is_read_once_an_epoch_whole(corpus):
    epoch, read = [], 0
    for batch in batches(corpus, 1024, seed=0, pad_id=0):
        assert batch.numel() <= 1024
        epoch += [tuple(row[row != 0].tolist()) for row in batch]
        read += len(batch)
        if read >= len(corpus):
            break
    assert sorted(epoch) == sorted(tuple(d.tolist()) for d in corpus)


def test_the_loss_falls_and_a_stopped_run_ends_with_the_same_weights(corpus, tmp_path, monkeypatch):
    whole = tiny()
    log = pretrain(whole, corpus, SETTINGS, tmp_path / "whole", pad_id=0)
    with torch.no_grad():
        batch = next(batches(corpus, 1024, seed=5, pad_id=0))
        after = float(pretraining.next_token_loss(whole, batch, 0))
        before = float(pretraining.next_token_loss(tiny(), batch, 0))
    assert after < before - 0.3  # ten steps
    assert log == []  # fewer than 50 steps
    stopped, steps = tiny(), itertools.count()
    plain = pretraining.next_token_loss

    def interrupted(*arguments):
        if next(steps) == 4:
            raise KeyboardInterrupt
        return plain(*arguments)

    monkeypatch.setattr(pretraining, "next_token_loss", interrupted)
    with pytest.raises(Interrupted, match="The checkpoint is in"):
        pretrain(stopped, corpus, SETTINGS, tmp_path / "stopped", pad_id=0)
    monkeypatch.setattr(pretraining, "next_token_loss", plain)
    resumed = tiny()
    pretrain(resumed, corpus, SETTINGS, tmp_path / "stopped", pad_id=0)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_loss_that_is_no_number_stops_the_run(corpus, tmp_path):
    model = tiny()
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match="The loss is nan at step 0"):
        pretrain(model, corpus, SETTINGS, tmp_path, pad_id=0)
    assert not np.any([p.suffix == ".safetensors" for p in tmp_path.iterdir()])


@pytest.mark.parametrize("stop", range(1, 9))
def test_a_run_that_is_stopped_anywhere_leaves_every_snapshot_as_a_whole_run_does(corpus, tmp_path, monkeypatch, stop):
    """Stopped before a step, or while a snapshot is being taken; the last one is due at the very end."""
    due = (0, 1_500, 3_000, 4_500, SETTINGS.tokens)

    def run(folder, model, found, fail=None):
        def take(tokens):
            if fail is not None and next(fail) == stop:
                raise KeyboardInterrupt
            found[tokens] = torch.cat([p.detach().flatten() for p in model.parameters()])

        pretrain(model, corpus, SETTINGS, folder, pad_id=0, revisions=due, on_revision=take)

    whole: dict[int, torch.Tensor] = {}
    run(tmp_path / "whole", tiny(), whole)
    found: dict[int, torch.Tensor] = {}
    events, plain = itertools.count(1), pretraining.next_token_loss

    def interrupted(*arguments):
        if next(events) == stop:
            raise KeyboardInterrupt
        return plain(*arguments)

    monkeypatch.setattr(pretraining, "next_token_loss", interrupted)
    with pytest.raises((Interrupted, KeyboardInterrupt)):
        run(tmp_path / "stopped", tiny(), found, events)
    monkeypatch.setattr(pretraining, "next_token_loss", plain)
    run(tmp_path / "stopped", tiny(), found)
    assert set(found) == set(whole) == set(due)
    for tokens in due:
        assert torch.equal(found[tokens], whole[tokens]), tokens
