"""What people say about latents, in one SQLite file: labels with full-text search, notes, tags, lists."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from lensing.errors import FileFormatError, LensingError, UsageError

VERSION = 1
OTHER = "Give another file with --notes."
LONGEST = 4096  # characters of a label or a note
SCHEMA = """
create table label (
    id integer primary key, subject text not null, latent integer not null, text text not null,
    method text not null, by text not null default '', score real, n integer,
    made text not null default (datetime('now'))
);
create index label_of on label (subject, latent);
create virtual table label_text using fts5 (text, content='label', content_rowid='id', tokenize='porter unicode61');
create trigger label_in after insert on label begin
    insert into label_text (rowid, text) values (new.id, new.text);
end;
create trigger label_out after delete on label begin
    insert into label_text (label_text, rowid, text) values ('delete', old.id, old.text);
end;
create table note (
    subject text not null, latent integer not null, text text not null, primary key (subject, latent)
);
create table tag (
    subject text not null, latent integer not null, tag text not null, primary key (subject, latent, tag)
);
create table list (id integer primary key, name text not null unique);
create table item (
    list integer not null references list (id) on delete cascade, subject text not null, latent integer not null,
    note text not null default '', primary key (list, subject, latent)
);
"""


@final
@dataclass(frozen=True)
class Label:
    """What is said about a latent: `method` is "automatic", "person", or the name of an explainer.

    `by` is who or which model said it, `score` how well it predicts (None: not tried), on `n` examples.
    """

    id: int
    subject: str
    latent: int
    text: str
    method: str
    by: str
    score: float | None
    n: int | None
    made: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@final
class Notes:
    """The one mutable part of an index; `subject` names a dictionary by the digest of its weights.

    Many threads may use one; two processes may open one file.

    Raises: FileFormatError: a file that is no notes file, or a newer one. LensingError: one that cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None, timeout=10)
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma foreign_keys = on")
            version = self._db.execute("pragma user_version").fetchone()[0]
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise LensingError(f"{self.path} cannot be opened: {error}. {OTHER}") from error
            raise FileFormatError(f"{self.path} holds no notes: {error}. {OTHER}") from error
        except OSError as error:
            raise LensingError(f"{self.path} cannot be written: {error.strerror}. {OTHER}") from error
        if version > VERSION:
            raise FileFormatError(f"{self.path} has version {version}, this lensing reads {VERSION}. Update lensing.")
        if version == 0:
            if self._db.execute("select count(*) from sqlite_master").fetchone()[0]:
                raise FileFormatError(f"{self.path} is a database of something else. {OTHER}")
            self._db.executescript(f"begin immediate; {SCHEMA} pragma user_version = {VERSION}; commit;")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute("begin immediate")
                yield self._db
                self._db.execute("commit")
            except sqlite3.Error as error:
                if self._db.in_transaction:
                    self._db.execute("rollback")
                raise LensingError(f"{self.path} cannot be written: {error}. Free some space or try again.") from error
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("rollback")
                raise

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    # labels ----------------------------------------------------------------------------------------------------------

    def add_label(
        self, subject: str, latent: int, text: str, *, method: str = "person", by: str = "", score: float | None = None,
        n: int | None = None,
    ) -> int:  # fmt: skip
        """File a label and return its number."""
        text = _text(text, "label")
        with self._write() as db:
            row = (subject, latent, text, method, by, score, n)
            found = db.execute(
                "insert into label (subject, latent, text, method, by, score, n) values (?, ?, ?, ?, ?, ?, ?)", row
            )
            return int(found.lastrowid or 0)

    def fill(self, subject: str, labels: Iterable[tuple[int, str]], *, method: str, by: str = "") -> int:
        """Replace all labels of one method by these (latent, text); return how many there are."""
        with self._write() as db:
            db.execute("delete from label where subject = ? and method = ?", (subject, method))
            rows = [(subject, latent, text, method, by) for latent, text in labels]
            db.executemany("insert into label (subject, latent, text, method, by) values (?, ?, ?, ?, ?)", rows)
        return len(rows)

    def count(self, subject: str, method: str) -> int:
        """How many labels of one method there are."""
        return self._rows("select count(*) from label where subject = ? and method = ?", subject, method)[0][0]

    def remove_label(self, number: int) -> None:
        """Take a label away; UsageError for one that is not there."""
        with self._write() as db:
            if not db.execute("delete from label where id = ?", (number,)).rowcount:
                raise UsageError(f"There is no label {number}. Load the page again.")

    def labels(self, subject: str, latent: int) -> list[Label]:
        """All labels of a latent: those of persons first, then explained ones by score, automatic ones last."""
        rows = self._rows(f"select * from label where subject = ? and latent = ? order by {_ORDER}", subject, latent)
        return [Label(*row) for row in rows]

    def best(self, subject: str, latents: Sequence[int]) -> dict[int, Label]:
        """The first label of each of these latents, where there is one."""
        found: dict[int, Label] = {}
        for first in range(0, len(latents), 500):
            some = [int(i) for i in latents[first : first + 500]]
            marks = ",".join("?" * len(some))
            query = f"select * from label where subject = ? and latent in ({marks}) order by {_ORDER}"
            for row in self._rows(query, subject, *some):
                found.setdefault(row[2], Label(*row))
        return found

    def search(self, subject: str, words: str, n: int = 50) -> list[Label]:
        """Labels that hold all of these words or their beginnings, best first, one a latent (BM25)."""
        terms = [f'"{word}"*' for word in re.findall(r"\w+", words)]
        if not terms:
            raise UsageError("There is no word to look for. Give one.")
        rows = self._rows(
            "select label.* from label_text join label on label.id = label_text.rowid "
            "where label_text match ? and label.subject = ? order by bm25(label_text), label.id limit ?",
            " ".join(terms), subject, 4 * n,
        )  # fmt: skip
        found: dict[int, Label] = {}
        for row in rows:
            found.setdefault(row[2], Label(*row))
        return list(found.values())[:n]

    # notes and tags --------------------------------------------------------------------------------------------------

    def note(self, subject: str, latent: int) -> str:
        """The note on a latent, empty where there is none."""
        rows = self._rows("select text from note where subject = ? and latent = ?", subject, latent)
        return rows[0][0] if rows else ""

    def put_note(self, subject: str, latent: int, text: str) -> None:
        """Write a note in the place of the one that is there; an empty one takes it away."""
        with self._write() as db:
            db.execute("delete from note where subject = ? and latent = ?", (subject, latent))
            if text.strip():
                db.execute("insert into note values (?, ?, ?)", (subject, latent, _text(text, "note")))

    def tags(self, subject: str, latent: int) -> list[str]:
        """A latent's tags."""
        rows = self._rows("select tag from tag where subject = ? and latent = ? order by tag", subject, latent)
        return [row[0] for row in rows]

    def tagged(self, subject: str) -> dict[str, list[int]]:
        """All tags, each with its latents."""
        found: dict[str, list[int]] = {}
        for tag, latent in self._rows("select tag, latent from tag where subject = ? order by tag, latent", subject):
            found.setdefault(tag, []).append(latent)
        return found

    def put_tags(self, subject: str, latent: int, tags: Iterable[str]) -> None:
        """Give a latent exactly these tags."""
        clean = sorted({_text(tag, "tag", 64) for tag in tags})
        with self._write() as db:
            db.execute("delete from tag where subject = ? and latent = ?", (subject, latent))
            db.executemany("insert into tag values (?, ?, ?)", [(subject, latent, tag) for tag in clean])

    # lists -----------------------------------------------------------------------------------------------------------

    def lists(self) -> list[tuple[str, int]]:
        """Names of all lists, and how many latents each holds."""
        return self._rows("select name, count(item.list) from list left join item on item.list = list.id "
                          "group by list.id order by name")  # type: ignore[return-value]  # fmt: skip

    def items(self, name: str) -> list[tuple[str, int, str]]:
        """Of one list: subject, latent and note of each item, in the order they came."""
        return self._rows("select subject, latent, item.note from item join list on item.list = list.id "
                          "where name = ? order by item.rowid", name)  # type: ignore[return-value]  # fmt: skip

    def put_item(self, name: str, subject: str, latent: int, note: str = "") -> None:
        """Put a latent on a list, which is made where it is not there."""
        name = _text(name, "name", 128)
        with self._write() as db:
            db.execute("insert or ignore into list (name) values (?)", (name,))
            number = db.execute("select id from list where name = ?", (name,)).fetchone()[0]
            db.execute("insert or replace into item values (?, ?, ?, ?)", (number, subject, latent, note[:LONGEST]))

    def remove_item(self, name: str, subject: str, latent: int) -> None:
        """Take a latent off a list."""
        with self._write() as db:
            db.execute("delete from item where list = (select id from list where name = ?) and subject = ? "
                       "and latent = ?", (name, subject, latent))  # fmt: skip

    def remove_list(self, name: str) -> None:
        """Take a list away; UsageError for one that is not there."""
        with self._write() as db:
            if not db.execute("delete from list where name = ?", (name,)).rowcount:
                raise UsageError(f"There is no list {name!r}. Load the page again.")


_ORDER = "case method when 'person' then 0 when 'automatic' then 2 else 1 end, coalesce(score, 0) desc, id desc"


def _text(text: str, what: str, longest: int = LONGEST) -> str:
    text = text.strip()
    if not text or len(text) > longest:
        raise UsageError(f"A {what} of {len(text)} characters cannot be kept. Give 1 to {longest}.")
    return text
