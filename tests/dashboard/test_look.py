"""Both themes are legible, and everything they need is shipped."""

from __future__ import annotations

import pytest

from dashboard.look import DARK, HERE, LIGHT, Palette, contrast, streamlit_options, variables

AA = 4.5
GROUNDS = ("page", "surface", "sunken")


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("ink", ["text", "muted", "accent", "ok", "warn", "bad"])
def test_text_is_legible_on_every_ground(palette: Palette, ground: str, ink: str) -> None:
    assert contrast(getattr(palette, ink), getattr(palette, ground)) >= AA


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("tone", ["ok", "warn", "bad", "accent"])
def test_a_state_is_legible_on_its_own_colour(palette: Palette, tone: str) -> None:
    assert contrast(getattr(palette, tone), getattr(palette, f"{tone}_soft")) >= AA


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_the_two_models_are_told_apart_from_the_ground(palette: Palette) -> None:
    assert contrast(palette.primary, palette.surface) >= 3
    assert contrast(palette.secondary, palette.surface) >= 3


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_every_font_is_a_file_of_the_package_with_its_licence() -> None:
    for face in streamlit_options()["theme.fontFaces"]:
        assert (HERE / "static" / face["url"].rsplit("/", 1)[1]).is_file()
    assert len(list((HERE / "static").glob("*LICENSE*"))) == 2


def test_every_option_is_one_that_streamlit_knows() -> None:
    from streamlit import config

    assert set(streamlit_options()) <= set(config._config_options_template)


def test_colours_follow_the_scheme_of_the_page() -> None:
    assert f"--sg-text:light-dark({LIGHT.text},{DARK.text})" in variables("dark")
    assert "color-scheme:dark" in variables("dark")
