"""The report as one self-contained page: what happened, and why, for whoever reads it later."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path

from slimnet.export.partial import partial_file
from slimnet.records import Report
from slimnet.report.goal_text import GOAL_HEADS, goal_rows
from slimnet.report.int8 import int8_rows
from slimnet.report.numbers import count, points, titled
from slimnet.report.page import PAGE
from slimnet.report.summary import summary_lines
from slimnet.report.text import result_rows

MOST_LAYERS = 400
Rows = Iterable[Sequence[object]]
SHORT = 9  # characters


def save_html(report: Report, path: Path) -> None:
    """Write the report as one HTML file that loads nothing else.

    Raises:
        InputError: the file cannot be written.
    """
    with partial_file(path) as temporary:
        temporary.write_text(html_page(report), encoding="utf-8")


def html_page(report: Report) -> str:
    """Return the page; does not change the report."""
    verdict, *rest = summary_lines(report)
    sections = [
        f'<p class="verdict">{escape(verdict)}</p>',
        *(f"<p>{escape(line)}</p>" for line in rest),
        _table("Goals", GOAL_HEADS, goal_rows(report)),
        _table("Before and after", ("", "original", "slim", "change"), result_rows(report)),
        _table("In int8", ("", ""), [] if report.int8 is None else int8_rows(report.int8)),
        *_figures(report),
        _steps(report),
        _frozen(report),
        _table("Where and how", ("", ""), _facts(report)),
        f"<h2>Again</h2><pre>{escape(report.command)}</pre>",
    ]
    title = f"slimnet: {report.source}"
    return PAGE.format(title=escape(title), body="\n".join(part for part in sections if part))


def _figures(report: Report) -> list[str]:
    """Return every figure that has something to show, each with its numbers below."""
    from slimnet.report import plots  # matplotlib takes a second to import: only where it is used

    made: list[str] = []
    quantity = titled(report.selection_drop.quantity)
    if report.trajectory.steps:
        made += [
            _figure(
                f"{quantity} against weights removed", plots.trajectory_plot, report,
                f"{quantity} on the selection images after each step, its bounds, the budget as a "
                "dashed line, and the step that was chosen as a diamond.",
            ),
            _figure(
                "What the oracle measured", plots.sensitivities_plot, report,
                "The change of the loss for every set of channels that a metric proposed, and, as "
                "diamonds, the ones that were taken: the lowest for what they save.",
            ),
        ]  # fmt: skip
    if report.trajectory.kept_steps:
        made.append(
            _figure(
                "Which metric proposed what was removed", plots.metrics_plot, report,
                "Each circle is a step that was kept, in the row of the metric that proposed it.",
            )
        )  # fmt: skip
    if 0 < len(report.channels_per_layer) <= MOST_LAYERS:
        widths = [(name, *sizes) for name, sizes in report.channels_per_layer.items()]
        made.append(
            _figure(
                "Channels kept", plots.layers_plot, report,
                "Channels of each layer: outlined the original's, filled the slim network's.",
            )
            + _details("Channels by layer", ("layer", "original", "slim"), widths)
        )  # fmt: skip
    if report.latency:
        made.append(
            _figure(
                "Latency", plots.latency_plot, report,
                "Timings of both networks, interleaved, as shares of the original's median: "
                "the box holds half of them, the line in it is the median.",
            )
        )  # fmt: skip
    return made


def _figure(heading: str, draw: Callable[[Report], str], report: Report, text: str) -> str:
    described = escape(text, quote=True)
    return (
        f'<h2>{escape(heading)}</h2><figure role="img" aria-label="{described}">'
        f"{draw(report)}<figcaption>{described}</figcaption></figure>"
    )


def _steps(report: Report) -> str:
    rows = []
    for step in report.trajectory.steps:
        chosen = step.candidates[step.chosen]
        what = "; ".join(
            [f"{name}: {len(units)}" for name, units in chosen.channels.items()]
            + [f"{name}: {len(units)} given back" for name, units in step.given_back.items()]
        )
        state = (
            "taken back" if step.taken_back
            else "kept" if step.number <= report.trajectory.kept_steps
            else "beyond the budget"
        )  # fmt: skip
        rows.append(
            (step.number, chosen.metric, what, f"{chosen.sensitivity:+.4f}",
             f"{step.parameters_removed_percent:.1f} %", points(step.drop.points), state,
             ", ".join(step.recovered_by))
        )  # fmt: skip
    heads = ("step", "proposed by", "units of each group", "change of loss (nats)",
             "parameters removed", f"{report.selection_drop.quantity} (points)", "",
             "recovered by")  # fmt: skip
    return _details("Every step", heads, rows)


def _frozen(report: Report) -> str:
    rows = [(entry.layer, count(entry.channels), entry.reason) for entry in report.frozen]
    return _table("What was left whole, and why", ("layer", "channels", "reason"), rows)


def _facts(report: Report) -> Rows:
    yield "model", report.source
    yield "data", report.data.get("description", "")
    for name, value in report.environment.items():
        yield name, value
    yield (
        "masked = slim (float64)",
        f"{report.masked_slim.relative_error:.1e} of the output's scale",
    )
    for batch, parity in report.artefacts.slim_onnx.parity.items():
        yield f"ONNX Runtime = PyTorch, batch {batch}", f"{parity.relative_error:.1e}"
    for name, digest in report.artefacts.sha256.items():
        yield f"SHA-256 of {name}", digest
    for name, seconds in report.seconds.items():
        yield f"seconds {name}", f"{seconds:.1f}"


def _table(heading: str, heads: Sequence[str], rows: Rows) -> str:
    rows = list(rows)
    if not rows:
        return ""
    return f"<h2>{escape(heading)}</h2>{_rows(heads, rows)}"


def _details(heading: str, heads: Sequence[str], rows: Rows) -> str:
    rows = list(rows)
    if not rows:
        return ""
    return f"<details><summary>{escape(heading)}</summary>{_rows(heads, rows)}</details>"


def _cell(text: str) -> str:
    # a figure or a short word is never broken, not even on a phone
    short = ' class="short"' if len(text) <= SHORT else ""
    return f"<td{short}>{escape(text)}</td>"


def _rows(heads: Sequence[str], rows: Rows) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads) if any(heads) else ""
    body = "".join("<tr>" + "".join(_cell(str(value)) for value in row) + "</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'
