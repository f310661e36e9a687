"""What is told: report.json, the table and the verdict at the terminal, the environment."""

from slimnet.report.application import application_lines
from slimnet.report.baseline import Baseline, read_baseline, require_same_network
from slimnet.report.benchmark import benchmark_json, benchmark_parts
from slimnet.report.build import build_report
from slimnet.report.clock import Progress, StageClock
from slimnet.report.command import command_line
from slimnet.report.comparison import comparison_lines, comparison_tables
from slimnet.report.comparison_files import (
    check_comparison_folder,
    comparison_json,
    save_comparison,
)
from slimnet.report.comparison_progress import ComparisonProgress
from slimnet.report.earlier import earlier_report, run_sha256
from slimnet.report.environment import environment
from slimnet.report.goal_text import goals_table
from slimnet.report.goals import anything_missed, evaluate_goals
from slimnet.report.html import html_page, save_html
from slimnet.report.inspection import inspection_json, inspection_parts
from slimnet.report.json_report import report_as_dict, report_json, save_report
from slimnet.report.junit import junit_error, junit_xml
from slimnet.report.markdown import markdown_error, markdown_summary
from slimnet.report.numbers import duration
from slimnet.report.prediction import check_prediction
from slimnet.report.progress import TerminalProgress
from slimnet.report.summary import summary_lines, verdict_line
from slimnet.report.text import changes_table, checks_table, latency_rows, result_table, size_rows

__all__ = [
    "Baseline",
    "ComparisonProgress",
    "Progress",
    "StageClock",
    "TerminalProgress",
    "anything_missed",
    "application_lines",
    "benchmark_json",
    "benchmark_parts",
    "build_report",
    "changes_table",
    "check_comparison_folder",
    "check_prediction",
    "checks_table",
    "command_line",
    "comparison_json",
    "comparison_lines",
    "comparison_tables",
    "duration",
    "earlier_report",
    "environment",
    "evaluate_goals",
    "goals_table",
    "html_page",
    "inspection_json",
    "inspection_parts",
    "junit_error",
    "junit_xml",
    "latency_rows",
    "markdown_error",
    "markdown_summary",
    "read_baseline",
    "report_as_dict",
    "report_json",
    "require_same_network",
    "result_table",
    "run_sha256",
    "save_comparison",
    "save_html",
    "save_report",
    "size_rows",
    "summary_lines",
    "verdict_line",
]
