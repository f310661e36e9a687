"""The frame of the HTML report: light and dark, phone and paper."""

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem;
       color: #1a1a1a; background: #fff; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
.verdict { font-size: 1.15rem; font-weight: 600; }
figure { margin: 0; } figure svg { width: 100%; height: auto; }
figcaption { font-size: 0.9rem; opacity: 0.8; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: 0.25rem 0.9rem 0.25rem 0;
         border-bottom: 1px solid #8886; }
td { overflow-wrap: anywhere; min-width: 3rem; } td.short { white-space: nowrap; }
@media (max-width: 30rem) { th, td { padding-right: 0.4rem; font-size: 0.85em; } }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: 0.8rem 0; } summary { cursor: pointer; }
@media (prefers-color-scheme: dark) { body { color: #e4e4e4; background: #161616; } }
@media print { body { color: #000; background: #fff; max-width: none; } h2, figure { break-inside:
  avoid; break-after: avoid; } }
"""

PAGE = (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    "<title>{title}</title>\n<style>"
    + STYLE.replace("{", "{{").replace("}", "}}")
    + "</style>\n</head>\n<body>\n<h1>{title}</h1>\n{body}\n</body>\n</html>\n"
)
