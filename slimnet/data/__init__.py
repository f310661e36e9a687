"""The data: read from whatever the user has, preprocessed, and divided into three splits."""

from slimnet.data.batches import (
    IndexedBatches,
    count_images,
    first_batch,
    hardest_first,
    labels_of,
    single_images,
    whole_batches,
)
from slimnet.data.check import check_pair, class_scores
from slimnet.data.inputs import (
    common_inputs,
    made_up_inputs,
    made_up_onnx_inputs,
    onnx_inputs,
    parse_shape,
    shapes_of,
    smaller_inputs,
)
from slimnet.data.load import load_splits
