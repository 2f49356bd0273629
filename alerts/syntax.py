"""The grammar of alert expressions: the part of CEL that rules need, as a tree with places.

The CEL library compiles and runs expressions but tells neither types nor places; this parser does, so that a
mistake is named where it stands. Everything it accepts is CEL and means the same there. Whole numbers are read as
doubles: CEL refuses to mix the two, and every number a rule can ask for is a double.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<number>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+|\d+)"
    r"|(?P<text>\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*')|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<sign>&&|\|\||==|!=|<=|>=|[-+*/<>!?:(),\[\].])"
)
_LEVELS = (("||",), ("&&",), ("==", "!=", "<", "<=", ">", ">=", "in"), ("+", "-"), ("*", "/"))


MOST_TOKENS = 400
"""Words and signs of an expression: what is longer is no rule, and a tree that deep cannot be walked."""


class SyntaxProblem(ValueError):
    """An expression that cannot be read.

    Args:
        message: What is wrong and what to write.
        at: Where, in characters from its beginning.
    """

    def __init__(self, message: str, at: int) -> None:
        super().__init__(message)
        self.message = message
        self.at = at


@dataclass(frozen=True, slots=True)
class Literal:
    """A number, text or truth value."""

    value: float | str | bool
    at: int


@dataclass(frozen=True, slots=True)
class Name:
    """A name without arguments."""

    name: str
    at: int


@dataclass(frozen=True, slots=True)
class Call:
    """A function with arguments; `on` is what a method is called on."""

    name: str
    arguments: tuple[Node, ...]
    at: int
    on: Node | None = None


@dataclass(frozen=True, slots=True)
class Unary:
    """`!x` or `-x`."""

    sign: str
    operand: Node
    at: int


@dataclass(frozen=True, slots=True)
class Binary:
    """Two operands and what stands between them."""

    sign: str
    left: Node
    right: Node
    at: int


@dataclass(frozen=True, slots=True)
class Choice:
    """`condition ? yes : no`."""

    condition: Node
    yes: Node
    no: Node
    at: int


@dataclass(frozen=True, slots=True)
class Listing:
    """A list of values, for `in`."""

    items: tuple[Node, ...]
    at: int


Node = Literal | Name | Call | Unary | Binary | Choice | Listing


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


def parse(text: str) -> Node:
    """Read an expression.

    Raises:
        SyntaxProblem: It is not one, with the place.
    """
    return _Parser(text).whole()


def walk(node: Node) -> Iterator[Node]:
    """A node and everything below it."""
    yield node
    match node:
        case Call(_, arguments, _, on):
            below = (*arguments, on) if on is not None else arguments
        case Unary(_, operand, _):
            below = (operand,)
        case Binary(_, left, right, _):
            below = (left, right)
        case Choice(condition, yes, no, _):
            below = (condition, yes, no)
        case Listing(items, _):
            below = items
        case _:
            below = ()
    for child in below:
        yield from walk(child)


def with_doubles(text: str) -> str:
    """The same expression with whole numbers written as doubles: `> 3` becomes `> 3.0`."""
    parts = []
    for token in _tokens(text):
        whole = token.kind == "number" and token.text.isdigit()
        parts.append(f"{token.text}.0" if whole else token.text)
    return " ".join(parts)


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise SyntaxProblem(_stray(text, at), at)
        if found.lastgroup != "space":
            tokens.append(_Token(str(found.lastgroup), found.group(), at))
        at = found.end()
    return tokens


def _stray(text: str, at: int) -> str:
    if text[at] == "=":
        return "a single = compares nothing: write =="
    if text[at] in "&|":
        return f"a single {text[at]}: write {text[at] * 2}"
    if text[at] == "%":
        return "there is no %: every number is a double, and 5 % is written 0.05"
    if text[at] in "\"'":
        return "this text does not end: close it with the same quote"
    return f"{text[at]!r} does not belong into an expression"


_WINDOW_HINT = 'a window is a text in parentheses: write ("10m")'


class _Parser:
    """Precedence climbing over the tokens; `_LEVELS` has the operators, loosest first."""

    def __init__(self, text: str) -> None:
        self._end = len(text)
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = 0

    def whole(self) -> Node:
        if len(self._tokens) > MOST_TOKENS:
            msg = f"has more than {MOST_TOKENS} words and signs: split the rule"
            raise SyntaxProblem(msg, self._tokens[MOST_TOKENS].at)
        if not self._tokens:
            msg = 'is empty: write a condition, such as active_model == "secondary"'
            raise SyntaxProblem(msg, 0)
        node = self._choice()
        if (token := self._peek()) is not None:
            hint = {"and": "&&", "or": "||", "not": "!"}.get(token.text.lower())
            msg = f"write {hint} for {token.text}" if hint else f"nothing may follow here, but {token.text} does"
            raise SyntaxProblem(_WINDOW_HINT if self._in_window(token) else msg, token.at)
        return node

    def _peek(self) -> _Token | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _take(self, *texts: str) -> _Token | None:
        token = self._peek()
        if token is not None and token.text in texts and token.kind in ("sign", "name"):
            self._next += 1
            return token
        return None

    def _in_window(self, token: _Token) -> bool:
        """Whether it is the bracket of `[10m]`, or the unit of `(10m)`."""
        before = self._tokens[self._next - 1]
        unit = token.kind == "name" and before.kind == "number" and token.at == before.at + len(before.text)
        return unit or token.text == "["

    def _need(self, text: str) -> None:
        if self._take(text) is None:
            token = self._peek()
            found = f"but {token.text} stands here" if token else "but it ends"
            msg = _WINDOW_HINT if token and self._in_window(token) else f"{text} is expected, {found}"
            raise SyntaxProblem(msg, token.at if token else self._end)

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > 50:
            msg = "is nested more than fifty deep: split the rule"
            raise SyntaxProblem(msg, 0)

    def _choice(self) -> Node:
        self._deeper()
        condition = self._binary(0)
        if (mark := self._take("?")) is not None:
            yes = self._choice()
            self._need(":")
            condition = Choice(condition, yes, self._choice(), mark.at)
        self._depth -= 1
        return condition

    def _binary(self, level: int) -> Node:
        if level == len(_LEVELS):
            return self._unary()
        node = self._binary(level + 1)
        while (sign := self._take(*_LEVELS[level])) is not None:
            node = Binary(sign.text, node, self._binary(level + 1), sign.at)
        return node

    def _unary(self) -> Node:
        if (sign := self._take("!", "-")) is not None:
            self._deeper()
            unary = Unary(sign.text, self._unary(), sign.at)
            self._depth -= 1
            return unary
        node = self._primary()
        while self._take(".") is not None:
            token = self._peek()
            if token is None or token.kind != "name":
                msg = "a method's name is expected after the dot"
                raise SyntaxProblem(msg, token.at if token else self._end)
            self._next += 1
            self._need("(")
            node = Call(token.text, self._items(")"), token.at, node)
        return node

    def _primary(self) -> Node:
        token = self._peek()
        if token is None:
            msg = "ends too early: a value is missing"
            raise SyntaxProblem(msg, self._end)
        self._next += 1
        if token.kind == "number":
            return Literal(float(token.text), token.at)
        if token.kind == "text":
            return Literal(re.sub(r"\\(.)", r"\1", token.text[1:-1]), token.at)
        if token.kind == "name":
            return self._named(token)
        if token.text == "(":
            node = self._choice()
            self._need(")")
            return node
        if token.text == "[":
            return Listing(self._items("]"), token.at)
        msg = f"a value is expected, but {token.text} stands here"
        raise SyntaxProblem(msg, token.at)

    def _named(self, token: _Token) -> Node:
        if token.text in ("true", "false"):
            return Literal(token.text == "true", token.at)
        if self._take("(") is not None:
            return Call(token.text, self._items(")"), token.at)
        return Name(token.text, token.at)

    def _items(self, close: str) -> tuple[Node, ...]:
        if self._take(close) is not None:
            return ()
        items = [self._choice()]
        while self._take(",") is not None:
            items.append(self._choice())
        self._need(close)
        return tuple(items)
