"""Table III and the paper's claims as Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, median

import paper
import runs
from table3_columns import CANDIDATES, COLUMNS, FULL_ORACLE, MYOPIC, OURS, SINGLE

Values = Mapping[str, Mapping[int, float]]
"""Convolution weights removed of one row, in percent, by column and seed."""


def report(rows: Sequence[paper.Row], found: Sequence[runs.Run]) -> str:
    """Return the table, the claims and the drop on the test images, as Markdown."""
    parts = [
        table(rows, found),
        runs.basis(paper.by_title(rows, found)),
        claims(rows, found),
        gain_of_k(rows, found),
        drops(found),
    ]
    return "\n\n".join(part for part in parts if part)


def by_row(found: Iterable[runs.Run]) -> Mapping[tuple[str, str], Values]:
    """Return the removed share by network and data set, then column, then seed."""
    values: dict[tuple[str, str], dict[str, dict[int, float]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for run in found:
        share = run["conv_weights_removed_percent"]
        values[run["network"], run["dataset"]][run["column"]][run["seed"]] = share
    return values


def table(rows: Sequence[paper.Row], found: Sequence[runs.Run]) -> str:
    """Return % of convolution weights removed, mean ± standard deviation over the seeds."""
    values = by_row(found)
    header = ["network", *(column.heading for column in COLUMNS.values()), "paper's best"]
    lines = [
        [
            row.title,
            *(
                runs.mean_and_spread(values[row.network, row.dataset].get(name, {}).values())
                for name in COLUMNS
            ),
            row.papers_best,
        ]
        for row in rows
        if (row.network, row.dataset) in values
    ]
    return runs.markdown_table(header, lines)


def gains(values: Values, ours: str, other: str) -> list[float]:
    """Return the lead of one column over another in points, for each seed that has both."""
    both = set(values.get(ours, {})) & set(values.get(other, {}))
    return [values[ours][seed] - values[other][seed] for seed in sorted(both)]


def best_single(values: Values) -> str | None:
    """Return the single metric with the highest mean, or None if their seeds differ."""
    seeds = {frozenset(values.get(metric, {})) for metric in SINGLE}
    if len(seeds) != 1 or not all(seeds):
        return None
    return max(SINGLE, key=lambda metric: mean(values[metric].values()))


def claims(rows: Sequence[paper.Row], found: Sequence[runs.Run]) -> str:
    """Return, network by network, whether composed metrics meet or beat every single one."""
    values = by_row(found)
    lines, verdicts = [], []
    for row in rows:
        own = values.get((row.network, row.dataset), {})
        metric = best_single(own)
        if metric is None:
            continue
        cells = [_points(gains(own, name, metric)) for name in (*MYOPIC, FULL_ORACLE)]
        largest = gains(own, f"myopic_{CANDIDATES[-1]}", metric)
        verdict = _verdict(largest) if len(largest) == len(own[metric]) else "–"
        verdicts.append(verdict)
        lines.append([row.title, COLUMNS[metric].heading, *cells, verdict])
    if not lines:
        return ""
    k = CANDIDATES[-1]
    heads = [COLUMNS[name].heading for name in (*MYOPIC, FULL_ORACLE)]
    text = runs.markdown_table(["network", "best single metric", *heads, f"true at k = {k}"], lines)
    whole = len(verdicts) - verdicts.count("–")
    return (
        "The paper's claim: the composed metric meets or beats every single metric. By how many "
        "points of weights it is above the best one (chosen afterwards, by its mean; paired by "
        f"seed):\n\n{text}"
        + (f"\n\nTrue for {verdicts.count('true')} of {whole} networks." if whole else "")
    )


def gain_of_k(rows: Sequence[paper.Row], found: Sequence[runs.Run]) -> str:
    """Return the gain of more candidates over the fewest, over all networks that have both."""
    values = by_row(found)
    few = f"myopic_{CANDIDATES[0]}"
    parts = []
    for name in (*list(MYOPIC)[1:], FULL_ORACLE):
        paired = [gains(values.get((r.network, r.dataset), {}), name, few) for r in rows]
        means = [mean(gain) for gain in paired if gain]
        if means:
            low, high = min(means), max(means)
            head = COLUMNS[name].heading
            text = f"{mean(means):+.1f} points ({low:+.1f} to {high:+.1f}, {len(means)})"
            parts.append(f"{head}: {_minus(text)}")
    if not parts:
        return ""
    return (
        f"Gain over k = {CANDIDATES[0]}, mean over the networks (range of their means, "
        f"networks): {'; '.join(parts)}."
    )


def drops(found: Sequence[runs.Run]) -> str:
    """Return the drop on the test images, which decided nothing."""
    parts = []
    for kind, columns in (("paper's scheme", (*SINGLE, *MYOPIC, FULL_ORACLE)), ("slimnet", OURS)):
        test = sorted(run["test_drop_points"] for run in found if run["column"] in columns)
        if test:
            over = sum(drop > paper.BUDGET_POINTS for drop in test)
            parts.append(
                f"{kind}: {_minus(f'{median(test):.1f} ({test[0]:.1f} to {test[-1]:.1f})')}, "
                f"above {paper.BUDGET_POINTS:g} in {over} of {len(test)} runs"
            )
    if not parts:
        return ""
    return (
        "The budget is checked by the plain estimate on the selection images. Drop on the test "
        f"images in points, median (range): {'; '.join(parts)}."
    )


def _points(found: Sequence[float]) -> str:
    text = runs.mean_and_spread(found, 1)
    return _minus(text if not found or text.startswith("-") else f"+{text}")


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _verdict(gain: Sequence[float]) -> str:
    return "true" if mean(gain) >= 0 else "false"
