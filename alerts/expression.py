"""One alert expression: checked once with places and suggestions, compiled once by the CEL library, run often.

A name without a value (a percentile of no requests) makes the whole expression have none, and so does nothing divided
by nothing, unless the rest decides alone: `a || b` is true when one side is, whatever the other lacks. That is CEL's
own treatment of errors.
"""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cel

from alerts.syntax import (
    Binary,
    Call,
    Choice,
    Listing,
    Literal,
    Name,
    Node,
    SyntaxProblem,
    Unary,
    parse,
    walk,
    with_doubles,
)
from alerts.vocabulary import LEVELS, LONGEST_WINDOW_S, ROLES, WINDOWS, Kind, Level, Query, Scope
from engine.durations import DurationError, parse_duration

Value = float | str | bool | None
Ask = Callable[[Query], Value]

# The CEL library warns of every function that raises, which is our way of saying that there is no value.
logging.getLogger("cel").setLevel(logging.CRITICAL)

_TEXT_METHODS = ("startsWith", "endsWith", "contains", "matches")


class NoValue(Exception):
    """The expression has no value now: what it asks about has none."""


class EvaluationError(Exception):
    """The expression failed; the message says how."""


class LevelTest:
    """An expression that is one comparison of a recorded state, so that the moment it became true is on record.

    Args:
        query: The state.
        holds: Whether a value of it fulfils the expression.
    """

    __slots__ = ("holds", "query")

    def __init__(self, query: Query, holds: Callable[[Value], bool]) -> None:
        self.query = query
        self.holds = holds


@dataclass(frozen=True, slots=True)
class Alternative:
    """One side of a `||` at the top of an expression, or all of one without.

    Attributes:
        shown: What the number for people is of while this side holds; `None`: it has none.
    """

    _program: Any
    shown: Query | None

    def holds(self, context: cel.Context) -> bool:
        """Whether it is true by itself; without a value it is not."""
        try:
            return self._program.execute(context) is True
        except (TypeError, ValueError, RuntimeError):
            return False


@dataclass(frozen=True, slots=True)
class Expression:
    """A checked and compiled expression.

    Attributes:
        text: As it was written.
        queries: Everything it asks.
        level: What makes its start a recorded fact, if it is one comparison of a recorded state.
        alternatives: What it consists of, each with a number for people.
    """

    text: str
    queries: frozenset[Query]
    level: LevelTest | None
    alternatives: tuple[Alternative, ...]
    _program: Any
    _divides: bool

    def run(self, ask: Ask) -> tuple[bool, float | None]:
        """Evaluate.

        Args:
            ask: Answers queries; `None` for no value.

        Returns:
            Whether it holds, and a number for people: the first that was looked at by what makes it hold.

        Raises:
            NoValue: It cannot be decided for lack of data.
            EvaluationError: It failed.
        """
        answers = {query: ask(query) for query in self.queries}
        missing = any(value is None for value in answers.values())
        context = _context(answers)
        try:
            result = self._program.execute(context)
        except (TypeError, ValueError, RuntimeError) as error:
            # Types were checked, so what CEL still finds no overload for is the order of 0 / 0, which is no number.
            if missing or (self._divides and isinstance(error, TypeError)):
                raise NoValue(self.text) from None
            msg = " ".join(str(error).split())[:200]
            raise EvaluationError(msg) from error
        if not isinstance(result, bool):
            msg = f"the result is {result!r}, not true or false"
            raise EvaluationError(msg)
        reason = self.alternatives[0]
        if result and len(self.alternatives) > 1:
            reason = next((one for one in self.alternatives if one.holds(context)), reason)
        number = answers.get(reason.shown) if reason.shown else None
        return result, None if isinstance(number, str | bool) else number


def _context(answers: dict[Query, Value]) -> cel.Context:
    variables: dict[str, Any] = {}
    functions: dict[str, Callable[..., Any]] = {}
    tables: dict[str, dict[tuple[str, ...], Value]] = {}
    for query, value in answers.items():
        if query.is_window:
            tables.setdefault(query.name, {})[(str(query.seconds), query.role)] = value
        elif LEVELS[query.name].by_role:
            tables.setdefault(query.name, {})[(query.role,)] = value
        elif value is not None:  # a missing one is left out: comparing null would quietly be false
            variables[query.name] = value
    for name, table in tables.items():
        functions[name] = _window_function(table) if name in WINDOWS else _role_function(table)
    return cel.Context(variables=variables, functions=functions)


@lru_cache(maxsize=4096)
def _seconds(window: str) -> str:
    return str(parse_duration(window))


def _window_function(table: dict[tuple[str, ...], Value]) -> Callable[..., Value]:
    def answer(window: str, role: str = "") -> Value:
        return table[(_seconds(window), role)]

    return answer


def _role_function(table: dict[tuple[str, ...], Value]) -> Callable[..., Value]:
    def answer(role: str) -> Value:
        value = table[(role,)]
        if value is None:  # as above: null differs from every word, so != would quietly be true
            raise NoValue(role)
        return value

    return answer


def compile_expression(text: str, scope: Scope = Scope.MANAGER) -> Expression:
    """Check and compile.

    Args:
        text: The expression.
        scope: What its rule is evaluated for.

    Raises:
        SyntaxProblem: It cannot work: not CEL, an unknown name, a type mismatch; with the place and a suggestion.
    """
    tree = parse(text)
    checker = _Checker(scope)
    kind = checker.kind(tree)
    if kind is not Kind.TRUTH:
        msg = f"gives a {kind}, and a rule needs a condition: compare it, such as {text.strip()[:40]} > 0.05"
        raise SyntaxProblem(msg, tree.at)
    program = _compiled(text)
    divides = any(isinstance(part, Binary) and part.sign == "/" for part in walk(tree))
    sides = _sides(text, tree)
    try:
        programs = [_compiled(side) for side, _ in sides] if len(sides) > 1 else [program]
    except SyntaxProblem:  # all of it stands in parentheses
        sides, programs = [(text, tree)], [program]
    alternatives = [Alternative(one, _number(node, scope)) for one, (_, node) in zip(programs, sides, strict=True)]
    return Expression(text, frozenset(checker.queries), _level_test(tree), tuple(alternatives), program, divides)


def _compiled(text: str) -> Any:
    try:
        return cel.compile(with_doubles(text))
    except ValueError as error:
        raise SyntaxProblem(" ".join(str(error).split())[:200], 0) from error


def _sides(text: str, tree: Node) -> list[tuple[str, Node]]:
    """The sides of the `||` at the top, in their order."""
    found = []
    end = len(text)
    while isinstance(tree, Binary) and tree.sign == "||":
        found.append((text[tree.at + 2 : end], tree.right))
        end, tree = tree.at, tree.left
    return [(text[:end], tree), *reversed(found)]


def _number(tree: Node, scope: Scope) -> Query | None:
    """The first number that is asked for."""
    checker = _Checker(scope)
    checker.kind(tree)
    numbers = (query for query in checker.queries if query.is_window or LEVELS[query.name].kind is Kind.NUMBER)
    return next(numbers, None)


def _level_test(tree: Node) -> LevelTest | None:
    """Recognise `state`, `!state`, `state == word` and their negations."""
    match tree:
        case Unary("!", operand, _):
            inner = _level_test(operand)
            return LevelTest(inner.query, lambda value: not inner.holds(value)) if inner else None
        case Binary("==" | "!=" as sign, left, Literal(word, _), _):
            return _comparison(left, word, sign)
        case Binary("==" | "!=" as sign, Literal(word, _), right, _):
            return _comparison(right, word, sign)
        case Binary("in", left, Listing(items, _), _) if all(isinstance(item, Literal) for item in items):
            query = _recorded(left)
            words = {item.value for item in items if isinstance(item, Literal)}
            return LevelTest(query, lambda value: value in words) if query else None
    query = _recorded(tree)
    return LevelTest(query, bool) if query and LEVELS[query.name].kind is Kind.TRUTH else None


def _comparison(state: Node, word: Value, sign: str) -> LevelTest | None:
    query = _recorded(state)
    return LevelTest(query, lambda value: (value == word) is (sign == "==")) if query else None


def _recorded(node: Node) -> Query | None:
    match node:
        case Name(name, _) if name in LEVELS and LEVELS[name].recorded:
            return Query(name)
        case Call(name, (Literal(str(role), _),), _, None) if name in LEVELS and LEVELS[name].recorded:
            return Query(name, role=role)
    return None


class _Checker:
    """Types of every part, and the queries met on the way, in their order."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self.queries: dict[Query, None] = {}

    def kind(self, node: Node) -> Kind:
        match node:
            case Literal(value, _):
                return _kind_of(value)
            case Name():
                return self._name(node)
            case Call():
                return self._call(node)
            case Unary(sign, operand, at):
                wanted = Kind.TRUTH if sign == "!" else Kind.NUMBER
                self._expect(operand, wanted, f"{sign} takes a {wanted}", at)
                return wanted
            case Choice(condition, yes, no, at):
                self._expect(condition, Kind.TRUTH, "what stands before ? must be a condition", at)
                kind = self.kind(yes)
                self._expect(no, kind, "both sides of : must be of one type", at)
                return kind
            case Binary():
                return self._binary(node)
            case Listing(_, at):
                msg = "a list can only stand after in"
                raise SyntaxProblem(msg, at)

    def _expect(self, node: Node, wanted: Kind, message: str, at: int) -> None:
        kind = self.kind(node)
        if kind is not wanted:
            msg = f"{message}, and this is a {kind}" if "takes" in message else f"{message}: this is a {kind}"
            raise SyntaxProblem(msg, at)

    def _binary(self, node: Binary) -> Kind:
        if node.sign in ("&&", "||"):
            for side in (node.left, node.right):
                self._expect(side, Kind.TRUTH, f"{node.sign} takes a condition on both sides", side.at)
            return Kind.TRUTH
        if node.sign == "in":
            return self._membership(node)
        left, right = self.kind(node.left), self.kind(node.right)
        if left is not right:
            msg = f"a {left} and a {right} cannot stand on the two sides of {node.sign}"
            raise SyntaxProblem(msg, node.at)
        if node.sign in ("==", "!="):
            self._equality(node, left)
            return Kind.TRUTH
        if left is not Kind.NUMBER:
            msg = f"{node.sign} takes numbers, and these are {left}: compare with == or !="
            raise SyntaxProblem(msg, node.at)
        return Kind.TRUTH if node.sign in ("<", "<=", ">", ">=") else Kind.NUMBER

    def _membership(self, node: Binary) -> Kind:
        if not isinstance(node.right, Listing):
            msg = 'in takes a list: write in ["open", "forced_open"]'
            raise SyntaxProblem(msg, node.right.at)
        left = self.kind(node.left)
        for item in node.right.items:
            self._expect(item, left, f"every item must be a {left}", item.at)
            self._word(node.left, item)
        return Kind.TRUTH

    def _equality(self, node: Binary, kind: Kind) -> None:
        self._word(node.left, node.right)
        self._word(node.right, node.left)
        for part in (*walk(node.left), *walk(node.right)) if kind is Kind.NUMBER else ():
            if isinstance(part, Call) and part.on is None and part.name in WINDOWS and WINDOWS[part.name].measured:
                msg = f"{part.name} is measured and never exactly equal to something: compare with < or >"
                raise SyntaxProblem(msg, node.at)

    @staticmethod
    def _word(asked: Node, literal: Node) -> None:
        """Refuse a word that the state never has."""
        name = asked.name if isinstance(asked, Name | Call) else ""
        words = LEVELS[name].words if name in LEVELS else ()
        if words and isinstance(literal, Literal) and literal.value not in words:
            near = difflib.get_close_matches(str(literal.value), words, n=1)
            hint = f'did you mean "{near[0]}"?' if near else f"it is one of {', '.join(words)}"
            msg = f'{name} is never "{literal.value}": {hint}'
            raise SyntaxProblem(msg, literal.at)

    def _name(self, node: Name) -> Kind:
        level = LEVELS.get(node.name)
        if level is None:
            if node.name in WINDOWS:
                msg = f'{node.name} needs a window: write {node.name}("5m")'
                raise SyntaxProblem(msg, node.at)
            raise SyntaxProblem(_unknown(node.name), node.at)
        if level.by_role:
            msg = f'{node.name} needs a role: write {node.name}("primary")'
            raise SyntaxProblem(msg, node.at)
        self._ask(Query(node.name), level.scope, node.at)
        return level.kind

    def _call(self, node: Call) -> Kind:
        if node.on is not None:
            return self._method(node)
        if node.name in LEVELS:
            return self._level_call(node, LEVELS[node.name])
        if node.name not in WINDOWS:
            raise SyntaxProblem(_unknown(node.name), node.at)
        window = WINDOWS[node.name]
        if not 1 <= len(node.arguments) <= (2 if window.by_role else 1):
            more = ' and at most a role, such as ("5m", "primary")' if window.by_role else ', such as ("5m")'
            msg = f"{node.name} takes a window{more}"
            raise SyntaxProblem(msg, node.at)
        seconds = _window(node.name, node.arguments[0])
        role = _role(node.arguments[1]) if len(node.arguments) == 2 else ""
        self._ask(Query(node.name, seconds, role), window.scope, node.at)
        return Kind.NUMBER

    def _level_call(self, node: Call, level: Level) -> Kind:
        if not level.by_role:
            msg = f"{node.name} takes no arguments: write {node.name}"
            raise SyntaxProblem(msg, node.at)
        if len(node.arguments) != 1:
            msg = f'{node.name} takes one role: write {node.name}("primary")'
            raise SyntaxProblem(msg, node.at)
        self._ask(Query(node.name, role=_role(node.arguments[0])), level.scope, node.at)
        return level.kind

    def _method(self, node: Call) -> Kind:
        if node.name not in _TEXT_METHODS:
            msg = f"there is no method {node.name}: texts have {', '.join(_TEXT_METHODS)}"
            raise SyntaxProblem(msg, node.at)
        for part in (node.on, *node.arguments):
            if part is not None:
                self._expect(part, Kind.TEXT, f"{node.name} takes text", part.at)
        if len(node.arguments) != 1:
            msg = f'{node.name} takes one text: write manager.{node.name}("chat")'
            raise SyntaxProblem(msg, node.at)
        if node.name == "matches" and isinstance(node.arguments[0], Literal):
            _check_pattern(node.arguments[0])
        return Kind.TRUTH

    def _ask(self, query: Query, scope: Scope, at: int) -> None:
        if self._scope is Scope.STORE and scope is not Scope.STORE:
            msg = f'{query.name} belongs to a manager: remove scope = "store" from the rule'
            raise SyntaxProblem(msg, at)
        self.queries[query] = None


def _check_pattern(pattern: Literal) -> None:
    """Try a pattern with whoever will match it, as a wrong one would fail with every evaluation."""
    try:
        cel.compile(f'"".matches({json.dumps(pattern.value)})').execute(cel.Context())
    except (TypeError, ValueError, RuntimeError):
        msg = f'"{pattern.value}" is no pattern: see https://github.com/google/re2/wiki/Syntax'
        raise SyntaxProblem(msg, pattern.at) from None


def _kind_of(value: float | str | bool) -> Kind:
    if isinstance(value, bool):
        return Kind.TRUTH
    return Kind.TEXT if isinstance(value, str) else Kind.NUMBER


def _window(name: str, node: Node) -> float:
    if not isinstance(node, Literal) or not isinstance(node.value, str):
        msg = f'the window of {name} is a text: write {name}("5m")'
        raise SyntaxProblem(msg, node.at)
    try:
        seconds = parse_duration(node.value)
    except DurationError as error:
        raise SyntaxProblem(str(error), node.at) from None
    if not 0 < seconds <= LONGEST_WINDOW_S:
        msg = f'the window of {name} must be longer than 0 and at most "31d"'
        raise SyntaxProblem(msg, node.at)
    return seconds


def _role(node: Node) -> str:
    if isinstance(node, Literal) and node.value in ROLES:
        return str(node.value)
    msg = 'a role is "primary" or "secondary"'
    raise SyntaxProblem(msg, node.at)


def _unknown(name: str) -> str:
    if any(name in level.words for level in LEVELS.values()):
        return f'there is no name {name}: write "{name}" for the word'
    known = [*LEVELS, *WINDOWS]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"there is no name {name}: " + (f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}")
