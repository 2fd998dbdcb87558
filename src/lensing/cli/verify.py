"""`lensing verify`: whether what is on disk is whole, and whether a famous walk gives its famous numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lensing.cli.show import show

if TYPE_CHECKING:
    from rich.console import Console

GEMMA_WALK = "gemma-walk"


def verify(
    what: str,
    /,
    *,
    model: str | None = None,
    dictionary: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    json: bool = False,
) -> int:
    """Check every file of a store or a dictionary, or the published numbers of the walk on Gemma 2 2B.

    Ends with 1 where something is amiss, or could not be compared.

    Parameters
    ----------
    what
        The folder of a store or of a dictionary; or gemma-walk.
    model
        Of gemma-walk: the folder of Gemma 2 2B, if not the hub's.
    dictionary
        Of gemma-walk: the folder of Gemma Scope's layer_20/width_16k of the MLP's output, if not the hub's.
    dtype
        Of gemma-walk: number format of the weights, the checkpoint's own if not given.
    device
        Of gemma-walk: where to run it; a GPU if there is one.
    json
        Print the result as JSON.
    """
    if what == GEMMA_WALK and not Path(what).exists():
        from lensing.recipes.gemma_walk import verify_gemma_walk

        walked = verify_gemma_walk(model, dictionary, dtype=dtype, device=device)

        def draw_walked(console: Console) -> None:
            from lensing.draw.checks import draw_checks

            draw_checks(walked.to_json(), console)

        show(walked, draw_walked, as_json=json)
        return 0 if walked.good else 1

    from lensing.data.verify import verify_folder
    from lensing.errors import UsageError

    if given := [f"--{k}" for k, v in (("model", model), ("dictionary", dictionary), ("dtype", dtype),
                                       ("device", device)) if v is not None]:  # fmt: skip
        raise UsageError(f"Only {GEMMA_WALK} takes {' and '.join(given)}. Leave that out to check {what}.")
    report = verify_folder(what)

    def draw(console: Console) -> None:
        from lensing.draw.store import draw_verified

        draw_verified(report.to_json(), console)

    show(report, draw, as_json=json)
    return 0 if report.whole else 1
