"""HTML that cannot be injected into: every text that comes in is escaped, only `tag` makes markup.

Prompts, answers, error texts and names of models are data of strangers. They reach a page through these functions or
through Streamlit's own text elements, never by string formatting.
"""

from __future__ import annotations

from html import escape

VOID = frozenset({"br", "hr", "img", "wbr"})


class Html(str):
    """Markup that was built by `tag` and needs no more escaping."""

    __slots__ = ()


Child = Html | str | int | float | None


MARKDOWN = frozenset("\\`*_{}[]()<>#+-.!|~$:")
"""Signs that mean something to Markdown, to formulas and to Streamlit's icons and colours."""


def tag(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Html:
    """One element.

    Args:
        name: The element.
        children: `Html` is taken as it is, `None` is left out, everything else is escaped.
        attributes: `cls` is `class`; underscores become dashes; `None` and `False` are left out, `True` has no value.
    """
    opening = name + "".join(_attribute(key, value) for key, value in attributes.items())
    if name in VOID:
        return Html(f"<{opening}>")
    return Html(f"<{opening}>{join(*children)}</{name}>")


def join(*children: Child) -> Html:
    """Several pieces after each other, escaped where they are not markup."""
    return Html(
        "".join(child if isinstance(child, Html) else escape(str(child)) for child in children if child is not None)
    )


def div(cls: str, /, *children: Child, **attributes: str | float | bool | None) -> Html:
    """A `div` of a class."""
    return tag("div", *children, cls=cls, **attributes)


def span(cls: str, /, *children: Child, **attributes: str | float | bool | None) -> Html:
    """A `span` of a class."""
    return tag("span", *children, cls=cls, **attributes)


def quoted(text: str) -> Html:
    """What somebody wrote, in quotes; words that run from right to left leave those around them in their order."""
    return tag("bdi", f"“{text}”")


def icon(name: str, *, cls: str = "") -> Html:
    """A Material symbol; always beside a word, so it is hidden from screen readers.

    Args:
        name: Such as `check_circle`.
        cls: More classes.
    """
    return tag("span", name, cls=f"sg-icon {cls}".strip(), aria_hidden="true")


def link(href: str, *children: Child, cls: str = "", title: str | None = None) -> Html:
    """A link inside the dashboard; only relative addresses and http(s) are let through."""
    safe = href if href.startswith(("/", "?", "#", "http://", "https://")) else "#"
    return tag("a", *children, href=safe, cls=cls or None, title=title)


def literal(text: str) -> str:
    """Text for an element that reads Markdown, shown as it is: what a receiver or a model said must fetch nothing."""
    return "".join(f"\\{sign}" if sign in MARKDOWN else sign for sign in text)


def _attribute(key: str, value: str | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = "class" if key == "cls" else key.replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
