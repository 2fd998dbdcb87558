"""Reads the text of a grammar file into statements; every error names the file and the line (see docs/worlds.md)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from lensing.errors import UsageError, suggest
from lensing.world.grammartext import (
    OTHERWISE,
    RESERVED,
    SPECIAL_WORDS,
    Change,
    ConceptLine,
    Condition,
    Fact,
    Part,
    Phrase,
    Reference,
    Rule,
    Say,
    Template,
    Variable,
    Word,
    WordList,
    World,
)  # fmt: skip


def read_statements(path: str | Path) -> World:
    """Read a grammar file; UsageError where there is none, FileFormatError with the line where it makes no sense."""
    world = World(Path(path))
    try:
        raw = world.file.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}. Give the path of a grammar file (docs/worlds.md shows one)."
        ) from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise world.wrong(line, f"Byte 0x{raw[error.start]:02x} is not UTF-8.", "Save the file as UTF-8.") from error
    statements: list[tuple[int, str]] = []
    for number, written in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        stripped = re.sub(r"(^|\s)#.*", "", written).rstrip()
        if statements and (not stripped or stripped[0].isspace()):
            statements[-1] = (statements[-1][0], f"{statements[-1][1]}\n{stripped}")
        elif stripped:
            if stripped[0].isspace():
                raise world.wrong(number, "An indented line goes on with the statement above.", "There is none yet.")
            statements.append((number, stripped))
    if not statements:
        raise world.wrong(1, "The file says nothing.", "Write at least one sentence and one ending.")
    for line, statement in statements:
        _Parser(world, line).read(statement)
    return world


class _Parser:
    """Reads one statement into a World."""

    def __init__(self, world: World, line: int) -> None:
        self.world, self.line, self.wrong = world, line, world.wrong

    def read(self, statement: str) -> None:
        kind, _, rest = statement.partition(" ")
        readers: dict[str, Callable[[str, str], None]] = {
            "variable": self.variable, "hidden": self.variable, "local": self.variable, "list": self.words,
            "fact": self.fact, "rule": self.rule, "opening": self.template, "sentence": self.template,
            "ending": self.template, "concept": self.concept, "world": self.setting, "length": self.setting,
            "max_tokens": self.setting,
        }  # fmt: skip
        if kind not in readers:
            raise self.wrong(self.line, f"There is no statement {kind!r}.", suggest(kind, readers))
        readers[kind](kind, rest)

    def name(self, name: str, *tables: Mapping[str, object]) -> str:
        if not re.fullmatch(r"[^\W\d]\w*", name) or name in RESERVED:
            raise self.wrong(self.line, f"{name!r} cannot be a name.", "Take letters, digits and _.")
        for table in tables:
            if name in table:
                first = getattr(table[name], "line", self.line)
                raise self.wrong(self.line, f"{name!r} is defined on line {first} already.", "Choose another name.")
        return name

    def new(self, name: str) -> str:
        """A name that no variable, list or rule has: templates use them all alike."""
        w = self.world
        return self.name(name, w.variables, w.lists, w.rules)

    def body(self, rest: str, pattern: str, example: str) -> tuple[re.Match[str], str, int]:
        """Split `head: body` at the first colon; the third value is the line on which the body begins."""
        head, colon, body = rest.partition(":")
        match = re.fullmatch(pattern, " ".join(head.split()))
        if not colon or match is None:
            raise self.wrong(self.line, f"This statement cannot be read: {head.strip()!r}.", f"Write `{example}`.")
        return match, body, self.line + head.count("\n")

    def pieces(self, body: str, line: int, separator: str) -> list[tuple[str, int]]:
        """Cut a body at a separator; each piece with the line that its first word stands on."""
        found = []
        for piece in body.split(separator):
            before = piece[: len(piece) - len(piece.lstrip())]
            found.append((piece.strip(), line + before.count("\n")))
            line += piece.count("\n")
        return found

    def weighed(self, text: str, line: int) -> tuple[str, int]:
        """Take the integer at the end of an alternative as its weight, 1 where there is none."""
        match = re.fullmatch(r"(.*\S)\s+([-+]?\d[\d.]*)", text, re.DOTALL)
        return (match[1], self.weight(match[2], line)) if match else (text, 1)

    def weight(self, text: str, line: int) -> int:
        if not re.fullmatch(r"\d{1,9}", text) or int(text) < 1:
            raise self.wrong(
                line, f"The weight {text} is not a whole number of at least 1.", "Leave out what never is."
            )
        return int(text)

    def one_word(self, text: str, line: int) -> str:
        if not text or re.search(r"[\s{}|=;▁]|^#", text) or (len(text) > 1 and re.search(r"[.,?:]", text)):
            what = f"{text!r} is not one word." if text else "A word is missing."
            raise self.wrong(line, what, "Write single words with | between them, each with a weight or none.")
        if text in SPECIAL_WORDS:
            raise self.wrong(
                line, f"The word {text} is the tokenizer's own.", "Leave it out; an ending ends by itself."
            )
        return text

    def choices(self, body: str, line: int) -> dict[str, int]:
        """Words with weights."""
        found: dict[str, int] = {}
        for text, at in self.pieces(body, line, "|"):
            word, weight = self.weighed(text, at)
            if self.one_word(word, at) in found:
                raise self.wrong(at, f"{word!r} stands here twice.", "Add its weights and name it once.")
            found[word] = weight
        return found

    def variable(self, kind: str, rest: str) -> None:
        if kind != "hidden" and ":" not in rest:
            self.world.variables[self.new(rest.strip())] = Variable(self.line, kind, None)
            return
        match, body, line = self.body(rest, r"(\S+)", f"{kind} mood: calm 9 | angry")
        values = {None if v == "none" else v: w for v, w in self.choices(body, line).items()}
        if kind == "hidden" and None in values:
            raise self.wrong(line, "A hidden variable cannot hold none.", "Give it a value with a name.")
        self.world.variables[self.new(match[1])] = Variable(self.line, kind, values)

    def words(self, _: str, rest: str) -> None:
        match, body, line = self.body(rest, r"(\S+)(?: by (.+))?", "list beast: heron 5 | fox")
        cases: dict[str, dict[str, int]] = {}
        if match[2] is None:
            cases[OTHERWISE] = self.choices(body, line)
        for text, at in self.pieces(body, line, ";") if match[2] else ():
            key, equals, words = text.partition("=")
            if not equals:
                raise self.wrong(at, f"{text!r} is no case.", "Write `calm = good 9 | bad ; angry = bad`.")
            value = self.one_word(key.strip(), at)
            if value in cases:
                raise self.wrong(at, f"The case {value!r} stands here twice.", "Join the two.")
            cases[value] = self.choices(words, at + key.count("\n"))
        by = self.path(match[2], line) if match[2] else None
        self.world.lists[self.new(match[1])] = WordList(self.line, by, cases)

    def fact(self, _: str, rest: str) -> None:
        match, body, line = self.body(rest, r"(\S+) of (\S+)", "fact home of person: Anda = Kesswick | Bel Cob = Ford")
        values: dict[str, str] = {}
        for text, at in self.pieces(body, line, "|"):
            keys, _, value = text.partition("=")
            word = self.one_word(value.strip(), at)
            for key in keys.split() or [""]:
                if self.one_word(key, at) in values:
                    raise self.wrong(at, f"The {match[1]} of {key!r} is told twice.", "Keep one.")
                values[key] = word
        self.world.facts[self.name(match[1], self.world.facts)] = Fact(self.line, match[2], values)

    def rule(self, _: str, rest: str) -> None:
        match, body, line = self.body(rest, r"(\S+)", "rule greeting: hello {beast} | good day 3")
        self.world.rules[self.new(match[1])] = Rule(self.line, self.phrases(body, line))

    def template(self, kind: str, rest: str) -> None:
        match, body, line = self.body(
            rest, r"(\S+)( once)?(?: ((?:weight|when) .+))?", f"{kind} bell weight 3 when mood = calm: The bell rings."
        )
        clauses = []
        for clause in (match[3] or "weight 1").split("|"):
            found = re.fullmatch(r"\s*(?:weight\s+)?(?:([^\sw]\S*)\s*)?(?:\bwhen\s+(.+?))?\s*", clause)
            if found is None or not clause.strip():
                raise self.wrong(
                    self.line, f"{clause.strip()!r} is no weight.", "Write `weight 3 when mood = calm | 1`."
                )
            tests = re.split(r"\s+and\s+", found[2]) if found[2] else []
            clauses.append((self.weight(found[1], self.line) if found[1] else 1, tuple(self.test(t) for t in tests)))
        once = match[2] is not None
        if once and kind != "sentence":
            raise self.wrong(self.line, f"An {kind} comes but once.", "Leave `once` out.")
        name = self.name(match[1], self.world.templates)
        phrases = self.phrases(body, line, empty=kind == "ending")
        self.world.templates[name] = Template(self.line, kind, once, tuple(clauses), phrases)

    def test(self, text: str) -> Condition:
        match = re.fullmatch(r"(not\s+)?([\w ]+?)(?:\s*(!?=)\s*(\S+))?", text.strip())
        if match is None or (match[1] and match[3]):
            raise self.wrong(
                self.line, f"{text!r} is no condition.", "Write `mood = calm`, `mood != calm` or `not subject`."
            )
        value = None if match[4] == "none" else match[4]
        yes = not match[1] and match[3] != "!="
        return Condition(self.path(match[2], self.line), value, yes != (match[4] == "none"), self.line)

    def concept(self, _: str, rest: str) -> None:
        match, body, line = self.body(rest, r"(\S+)", "concept kind: kind of subject from beast per introduction")
        found = re.fullmatch(r"\s*(.+?)(?:\s+from\s+(\S+))?(?:\s+per\s+(.+?))?\s*", body, re.DOTALL)
        if found is None:
            raise self.wrong(line, "A concept needs a variable.", "Write `concept kind: kind of subject`.")
        name = self.name(match[1], self.world.concepts)
        per = " ".join((found[3] or "").split())
        self.world.concepts[name] = ConceptLine(self.line, self.path(found[1], line), found[2], per)

    def setting(self, kind: str, rest: str) -> None:
        if kind in self.world.lines:
            raise self.wrong(self.line, f"{kind!r} is said on line {self.world.lines[kind]} already.", "Keep one.")
        self.world.lines[kind] = self.line
        patterns = {"world": r"([^\W\d]\w*)", "length": r"(\d{1,4})(?: to (\d{1,4}))?", "max_tokens": r"(\d{1,6})"}
        match = re.fullmatch(patterns[kind], " ".join(rest.split()))
        example = {"world": "world harbour", "length": "length 4 to 9", "max_tokens": "max_tokens 256"}[kind]
        if match is None:
            raise self.wrong(self.line, f"{kind} {rest.strip()!r} cannot be read.", f"Write `{example}`.")
        if kind == "world":
            self.world.name = match[1]
        elif kind == "max_tokens":
            self.world.max_tokens = int(match[1])
        else:
            self.world.shortest, self.world.longest = int(match[1]), int(match[2]) if match[2] else None
            if self.world.longest is not None and self.world.longest < max(1, self.world.shortest):
                raise self.wrong(self.line, f"No document has {rest.strip()} sentences.", f"Write `{example}`.")

    def path(self, text: str, line: int) -> Reference:
        names = re.split(r"\s+of\s+", text.strip())
        if not all(re.fullmatch(r"\w+", name) for name in names):
            raise self.wrong(line, f"{text.strip()!r} is no name.", "Write `subject` or `home of subject`.")
        return Reference(tuple(names[:-1]), names[-1])

    def phrases(self, body: str, line: int, *, empty: bool = False) -> tuple[Phrase, ...]:
        found = []
        for text, at in self.pieces(body, line, "|"):
            text, weight = self.weighed(text, at)
            parts = self.parts(text, at)
            if not parts and not empty:
                raise self.wrong(at, "There is no text here.", "Write the words after the colon.")
            found.append(Phrase(weight, parts))
        return tuple(found)

    def parts(self, text: str, line: int) -> tuple[Part, ...]:
        parts: list[Part] = []
        for token in re.finditer(r"\{[^{}]*\}|[.,?:]|[^\s{}.,?:]+|[{}]", text):
            at = line + text[: token.start()].count("\n")
            if token[0] in ("{", "}"):
                raise self.wrong(at, f"A {token[0]!r} stands alone.", "Close every { with } in the same statement.")
            if not token[0].startswith("{"):
                parts.append(Word(self.one_word(token[0], at), at))
            elif token[0].startswith("{!"):
                parts.append(self.change(token[0][2:-1], at))
            else:
                match = re.fullmatch(r"(.+?)(?:\s+except\s+(.+?))?(?:\s*->\s*(\S+))?", " ".join(token[0][1:-1].split()))
                if match is None:
                    raise self.wrong(at, f"{token[0]} says nothing.", "Write `{beast}` or `{beast -> subject}`.")
                excluded = self.path(match[2], at) if match[2] else None
                parts.append(Say(self.path(match[1], at), excluded, match[3], at))
        return tuple(parts)

    def change(self, text: str, line: int) -> Change:
        values = []
        for piece in text.split(","):
            match = re.fullmatch(r"\s*(\w+)\s*=\s*([^\s=]+)\s*", piece)
            if match is None:
                raise self.wrong(line, f"{{!{' '.join(text.split())}}} changes nothing.", "Write `{!mood = angry}`.")
            values.append((match[1], None if match[2] == "none" else match[2]))
        return Change(tuple(values), line)
