"""The page: self-contained, whole, safe, and readable in a real browser."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from slimnet.report.html import MAX_LAYERS, html_page, save_html

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
VOID = {"meta", "path", "use", "rect", "br", "link", "image"}


class Reader(HTMLParser):
    """Collects what stands in a page, and whether every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(page):
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


def test_the_page_is_whole_and_loads_nothing(report):
    page = html_page(report)
    reader = read(page)
    assert len(page) < 2_000_000
    for tag, attributes in reader.found:
        assert tag not in {"script", "link", "img", "iframe"}
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert not re.search(r"@import|url\((?!#)", page)


def test_every_figure_has_a_text_for_those_who_do_not_see_it(report):
    reader = read(html_page(report))
    figures = [attributes for tag, attributes in reader.found if tag == "figure"]
    assert len(figures) == 5
    assert all(len(figure["aria-label"]) > 40 for figure in figures)
    assert sum(tag == "svg" for tag, _ in reader.found) == 5


def test_the_findings_are_in_it(report):
    text = read(html_page(report)).text
    for part in ("head", "it is the output layer", "taylor_first_order", report.command, "÷ 2.47"):
        assert part in text


def test_ids_of_the_figures_do_not_meet(report):
    reader = read(html_page(report))
    for name in re.findall(r'url\(#(\w+)\)|href="#(\w+)"', html_page(report)):
        assert any(attributes.get("id") in name for _, attributes in reader.found)


def test_names_cannot_break_out_of_the_page(report):
    evil = '<script>alert("x")</script>$\\frac$'
    hostile = dataclasses.replace(
        report, source=evil, command=evil, channels_per_layer={evil: (4, 2)},
        frozen=(dataclasses.replace(report.frozen[0], layer=evil, reason=evil + "{x}$y$"),),
    )  # fmt: skip
    assert "script" not in {tag for tag, _ in read(html_page(hostile)).found}


def test_a_run_that_removed_nothing_and_one_of_many_layers(report):
    nothing = dataclasses.replace(report.trajectory, steps=(), kept_steps=0, plan={})
    many = {f"layer{i}": (8, 8) for i in range(MAX_LAYERS + 1)}
    page = html_page(dataclasses.replace(report, trajectory=nothing, channels_per_layer=many))
    assert sum(tag == "svg" for tag, _ in read(page).found) == 1


def test_the_same_report_gives_the_same_page(report):
    assert html_page(report) == html_page(report)


@pytest.mark.skipif(BROWSER is None, reason="no browser on this machine")
def test_a_real_browser_draws_it_without_a_word_of_complaint(report, tmp_path):
    save_html(report, tmp_path / "report.html")
    # the page must not be wider than a phone
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    probe = (
        "<script>document.title = [document.documentElement.scrollWidth, innerWidth,"
        "[...document.querySelectorAll('figure svg')].filter("
        "s => s.getBoundingClientRect().height > 40).length].join(' ')</script></body>"
    )
    (tmp_path / "probe.html").write_text(page.replace("</body>", probe), encoding="utf-8")
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         "--window-size=500,900", "--dump-dom", (tmp_path / "probe.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    width, window, drawn = map(int, re.search(r"<title>([\d ]+)</title>", done.stdout)[1].split())
    assert width <= window
    assert drawn == 5
    assert "CONSOLE" not in done.stderr
