"""Running a network: hooks, replay from a layer on, folded norms, memory budget, layouts, sizes."""

from slimnet.execution.cache import PrefixCache, VersionRunner
from slimnet.execution.folding import alike, can_fold, folded, normed_layers
from slimnet.execution.layers import (
    BATCH_NORMS,
    CONVOLUTIONS,
    GROUP_NORMS,
    INSTANCE_NORMS,
    PRODUCERS,
    SUPPORTED,
    TRANSPOSED,
    Direction,
    channel_axis,
    channel_count,
    channel_weights,
    has_one_axis,
    is_depthwise,
    output_channels,
    watching,
    weight_slices,
)
from slimnet.execution.layout import (
    Layout,
    choose_layout,
    in_fitting_batches,
    lay_out,
    lay_out_each,
)
from slimnet.execution.removed import (
    ConstantOutput,
    NoChannels,
    RemovedLayer,
    removed_layers,
    replace_module,
)
from slimnet.execution.replay import Call, Change, Replay, first_call, replaying
from slimnet.execution.running import MemoryBudget, RunningNetwork, prepare_running
from slimnet.execution.size import (
    count_conv_weights,
    count_parameters,
    linear_share,
    measure_size,
)
from slimnet.execution.states import (
    copied_state,
    get_state,
    gradients_on,
    in_mode,
    replaced,
    set_values,
    undone_on_failure,
)
