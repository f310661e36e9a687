"""Every output: report.json, report.html, terminal, CI files; goals; reuse of an earlier result."""

from slimnet.report.build import (
    build_report,
    check_prediction,
    environment,
    stated_drop,
    with_outcomes,
)
from slimnet.report.ci import junit_error, junit_xml, markdown_error, markdown_summary
from slimnet.report.commands import (
    application_lines,
    benchmark_parts,
    check_comparison_folder,
    command_line,
    comparison_lines,
    comparison_tables,
    inspection_parts,
    save_comparison,
)
from slimnet.report.goals import (
    Baseline,
    anything_missed,
    anything_removed,
    goals_table,
    read_baseline,
    require_same_network,
)
from slimnet.report.html import save_html
from slimnet.report.json_report import (
    content_sha256,
    earlier_report,
    record_json,
    report_json,
    run_sha256,
    save_report,
)
from slimnet.report.notes import power_note
from slimnet.report.progress import ComparisonProgress, Progress, StageClock, TerminalProgress
from slimnet.report.summary import summary_lines, verdict_line
from slimnet.report.tables import changes_table, checks_table, result_table, size_rows
