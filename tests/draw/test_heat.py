"""Heat maps as HTML: every number where it belongs, nothing of a token read as markup."""

from __future__ import annotations

import re

from lensing.draw.heat import colour, pattern_html


def test_a_pattern_looks_back_only_and_each_cell_says_what_it_is():
    tokens, pattern = [" a<b", " 'c'", "d"], [[1.0, 0, 0], [0.25, 0.75, 0], [0.0, 0.5, 0.5]]
    page = pattern_html("head", tokens, pattern)
    cells = re.findall(r"<td title='([^']*)' style='background:(#[0-9a-f]{6})", page)
    names = ["a&lt;b", "&#x27;c&#x27;", "d"]
    wanted = [
        (f"{names[i]} looks at {names[j]}: {pattern[i][j]:.2f}", colour(pattern[i][j], 1.0)[0])
        for i in range(3)
        for j in range(i + 1)
    ]
    assert cells == wanted
    assert page.count("<tr>") == 4
    assert page.count("scope='col'") == page.count("scope='row'") == 3


def test_a_pattern_of_zeros_is_drawn():
    assert "nan" not in pattern_html("head", ["a"], [[0.0]])
