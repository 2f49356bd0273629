"""Markup cannot be injected into."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dashboard.markup import Html, div, join, link, literal, tag


@given(st.text())
def test_text_never_becomes_an_element(text: str) -> None:
    made = tag("p", text, title=text)
    inner = made.removeprefix("<p").removesuffix("</p>")
    assert "<" not in inner
    assert made.count('"') == 2


def test_markup_that_was_built_here_is_kept() -> None:
    assert tag("p", tag("b", "x"), " & y") == "<p><b>x</b> &amp; y</p>"


def test_nothing_is_left_of_none() -> None:
    assert div("a", None, hidden=None, open=False) == '<div class="a"></div>'


def test_a_link_leads_nowhere_but_to_pages() -> None:
    assert 'href="#"' in link("javascript:alert(1)", "x")
    assert 'href="/requests?a=1&amp;b=2"' in link("/requests?a=1&b=2", "x")


def test_joined_text_is_escaped_once() -> None:
    assert join("<", Html("<br>")) == "&lt;<br>"


def test_text_in_an_element_that_reads_markdown_is_shown_as_it_is() -> None:
    said = literal("![x](http://evil.example/x.png) :red[now] $x$ `a` <b>")
    assert "![x]" not in said
    assert ":red[" not in said
    assert said.replace("\\", "") == "![x](http://evil.example/x.png) :red[now] $x$ `a` <b>"
