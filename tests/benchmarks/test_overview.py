"""The README's picture: it is what the script draws, it is small, and it can be heard."""

from __future__ import annotations

from xml.etree import ElementTree

import overview

SVG = "{http://www.w3.org/2000/svg}"


def test_the_committed_picture_is_what_the_script_draws():
    assert overview.FILE.read_text(encoding="utf-8") == overview.picture()
    assert overview.FILE.stat().st_size < 20_000


def test_it_has_words_for_those_who_do_not_see_it():
    root = ElementTree.fromstring(overview.picture())
    named = {child.get("id"): child.text for child in root if child.get("id")}
    assert root.get("role") == "img"
    for name in root.get("aria-labelledby").split():
        assert len(named[name].split()) > 5
    for step in ("groups", "metrics", "oracle", "repair", "proof", "onnx"):
        assert step in named["description"].lower()


def test_every_word_of_a_box_lies_on_the_colour_of_the_box():
    root = ElementTree.fromstring(overview.picture())
    assert "fill: #ffffff" in overview.STYLE
    kinds = [box[3] for box in overview.BOXES]
    assert [r.get("class") for r in root.iter(f"{SVG}rect")] == ["frame", *kinds]
    for kind in kinds:
        assert contrast_to_white(overview.STYLE.partition(f".{kind} {{ fill: #")[2][:6]) > 4.5


def contrast_to_white(colour: str) -> float:
    """The ratio of the Web Content Accessibility Guidelines, which ask for 4.5."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 1.05 / (sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True)) + 0.05)
