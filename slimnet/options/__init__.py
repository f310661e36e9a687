"""Every option, declared once; a stage is given only the sections that it reads."""

from slimnet.options.commands import (
    CommandOptions,
    DatasetOptions,
    ModelFileOptions,
    PrintOptions,
    ProfileOptions,
    ResultOptions,
    SampleOptions,
)
from slimnet.options.configuration import read_configuration
from slimnet.options.option import Option, Section, names_of, nearest, option, options_of
from slimnet.options.sections import (
    ESTIMATE,
    PAPER_METRICS,
    RUNTIMES,
    BudgetOptions,
    DataFileOptions,
    DataOptions,
    ExportOptions,
    FinetuneOptions,
    GoalOptions,
    LatencyOptions,
    LayerOptions,
    MemoryOptions,
    ModelOptions,
    ObjectiveOptions,
    Options,
    OutputOptions,
    RecoveryOptions,
    SaliencyOptions,
    SearchOptions,
    SeedOptions,
    TaskOptions,
    options_from,
)
