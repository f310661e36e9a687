"""Load a network, or say in one line why not."""

from slimnet.load.attributes import attributes_kept, copied, inference
from slimnet.load.canonical import use_plain_layers
from slimnet.load.files import (
    partial_file,
    record_from_json,
    require_file,
    require_held,
    require_plausible,
    require_uncompressed,
    sha256_of,
)
from slimnet.load.importing import (
    first_line,
    folders_on_path,
    import_callable,
    import_file,
    line_of_code,
    listed,
)
from slimnet.load.model import load_model
from slimnet.load.plain_layers import FixedNorm, SamePaddedConv2d, input_padding
from slimnet.load.without_data import copied_in, on_shapes
