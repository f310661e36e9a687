"""Draws the picture of the README: python benchmarks/overview.py writes results/overview.svg.

The boxes have their own background. Arrows and captions follow the reader's colour scheme. The
picture is readable on white and on black.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

FILE = Path(__file__).parent / "results" / "overview.svg"
WIDTH, HEIGHT = 860, 324
BOX_HEIGHT, TOPS = 68, (42, 134, 226)
SIDE, MIDDLE = 224, 280
LEFT, CENTRE, RIGHT = 4, 282, WIDTH - SIDE - 4
FRAME = (CENTRE - 14, 6, MIDDLE + 64, HEIGHT - 14)

TITLE = "How slimnet makes a trained network smaller"
DESCRIPTION = (
    "A trained model and some images go in. The channels that can only go together are found as "
    "groups. Then, step by step, metrics propose channels, the oracle tries every proposal and "
    "decides, and the layers that read the removed channels are repaired; this is repeated while "
    "the accuracy drop stays within the budget. Proofs follow, and an ONNX file comes out."
)
# left edge, top, width, class, and the lines; the first line is the heading
BOXES = (
    (LEFT, TOPS[0], SIDE, "end", "Model|trained weights, and a few|hundred images or more"),
    (LEFT, TOPS[1], SIDE, "step", "Groups|channels that can only go|together, found and proven"),
    (
        CENTRE, TOPS[0], MIDDLE, "loop",
        "Metrics propose|each names the channels|that it ranks lowest",
    ),
    (
        CENTRE, TOPS[1], MIDDLE, "loop",
        "The oracle decides|every proposal is tried, the least|change for what is saved wins",
    ),
    (
        CENTRE, TOPS[2], MIDDLE, "loop",
        "Repair|the layers that read what went are|solved anew, without training",
    ),
    (RIGHT, TOPS[1], SIDE, "step", "Proof|slim = masked in float64,|ONNX Runtime = PyTorch"),
    (RIGHT, TOPS[2], SIDE, "end", "ONNX|the slim network, with|report and plan beside it"),
)  # fmt: skip
LOOP = CENTRE + MIDDLE
LOOP_OUT = LOOP + 26
ARROWS = (
    f"M{LEFT + SIDE / 2:g} {TOPS[0] + BOX_HEIGHT}V{TOPS[1] - 3}",
    f"M{LEFT + SIDE} {TOPS[1] + BOX_HEIGHT / 2:g}H{FRAME[0] - 3}",
    f"M{CENTRE + MIDDLE / 2:g} {TOPS[0] + BOX_HEIGHT}V{TOPS[1] - 3}",
    f"M{CENTRE + MIDDLE / 2:g} {TOPS[1] + BOX_HEIGHT}V{TOPS[2] - 3}",
    f"M{LOOP} {TOPS[2] + BOX_HEIGHT / 2:g}H{LOOP_OUT}V{TOPS[0] + BOX_HEIGHT / 2:g}H{LOOP + 3}",
    f"M{FRAME[0] + FRAME[2]} {TOPS[1] + BOX_HEIGHT / 2:g}H{RIGHT - 3}",
    f"M{RIGHT + SIDE / 2:g} {TOPS[1] + BOX_HEIGHT}V{TOPS[2] - 3}",
)
STYLE = """
text { font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif }
.head { font-size: 16px; font-weight: 600; fill: #ffffff }
.line { font-size: 13px; fill: #ffffff }
.end { fill: #0b5394 } .step { fill: #46505c } .loop { fill: #8a4b08 }
.arrow { fill: none; stroke: #6e7781; stroke-width: 2; marker-end: url(#tip) }
.tip { fill: #6e7781 }
.frame { fill: none; stroke: #6e7781; stroke-width: 1.5; stroke-dasharray: 6 4 }
.caption { font-size: 13px; fill: #57606a }
@media (prefers-color-scheme: dark) {
  .arrow, .frame { stroke: #9da7b1 } .tip { fill: #9da7b1 } .caption { fill: #c9d1d9 }
}
"""


def picture() -> str:
    """Return the SVG."""
    x, y, width, height = FRAME
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" role="img" aria-labelledby="title description">',
        f'<title id="title">{escape(TITLE)}</title>',
        f'<desc id="description">{escape(DESCRIPTION)}</desc>',
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="5" '
        'markerHeight="5" orient="auto"><path class="tip" d="M0 0L8 4L0 8Z"/></marker></defs>',
        f'<rect class="frame" x="{x}" y="{y}" width="{width}" height="{height}" rx="10"/>',
        f'<text class="caption" x="{x + width / 2:g}" y="{y + 22}" text-anchor="middle">'
        "step by step, while the drop is within the budget</text>",
        *(f'<path class="arrow" d="{path}"/>' for path in ARROWS),
        *(box(*described) for described in BOXES),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def box(x: int, y: int, width: int, kind: str, text: str) -> str:
    rows = zip(("head", "line", "line"), (22, 41, 58), text.split("|"), strict=True)
    parts = [
        f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{BOX_HEIGHT}" rx="7"/>',
        *(
            f'<text class="{name}" x="{x + width / 2:g}" y="{y + down}" text-anchor="middle">'
            f"{escape(line)}</text>"
            for name, down, line in rows
        ),
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    FILE.write_text(picture(), encoding="utf-8")
