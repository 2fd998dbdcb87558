"""Programs compiled into weights: right on every input, every direction named, every patch foretold."""

import itertools

import pytest
import torch

from lensing.causal.metrics import LogitDifference
from lensing.causal.patch import ablation, patch
from lensing.errors import UsageError
from lensing.lens.prism import direct_logit_attribution
from lensing.model.edit import Replace
from lensing.toy.compile import SHARP, compile_program
from lensing.toy.rasp import PROGRAMS, Map, Program, frac_prevs, histogram, reverse, sort

TRUTH = {
    "reverse": lambda w: w[::-1],
    "histogram": lambda w: [w.count(x) for x in w],
    "sort": sorted,
    "frac_prevs": lambda w: [sum(x == 0 for x in w[: i + 1]) / (i + 1) for i in range(len(w))],
}


@pytest.fixture(scope="module", params=PROGRAMS)
def compiled(request):
    return compile_program(PROGRAMS[request.param](3, 4))


def test_every_input_is_answered_rightly(compiled):
    program = compiled.program
    for words in itertools.product(range(program.words), repeat=program.n):
        true = TRUTH[program.name](list(words))
        if program.name == "frac_prevs":  # said at the words themselves
            last = f"resid_post.{compiled.model.n_layers - 1}"
            _, cache = compiled.model.run_with_cache(program.text(words), sites=[last])
            found = compiled.read(cache[last][0, : program.n], "out")[:, 0]
            meant = program.run(words)["out"][: program.n]
        else:
            found, meant = torch.tensor(compiled.answers(list(words))), program.answers(words)
        assert meant == pytest.approx(true)
        assert found.tolist() == pytest.approx(true, abs=1e-9)


def test_every_direction_of_the_stream_is_a_value_of_a_variable(compiled):
    program, model = compiled.program, compiled.model
    assert sum(c.stop - c.start for c in compiled.columns.values()) == model.d_model
    words = [2, 0, 2]
    _, cache = model.run_with_cache(program.text(words), sites="resid_post.*")
    for name, values in program.run(words).items():
        layer = compiled.written.get(name, (0, ""))[0]
        held = compiled.read(cache["resid_post", layer][0], name)
        for position, value in enumerate(values):
            if value is not None and program.sizes[name] > 1:
                wanted = torch.nn.functional.one_hot(torch.tensor(int(value)), program.sizes[name]).double()
                assert torch.allclose(held[position], wanted, atol=1e-9), (name, position)
            elif value is not None:
                assert float(held[position, 0]) == pytest.approx(value, abs=1e-9)


def test_patching_the_head_that_fetches_the_word_counts_another():
    """What the histogram says at a place is foretold by the program, its variable set as the patch sets it."""
    compiled = compile_program(histogram(4, 5))
    program, model = compiled.program, compiled.model
    base, source = [0, 0, 1, 2], [1, 3, 0, 0]
    layer, first = compiled.written["mine"][0], program.length - program.n
    for i in range(program.n):
        was, place = base.count(base[i]), first + i
        (now,) = {program.answers(base, {("mine", place): float(source[i])})[i]}
        assert now == base.count(source[i])
        metric = LogitDifference((int(now),), (was,), position=place)
        found = patch(
            model, program.text(source), program.text(base), metric, site="attn_z", layers=[layer], heads=False
        )
        wanted = torch.full((1, program.length), 0.0 if now == was else -SHARP, dtype=torch.float64)
        wanted[0, place] = 0.0 if now == was else SHARP
        assert torch.allclose(found.raw, wanted, atol=1e-9)


def test_an_answer_comes_from_one_head_looking_at_one_word():
    compiled = compile_program(reverse(3, 4))
    program, model = compiled.program, compiled.model
    text = program.text([3, 1, 2])
    parts = direct_logit_attribution(model, text, 2, position=-3, by="source")
    (loudest,) = parts.top(1)
    assert (loudest.layer, loudest.index, loudest.position) == (0, 0, 2)
    assert loudest.value == pytest.approx(SHARP)
    assert parts.total == pytest.approx(SHARP)
    metric = LogitDifference((2,), (0,), position=-3)
    gone = ablation(model, text, metric, site="attn_z", method="zero", positions=True)
    assert float(gone.effect[0, -3]) == pytest.approx(-SHARP)
    assert float(gone.effect[0, :-3].abs().max()) == 0.0


def test_interchanging_ranks_exchanges_words_of_the_sorted_text():
    compiled = compile_program(sort(3, 4))
    program, model = compiled.program, compiled.model
    words, layer = [3, 0, 1], compiled.written["placed"][0]
    _, cache = model.run_with_cache(program.text(words), sites=[("resid_post", layer)])
    stream = cache["resid_post", layer].clone()
    a, b = program.n + 1, program.n + 2  # where the ranks of the first two words stand
    held = compiled.columns["placed"]
    stream[0, [a, b], held] = stream[0, [b, a], held]
    with model.edit(Replace(("resid_post", layer), stream)):
        found = compiled.answers(words)
    ranks = program.run(words)["placed"]
    meant = program.answers(words, {("placed", a): ranks[b], ("placed", b): ranks[a]})
    assert found == meant == [3, 1, 0]


def test_what_is_no_program_is_refused():
    with pytest.raises(UsageError, match="two variables 'token'"):
        Program("bad", 2, 3, (Map("token", ("index",), 2, lambda i: 0),), "token")
    with pytest.raises(UsageError, match="not 6 words"):
        frac_prevs().text([0, 1])
