"""The PromQL twin of an expression: the same condition over the metrics that Switchgear exposes, where there is one.

A twin finds what the expression finds, up to what Prometheus cannot know: it sees counters at its scrapes and
extrapolates between them. What differs for a reason is said in a note beside the twin; what no metric tells has no
twin, and the reason is said instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from alerts.expression import compile_expression
from alerts.observations import FAILURES, LIMITED, SEVERITY
from alerts.syntax import Binary, Call, Choice, Listing, Literal, Name, Node, Unary, parse
from alerts.vocabulary import LEVELS, PERCENTILES, WINDOWS, Kind, Scope
from engine.durations import parse_duration

_M = "dualmodelmanager_"
_OR, _AND, _COMPARISON, _SUM, _PRODUCT, _ATOM = range(6)
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_NEGATED = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}
_HALVES = {">": 0.5, ">=": -0.5, "<": -0.5, "<=": 0.5}
_UNITS = ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s"))

HALVES = (
    "counts are extrapolated by increase() and compared with a half between two whole numbers: right for up to half as "
    "many events as the window has scrapes; each counts from the next scrape on"
)
REFUSED = "requests that were refused with 503 count as errors here"
CANARIES = "answers to canaries are not in this metric"
BOUNDS = "percentiles are estimated between bounds that double, so they are coarse"
RAMPS = "no metric counts ramps that were given up: falls of the traffic ratio without a move stand for them"
LIMITED_MODEL = (
    "the role is that of the model whose limit was reached; Switchgear's own rule counts by role what was turned away "
    "after that model had been tried"
)
REPLAYED = "what is replayed counts on here; Switchgear's own rule forgets it"
NOBODY = "while no process runs there is no value here, and Switchgear's own rule takes a breaker for closed"

_WITHOUT: Mapping[str, str] = MappingProxyType(
    {
        "agreement_age": "no metric tells when the agreement was last confirmed; the nearest is "
        "dualmodelmanager_coordinator_up == 0",
        "breaker_trips": "no metric tells the breakers of one process from those of another; all of them together are "
        'dualmodelmanager_breaker_transitions_total{from_state="closed",to_state="open"}',
        "agreement_regressed": "no metric tells that the coordinator went back in time",
        "outbox_age": "no metric tells how old a notification is; dualmodelmanager_outbox_pending counts them",
        "receivers_stopped": "no metric tells that a receiver was stopped",
    }
)


class NoTwin(Exception):
    """There is none; the message says why."""


@dataclass(frozen=True, slots=True)
class Twin:
    """An expression in PromQL.

    Attributes:
        text: It, in one line.
        notes: In what it may differ from the original.
    """

    text: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of the twin: its text, how tightly it binds, and what it is.

    Attributes:
        scalar: The number it is, if it is one.
        whole: Whether it is a whole number: a count of events, or computed from such.
        shared: Whether it is of the store and has no label `manager`.
    """

    text: str
    binds: int = _ATOM
    scalar: float | None = None
    whole: bool = False
    shared: bool = False

    def inside(self, binds: int) -> str:
        """Its text as an operand of something that binds so tightly."""
        return self.text if self.binds >= binds else f"({self.text})"


def twin_of(text: str, scope: Scope = Scope.MANAGER) -> Twin:
    """Translate an expression.

    Args:
        text: The expression.
        scope: What its rule is evaluated for.

    Raises:
        SyntaxProblem: It is no expression.
        NoTwin: There is no twin.
    """
    compile_expression(text, scope)
    translator = _Translator(scope)
    piece = translator.condition(parse(text))
    return Twin(piece.text, tuple(translator.notes))


class _Translator:
    def __init__(self, scope: Scope) -> None:
        self._store = scope is Scope.STORE
        self.notes: dict[str, None] = {}

    def condition(self, node: Node, *, holds: bool = True) -> _Piece:
        """A vector that has an element for each manager for which the condition holds, or does not."""
        match node:
            case Literal(bool(value), _):
                return self._always(value is holds)
            case Unary("!", operand, _):
                return self.condition(operand, holds=not holds)
            case Binary("&&" | "||" as sign, left, right, _):
                sides = self.condition(left, holds=holds), self.condition(right, holds=holds)
                return _both(*sides) if (sign == "&&") is holds else _either(*sides)
            case Choice(asked, yes, no, _):
                taken = _both(self.condition(asked), self.condition(yes, holds=holds))
                return _either(taken, _both(self.condition(asked, holds=False), self.condition(no, holds=holds)))
            case Binary("in", left, Listing(items, _), _) if self._is_text(left):
                words = {item.value for item in items if isinstance(item, Literal)}
                return self._state(left, words.__contains__, [str(word) for word in words], holds=holds)
            case Binary("in", left, Listing(items, _), _):
                found = [self._compared("==" if holds else "!=", left, item) for item in items]
                return _fold(_either if holds else _both, found)
            case Binary(sign, left, right, _):
                return self._binary(sign if holds else _NEGATED[sign], left, right)
            case Call(name, (Literal(str(wanted), _),), _, on) if on is not None:
                return self._method(name, on, wanted, holds=holds)
        return self._pinned(holds=holds)

    def _binary(self, sign: str, left: Node, right: Node) -> _Piece:
        if self._is_text(left) or self._is_text(right):
            state, other = (right, left) if isinstance(left, Literal) else (left, right)
            if not isinstance(other, Literal):
                msg = "PromQL cannot compare two states with each other"
                raise NoTwin(msg)
            return self._state(state, lambda word: word == other.value, [str(other.value)], holds=sign == "==")
        if sign in ("==", "!=") and not self._is_number(left):
            same = [_both(self.condition(left, holds=one), self.condition(right, holds=one)) for one in (True, False)]
            other_ = [
                _both(self.condition(left, holds=one), self.condition(right, holds=not one)) for one in (True, False)
            ]
            return _fold(_either, same if sign == "==" else other_)
        return self._compared(sign, left, right)

    def _compared(self, sign: str, left: Node, right: Node) -> _Piece:
        one, other = self._number(left), self._number(right)
        if one.scalar is not None and other.scalar is not None:
            return self._always(_COMPARE[sign](one.scalar, other.scalar))
        if one.scalar is not None:
            one, other, sign = other, one, _FLIPPED[sign]
        if one.whole and other.whole:
            if other.scalar is not None:
                return self._counted(sign, one, other.scalar)
            return self._counted(sign, _paired(one, "-", other, _SUM), 0)
        return replace(_paired(one, sign, other, _COMPARISON), whole=False)

    def _counted(self, sign: str, count: _Piece, limit: float) -> _Piece:
        """A comparison of extrapolated counts: between two whole numbers."""
        self.notes[HALVES] = None
        text = count.inside(_COMPARISON + 1)
        if sign in _HALVES:
            return _Piece(f"{text} {sign} {_plain(limit + _HALVES[sign])}", _COMPARISON, shared=count.shared)
        low = _Piece(f"{text} >= {_plain(limit - 0.5)}", _COMPARISON, shared=count.shared)
        high = _Piece(f"{text} < {_plain(limit + 0.5)}", _COMPARISON, shared=count.shared)
        if sign == "==":
            return _both(low, high)
        outside = (
            replace(low, text=f"{text} < {_plain(limit - 0.5)}"),
            replace(high, text=f"{text} >= {_plain(limit + 0.5)}"),
        )
        return _either(*outside)

    def _number(self, node: Node) -> _Piece:
        match node:
            case Literal(value, _) if not isinstance(value, str | bool):
                return _scalar(_plain(value), value)
            case Unary("-", operand, _):
                inner = self._number(operand)
                if inner.scalar is not None:
                    return _scalar(_plain(-inner.scalar), -inner.scalar)
                return replace(inner, text=f"-1 * {inner.inside(_PRODUCT)}", binds=_PRODUCT)
            case Binary("+" | "-" | "*" | "/" as sign, left, right, _):
                return self._arithmetic(sign, self._number(left), self._number(right))
            case Name(name, _):
                return self._level(name)
            case Call(name, arguments, _, None):
                words = [str(argument.value) for argument in arguments if isinstance(argument, Literal)]
                return self._window(name, parse_duration(words[0]), words[1] if len(words) > 1 else "")
        msg = "PromQL cannot choose between two numbers: write a rule for each"
        raise NoTwin(msg)

    def _arithmetic(self, sign: str, one: _Piece, other: _Piece) -> _Piece:
        if one.scalar is not None and other.scalar is not None and not (sign == "/" and other.scalar == 0):
            value = _COMPUTE[sign](one.scalar, other.scalar)
            # Written as it stands: 14.4 * 0.001 says more than its product.
            binds = _SUM if sign in "+-" else _PRODUCT
            right = other.inside(binds + (sign in "-/"))
            return _scalar(f"{one.inside(binds)} {sign} {right}", value, binds)
        whole = sign in "+-*" and one.whole and other.whole
        return replace(_paired(one, sign, other, _SUM if sign in "+-" else _PRODUCT), whole=whole)

    def _level(self, name: str) -> _Piece:
        if name in _WITHOUT:
            raise NoTwin(_WITHOUT[name])
        if name == "instances":
            return _Piece(f"count({_M}recorder_queue_length)", shared=True)
        if name == "recorder_queue":
            return _Piece(f"sum({_M}recorder_queue_length)", shared=True)
        return _Piece(f"max by (manager) ({_M}{name})")

    def _window(self, name: str, seconds: float, role: str) -> _Piece:
        if name in _WITHOUT:
            raise NoTwin(_WITHOUT[name])
        span = _span(seconds)
        if name in PERCENTILES:
            self.notes[BOUNDS] = None
            metric, share = PERCENTILES[name]
            family = "request_duration_seconds" if metric == "duration" else "time_to_first_token_seconds"
            rate = f"rate({_M}{family}_bucket{_labels(role=role)}[{span}])"
            return _Piece(f"histogram_quantile({share:g}, sum by (manager, le) ({rate}))")
        if name == "dead_letters":
            self.notes[REPLAYED] = None
            text = f"sum(increase({_M}notifications_total{_labels(outcome='dead')}[{span}]))"
            return _Piece(text, whole=True, shared=True)
        if name == "ramp_aborts":
            self.notes[RAMPS] = None
            moves = f"{_M}failover_events_total{_labels(from_role='primary')}"
            falls = f"max by (manager) (resets({_M}primary_traffic_ratio[{span}]))"
            return _Piece(f"{falls} - round(sum by (manager) (increase({moves}[{span}])))", _SUM, whole=True)
        if name in ("error_rate", "secondary_share"):
            part, total = self._ratio(name, role)
            parts = (f"sum by (manager) (rate({_M}{series}[{span}]))" for series in (part, total))
            return _Piece(" / ".join(parts), _PRODUCT)
        return _Piece(f"sum by (manager) (increase({_M}{self._counter(name, role)}[{span}]))", whole=name != "cost_usd")

    def _ratio(self, name: str, role: str) -> tuple[str, str]:
        if name == "secondary_share":
            answers = _labels(role="secondary", status_code="200"), _labels(status_code="200")
            return f"requests_total{answers[0]}", f"requests_total{answers[1]}"
        if role:
            failed = "|".join(sorted(FAILURES))
            series = _labels(role=role, category=f"~{failed}"), _labels(role=role, category=f"~{failed}|ok")
            return f"attempts_total{series[0]}", f"attempts_total{series[1]}"
        self.notes[REFUSED] = None
        return 'requests_total{status_code=~"5.."}', 'requests_total{status_code=~"200|5.."}'

    def _counter(self, name: str, role: str) -> str:
        if role and name in ("tokens", "cost_usd"):
            msg = f"{name} is counted by model and not by role: write {_M}{name}_total with the model's name"
            raise NoTwin(msg)
        if name == "errors":
            if role:
                return f"attempts_total{_labels(role=role, category='~' + '|'.join(sorted(FAILURES)))}"
            self.notes[REFUSED] = None
            return 'requests_total{status_code=~"5.."}'
        if name in ("auth_errors", "semantic_failures"):
            self.notes[CANARIES] = None
            return f"attempts_total{_labels(role=role, category='auth' if name == 'auth_errors' else 'semantic')}"
        if name == "failovers":
            return 'failover_events_total{from_role="primary",cause!="override"}'
        if name == "request_failovers":
            return f"request_failovers_total{_labels(from_role=role)}"
        if name == "rate_limited":
            return f"attempts_total{_labels(role=role, category='~' + '|'.join(sorted(LIMITED, reverse=True)))}"
        if name == "shed" and role:
            self.notes[LIMITED_MODEL] = None
        return f"{name}_total{_labels(role=role)}"

    def _state(self, node: Node, fits: Callable[[str], bool], words: Iterable[str], *, holds: bool) -> _Piece:
        """A text that is one of some words."""
        if isinstance(node, Name) and node.name == "manager":
            pattern = "|".join(map(re.escape, sorted(words)))
            return self._named("=~" if holds else "!~", pattern)
        level = LEVELS[node.name] if isinstance(node, Name | Call) and node.name in LEVELS else None
        if level is None or not isinstance(node, Name | Call):
            msg = "PromQL cannot look into a text"
            raise NoTwin(msg)
        wanted = [word for word in level.words if fits(word) is holds]
        if node.name == "breaker" and isinstance(node, Call) and isinstance(role := node.arguments[0], Literal):
            return self._breaker(str(role.value), wanted)
        if len(wanted) in (0, len(level.words)):
            return self._always(bool(wanted))
        return _Piece(f"max by (manager) ({_M}active_model{_labels(role=wanted[0])}) == 1", _COMPARISON)

    def _breaker(self, role: str, wanted: Iterable[str]) -> _Piece:
        """A breaker of all instances is in the worst state that half of them are in, or worse than."""
        places = sorted(SEVERITY.index(word) for word in wanted)
        all_ = f"sum by (manager) ({_M}breaker_state{_labels(role=role)})"

        def reached(upto: int) -> _Piece:
            if upto == len(SEVERITY):
                return _Piece(f"{all_} > 0", _COMPARISON)
            states = SEVERITY[:upto]
            bad = _labels(role=role, state=states[0] if len(states) == 1 else f"~{'|'.join(states)}")
            return _Piece(f"2 * sum by (manager) ({_M}breaker_state{bad}) >= {all_}", _COMPARISON)

        if len(SEVERITY) - 1 in places:
            self.notes[NOBODY] = None
        found = []
        for first in (place for place in places if place - 1 not in places):
            last = next(place for place in range(first, len(SEVERITY) + 1) if place not in places)
            run = reached(last)
            if first:
                run = _Piece(f"{run.inside(_AND)} unless {reached(first).inside(_AND + 1)}", _AND)
            found.append(run)
        return _fold(_either, found) if found else self._always(holds=False)

    def _method(self, name: str, on: Node, wanted: str, *, holds: bool) -> _Piece:
        if isinstance(on, Name) and on.name == "manager":
            quoted = re.escape(wanted)
            shapes = {"startsWith": f"{quoted}.*", "endsWith": f".*{quoted}", "contains": f".*{quoted}.*"}
            return self._named("=~" if holds else "!~", shapes.get(name, f".*(?:{wanted}).*"))
        try:
            pattern = re.compile(wanted if name == "matches" else "")
        except re.error as error:
            msg = f"the pattern cannot be read: {error}"
            raise NoTwin(msg) from None
        tests: dict[str, Callable[[str], bool]] = {
            "startsWith": lambda word: word.startswith(wanted),
            "endsWith": lambda word: word.endswith(wanted),
            "contains": lambda word: wanted in word,
        }
        return self._state(on, tests.get(name, lambda word: pattern.search(word) is not None), (), holds=holds)

    def _named(self, sign: str, pattern: str) -> _Piece:
        quoted = pattern.replace("\\", "\\\\").replace('"', '\\"')
        return _Piece(f'max by (manager) ({_M}active_model{{manager{sign}"{quoted}"}}) == 1', _COMPARISON)

    def _pinned(self, *, holds: bool) -> _Piece:
        return _Piece(f"max by (manager) ({_M}override_active) == {int(holds)}", _COMPARISON)

    def _always(self, holds: bool) -> _Piece:
        if self._store:
            return _Piece("vector(1)" if holds else "vector(1) < 0", _ATOM if holds else _COMPARISON, shared=True)
        return _Piece(f"max by (manager) ({_M}active_model) {'== 1' if holds else '< 0'}", _COMPARISON)

    @staticmethod
    def _is_text(node: Node) -> bool:
        match node:
            case Literal(value, _):
                return isinstance(value, str)
            case Name(name, _) | Call(name, _, _, None):
                return name in LEVELS and LEVELS[name].kind is Kind.TEXT
        return False

    @staticmethod
    def _is_number(node: Node) -> bool:
        match node:
            case Literal(value, _):
                return not isinstance(value, str | bool)
            case Name(name, _) | Call(name, _, _, None):
                return name in WINDOWS or LEVELS[name].kind is Kind.NUMBER
            case Unary("-", _, _) | Binary("+" | "-" | "*" | "/", _, _, _):
                return True
        return False


_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}
_COMPUTE: Mapping[str, Callable[[float, float], float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
}


def _fold(join: Callable[[_Piece, _Piece], _Piece], pieces: Iterable[_Piece]) -> _Piece:
    first, *rest = pieces
    for one in rest:
        first = join(first, one)
    return first


def _both(one: _Piece, other: _Piece) -> _Piece:
    if one.shared and not other.shared:
        one, other = other, one  # the result keeps the labels of its left side
    on = " on ()" if one.shared is not other.shared else ""
    return _Piece(f"{one.inside(_AND)} and{on} {other.inside(_AND + 1)}", _AND, shared=one.shared)


def _either(one: _Piece, other: _Piece) -> _Piece:
    if one.shared is not other.shared:
        msg = "what is of a manager and what is of the whole store cannot stand on the two sides of or: write two rules"
        raise NoTwin(msg)
    return _Piece(f"{one.inside(_OR)} or {other.inside(_OR + 1)}", _OR, shared=one.shared)


def _paired(one: _Piece, sign: str, other: _Piece, binds: int) -> _Piece:
    """Two numbers with an operator between, of which one at least is a vector."""
    if None is one.scalar is other.scalar and one.shared is not other.shared:
        msg = "PromQL cannot compute with a number of a manager and one of the whole store"
        raise NoTwin(msg)
    shared = one.shared or other.shared
    return _Piece(f"{one.inside(binds)} {sign} {other.inside(binds + 1)}", binds, shared=shared)


def _scalar(text: str, value: float, binds: int = _ATOM) -> _Piece:
    return _Piece(text, binds, scalar=value, whole=float(value).is_integer())


def _labels(**labels: str) -> str:
    """A selector; a value that begins with ~ is a pattern, an empty one is left out."""
    given = [
        f'{name}=~"{value[1:]}"' if value.startswith("~") else f'{name}="{value}"'
        for name, value in labels.items()
        if value
    ]
    return f"{{{','.join(given)}}}" if given else ""


def _span(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    for unit, word in _UNITS:
        if milliseconds % (unit * 1000) == 0:
            return f"{milliseconds // (unit * 1000)}{word}"
    return f"{milliseconds}ms"


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(number)
