"""Colours, fonts and Streamlit's theme: one palette per theme, and everything that is derived from it.

Guarantees: text on every surface has a contrast of at least 4.5 (a test holds it to that); one accent; red, amber and
green mean state and nothing else; the two models keep their colours on every page and in every chart. Fonts are
files of this package (SIL Open Font License, beside them in `static/`), so nothing is fetched from elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
STYLESHEET: Final = HERE / "assets" / "look.css"
LINKS: Final = HERE / "assets" / "links.js"
HOLD: Final = HERE / "assets" / "hold.js"
WANTED: Final = HERE / "assets" / "wanted.js"
LOGO: Final = HERE / "assets" / "mark.svg"
BODY_FONT: Final = "Inter, system-ui, sans-serif"
CODE_FONT: Final = "JetBrains Mono, ui-monospace, monospace"


@dataclass(frozen=True, slots=True)
class Palette:
    """One theme's colours as `#rrggbb`.

    Attributes:
        page: Behind everything.
        surface: Cards.
        sunken: Wells inside cards: tracks, code, table heads.
        line: Borders and grids.
        text: What is read.
        muted: What explains it; still AA on page, surface and sunken.
        faint: Marks that carry no text.
        accent: What can be clicked.
        primary: The primary model, everywhere.
        secondary: The secondary model, everywhere.
        ok: Healthy, as text and icon; `ok_soft` behind it, `ok_fill` as a mark.
        warn: Degraded, the same three.
        bad: Failing, the same three.
    """

    page: str
    surface: str
    sunken: str
    line: str
    text: str
    muted: str
    faint: str
    accent: str
    accent_soft: str
    primary: str
    primary_soft: str
    secondary: str
    secondary_soft: str
    ok: str
    ok_soft: str
    ok_fill: str
    warn: str
    warn_soft: str
    warn_fill: str
    bad: str
    bad_soft: str
    bad_fill: str


LIGHT: Final = Palette(
    page="#f5f6f8",
    surface="#ffffff",
    sunken="#eef0f4",
    line="#dfe3ea",
    text="#12161d",
    muted="#545d6b",
    faint="#b9c0cc",
    accent="#2456d6",
    accent_soft="#e8eefc",
    primary="#2a5fd8",
    primary_soft="#e6edfc",
    secondary="#9a3fb5",
    secondary_soft="#f5e9f9",
    ok="#10693c",
    ok_soft="#e3f4ea",
    ok_fill="#2ca764",
    warn="#875100",
    warn_soft="#fdf1d8",
    warn_fill="#e09a1a",
    bad="#b3261e",
    bad_soft="#fdebea",
    bad_fill="#d93a30",
)

DARK: Final = Palette(
    page="#0c0f14",
    surface="#14181f",
    sunken="#1c222b",
    line="#28303b",
    text="#e8ebf1",
    muted="#9ba6b6",
    faint="#465061",
    accent="#82a8ff",
    accent_soft="#1a2644",
    primary="#6a9bff",
    primary_soft="#18264a",
    secondary="#d48bea",
    secondary_soft="#33203b",
    ok="#5fd394",
    ok_soft="#11291d",
    ok_fill="#2f9e62",
    warn="#f2b84b",
    warn_soft="#30250f",
    warn_fill="#d9982a",
    bad="#ff8a80",
    bad_soft="#3a1a1a",
    bad_fill="#e0524a",
)


def palette(theme: str | None) -> Palette:
    """The colours of a theme; light when the browser has not said."""
    return DARK if theme == "dark" else LIGHT


def variables(theme: str | None = None) -> str:
    """The palette as CSS custom properties `--sg-*` that follow the page's colour scheme.

    Args:
        theme: What the browser said; only needed for what is drawn outside the page's own element, such as dialogs.
    """
    pairs = "".join(
        f"--sg-{field.name.replace('_', '-')}:light-dark({getattr(LIGHT, field.name)},{getattr(DARK, field.name)});"
        for field in fields(Palette)
    )
    return (
        f":root{{color-scheme:{'dark' if theme == 'dark' else 'light'}}}body,.stApp,[data-testid=stDialog]{{{pairs}}}"
    )


def streamlit_options() -> dict[str, Any]:
    """Streamlit's own configuration: both themes, the fonts, and what makes a server of it.

    Returns:
        Values by dotted option name, as `streamlit run --NAME` and `st.App.run` take them.
    """
    options: dict[str, Any] = {
        "server.headless": True,
        "server.fileWatcherType": "none",
        "server.enableStaticServing": True,
        "server.runOnSave": False,
        "browser.gatherUsageStats": False,
        "client.showErrorDetails": "none",
        "client.toolbarMode": "viewer",
        "client.showSidebarNavigation": True,
        "runner.magicEnabled": False,
        "logger.level": "warning",
        "logger.hideWelcomeMessage": True,
        "theme.font": BODY_FONT,
        "theme.headingFont": BODY_FONT,
        "theme.codeFont": CODE_FONT,
        "theme.baseFontSize": 14,
        "theme.baseRadius": "8px",
        "theme.headingFontSizes": ["1.5rem", "1.2rem", "1.05rem", "1rem", "0.9rem", "0.85rem"],
        "theme.headingFontWeights": [650, 600, 600, 600, 600, 600],
        "theme.showWidgetBorder": True,
        "theme.fontFaces": _font_faces(),
    }
    for name, colours in (("light", LIGHT), ("dark", DARK)):
        options |= _theme(f"theme.{name}", colours)
        options |= {
            f"theme.{name}.sidebar.backgroundColor": colours.surface,
            f"theme.{name}.sidebar.secondaryBackgroundColor": colours.sunken,
            f"theme.{name}.sidebar.borderColor": colours.line,
        }
    return options


def _theme(prefix: str, colours: Palette) -> dict[str, Any]:
    named = {
        "primaryColor": colours.accent,
        "backgroundColor": colours.page,
        "secondaryBackgroundColor": colours.surface,
        "textColor": colours.text,
        "linkColor": colours.accent,
        "borderColor": colours.line,
        "dataframeBorderColor": colours.line,
        "dataframeHeaderBackgroundColor": colours.sunken,
        "codeTextColor": colours.text,
        "codeBackgroundColor": colours.sunken,
        "redColor": colours.bad_fill,
        "redTextColor": colours.bad,
        "redBackgroundColor": colours.bad_soft,
        "orangeColor": colours.warn_fill,
        "orangeTextColor": colours.warn,
        "orangeBackgroundColor": colours.warn_soft,
        "yellowColor": colours.warn_fill,
        "yellowTextColor": colours.warn,
        "yellowBackgroundColor": colours.warn_soft,
        "greenColor": colours.ok_fill,
        "greenTextColor": colours.ok,
        "greenBackgroundColor": colours.ok_soft,
        "blueColor": colours.primary,
        "blueTextColor": colours.accent,
        "blueBackgroundColor": colours.accent_soft,
        "violetColor": colours.secondary,
        "violetTextColor": colours.secondary,
        "violetBackgroundColor": colours.secondary_soft,
        "grayTextColor": colours.muted,
        "grayBackgroundColor": colours.sunken,
    }
    return {f"{prefix}.{name}": value for name, value in named.items()}


def _font_faces() -> list[dict[str, str]]:
    latin = (
        "U+0000-00FF,U+0131,U+0152-0153,U+02BB-02BC,U+02C6,U+02DA,U+02DC,U+2000-206F,U+20AC,U+2122,U+2191-2193,U+2212"
    )
    extended = "U+0100-0130,U+0132-0151,U+0154-02BA,U+02BD-02C5,U+1E00-1E9F,U+1EF2-1EFF,U+20A0-20AB,U+20AD-20C0"
    files = (
        ("Inter", "inter-latin-wght-normal.woff2", "100 900", latin),
        ("Inter", "inter-latin-ext-wght-normal.woff2", "100 900", extended),
        ("JetBrains Mono", "jetbrains-mono-latin-wght-normal.woff2", "100 800", latin),
    )
    return [
        {"family": family, "url": f"app/static/{file}", "weight": weight, "style": "normal", "unicodeRange": characters}
        for family, file, weight, characters in files
    ]


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, 1..21 (WCAG 2.2, "contrast ratio")."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
