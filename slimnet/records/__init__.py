"""The records that stages hand to one another. Units stand in the field names."""

from slimnet.records.artefacts import (
    Artefacts,
    Int8,
    NetworkFile,
    OnnxFile,
    OnnxInput,
)
from slimnet.records.commands import (
    Application,
    Applied,
    Benchmark,
    Check,
    GroupOffer,
    Inspection,
    LayerLatency,
    Skipped,
    Verification,
)
from slimnet.records.comparison import (
    Agreement,
    Comparison,
    MeasuredGroup,
    MetricAgreement,
    OracleProgress,
    RandomAgreement,
)
from slimnet.records.data import (
    Batch,
    Batches,
    Inputs,
    LoadedModel,
    Split,
    Splits,
)
from slimnet.records.measured import (
    Drop,
    Latency,
    Parity,
    PredictedLatency,
    PredictionCheck,
    Sensitivity,
    Size,
)
from slimnet.records.plan import (
    Channels,
    Frozen,
    Plan,
    PlanFile,
)
from slimnet.records.report import (
    Goal,
    Report,
    Result,
)
from slimnet.records.trajectory import (
    Candidate,
    FineTuning,
    Step,
    Trajectory,
)

__all__ = [
    "Agreement",
    "Application",
    "Applied",
    "Artefacts",
    "Batch",
    "Batches",
    "Benchmark",
    "Candidate",
    "Channels",
    "Check",
    "Comparison",
    "Drop",
    "FineTuning",
    "Frozen",
    "Goal",
    "GroupOffer",
    "Inputs",
    "Inspection",
    "Int8",
    "Latency",
    "LayerLatency",
    "LoadedModel",
    "MeasuredGroup",
    "MetricAgreement",
    "NetworkFile",
    "OnnxFile",
    "OnnxInput",
    "OracleProgress",
    "Parity",
    "Plan",
    "PlanFile",
    "PredictedLatency",
    "PredictionCheck",
    "RandomAgreement",
    "Report",
    "Result",
    "Sensitivity",
    "Size",
    "Skipped",
    "Split",
    "Splits",
    "Step",
    "Trajectory",
    "Verification",
]
