"""What a person types most must not wait for torch."""

from __future__ import annotations

import pytest
from rules.house import python

HEAVY = ("torch", "transformers", "numpy")


@pytest.mark.parametrize(
    "code",
    [
        "import lensing",
        "from lensing.cli import main; main(['--help'])",
        "from lensing.cli import main; main(['--version'])",
        "from lensing.cli import main; main(['walk', '--help'])",
        "from lensing.cli import main; main(['steer', '--help'])",
        "from lensing.cli import main; main(['train', 'topk', '--help'])",
        "from lensing.cli import main; assert main(['wlak']) == 2",
        "import lensing; lensing.TopK, lensing.BatchTopK",
    ],
)
def test_torch_stays_unimported(code):
    done = python(f"{code}\nimport sys; sys.exit(' '.join(n for n in {HEAVY} if n in sys.modules) or 0)")
    assert done.returncode == 0, done.stderr
