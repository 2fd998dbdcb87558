"""`lensing serve`: the page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def serve(
    *folders: Path,
    model: str | None = None,
    dictionary: str | None = None,
    port: int = 5173,
    host: str = "127.0.0.1",
    allow_host: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    token: str | None = None,
    notes: Path | None = None,
    runs: Path = Path("runs"),
    embedding: str | None = None,
    open: bool = False,
    allow_pickle: bool = False,
) -> None:
    """Show the walk, every latent, search, steering and more in the browser; nothing leaves this machine.

    Parameters
    ----------
    folders
        Indexes that lensing index made, or dictionaries; the shipped model if none is given.
    model
        Where the model lies, if not where it was when the index was built.
    dictionary
        Where the dictionary lies, likewise; or one to serve without an index.
    port
        The port; the next free one is taken if it is in use.
    host
        The address to listen at; any other than this machine's own asks visitors for a token.
    allow_host
        Names under which the page may be asked for, of a forwarded port, say.
    token
        The token; made up where one is needed and none given.
    notes
        The file of labels, notes and lists; ~/.lensing/notes.sqlite if not given.
    runs
        The folder of trainings whose curves are shown.
    embedding
        A decoder trained to embed (Qwen3-Embedding, say), a folder or hub id: labels are then searched by meaning too.
    open
        Open the page in a browser.
    allow_pickle
        Read weights from a pickle file, which can run code.
    """
    from lensing.server.house import open_house
    from lensing.server.listen import listen

    house = open_house(
        folders,
        model=model,
        dictionary=dictionary,
        notes=notes,
        runs=runs,
        embedding=embedding,
        allow_pickle=allow_pickle,
    )
    listen(house, host=host, port=port, hosts=allow_host or (), token=token, browser=open)
