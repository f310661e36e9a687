"""Tasks: the loss and the score of a network, and the drop between two networks."""

from slimnet.tasks.calls import fill_batch, forward, in_float64, input_tensors, output_tensors
from slimnet.tasks.classification import (
    BY_QUANTITY,
    CLASSIFICATION,
    Classification,
    choose_task,
    drops,
    mean_loss,
)
from slimnet.tasks.confirmation import confirm_in_order, confirmable_points, paired_p_value
from slimnet.tasks.drop import (
    Quality,
    measure_quality,
    paired_drop,
    require_better_than_chance,
    require_finite_loss,
)
from slimnet.tasks.task import MIN_SQUARE, Task
