"""A version of the model as a C header, from which firmware without MicroPython can run it.

``docs/run_model.c`` does so.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import Final

from protocol.fixed import ACTIVATION_BITS, ACTIVATION_MAX, WEIGHT_BITS
from runtime.errors import ModelFileError
from runtime.modelfile import ModelFile, name_of

_HEAD: Final = """\
/* The model of fleet {fleet}: lineage {lineage:08x}, version {version}.
 * Made {made} by {origin}. Written by `tinymetafed model export`; C99 or C++.
 *
 * A real weight is the integer times {prefix}_SCALE.
 *
 * A layer's weights are rows, one an output: the weights of a window, then the bias. A window is
 * kernel x kernel pixels, row by row, the channels of a pixel side by side; windows lie stride
 * pixels apart and inside the grid below. A dense layer sees its input as one pixel.
 *     TMF_SUMS       an output sums over all channels of its window, and adds its bias
 *     TMF_DEPTHWISE  output c sums over channel c of its window, and adds its bias
 *     TMF_POOL       output c is the mean of channel c of its window; there are no weights
 * Where relu is 1, what is below 0 becomes 0. Boards compute in fixed point, where a value stays
 * within +-{most:.4g}. {loss}
 *
 * Layers with local = 1 hold the seeded start: a board trains them on samples of its own first.
 */
"""
_LOSS: Final = {
    "mse": "The last layer's outputs are the prediction.",
    "cross_entropy": "The largest of the last layer's outputs is the class.",
}
_TYPES: Final = """\
#ifndef TMF_LAYER
#define TMF_LAYER
enum { TMF_SUMS = 0, TMF_DEPTHWISE = 1, TMF_POOL = 2 };
typedef struct {
    uint8_t kind, relu, local;
    uint16_t height, width, channels; /* Of the grid below. */
    uint16_t outputs;                 /* Channels of the grid above. */
    uint8_t kernel, stride;
    const int16_t *weights;           /* outputs rows; NULL of a pool. */
} tmf_layer;
#endif
"""


def write(model: ModelFile, path: Path) -> None:
    """Write the header.

    Raises:
        ModelFileError: the file cannot be written.
    """
    try:
        path.write_text("\n".join(_sections(model)), encoding="ascii")
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be written ({error})") from error


def _sections(model: ModelFile) -> Iterator[str]:
    spec = model.spec
    name = f"tmf_{re.sub('[^A-Za-z0-9]', '_', spec.fleet)}"
    prefix = name.upper()
    yield _HEAD.format(
        prefix=prefix,
        fleet=spec.fleet,
        lineage=model.lineage,
        version=model.version,
        made=model.made,
        origin=model.origin,
        most=ACTIVATION_MAX / 2**ACTIVATION_BITS,
        loss=_LOSS[spec.model.loss],
    )
    # Of two versions in one program the compiler shall complain.
    guard = f"{prefix}_{model.lineage:08X}_{model.version}_H"
    yield f"#ifndef {guard}\n#define {guard}\n\n#include <stddef.h>\n#include <stdint.h>\n"
    last = spec.layers[-1]
    values = max(max(shape.words_in, shape.words_out) for shape in spec.layers)
    yield (
        f"#define {prefix}_LINEAGE 0x{model.lineage:08x}u\n"
        f"#define {prefix}_VERSION {model.version}u\n"
        f"#define {prefix}_SCALE (1.0f / {2**WEIGHT_BITS}.0f)\n"
        f"#define {prefix}_LAYERS {len(spec.layers)}\n"
        f"#define {prefix}_INPUTS {spec.layers[0].words_in}\n"
        f"#define {prefix}_OUTPUTS {last.outputs}\n"
        f"#define {prefix}_VALUES {values} /* The most between two layers. */\n"
    )
    arrays = {}
    for place, shape, weights in model.layers():
        arrays[place] = f"{name}_{name_of(place, shape)}"
        rows = ",\n".join(
            fill(", ".join(map(str, row)), 96, initial_indent="    ", subsequent_indent="    ")
            for row in weights.tolist()
        )
        yield (
            f"/* {shape.outputs} rows of {shape.row_size}. */\n"
            f"static const int16_t {arrays[place]}[{weights.size}] = {{\n{rows}\n}};\n"
        )
    yield _TYPES
    table = "".join(
        f"    {{TMF_{shape.kind.name}, {shape.relu:d}, {shape.local:d}, "
        f"{shape.height}, {shape.width}, {shape.channels}, {shape.outputs}, "
        f"{shape.kernel}, {shape.stride}, {arrays.get(place, 'NULL')}}},\n"
        for place, shape in enumerate(spec.layers)
    )
    yield f"static const tmf_layer {name}_layers[{prefix}_LAYERS] = {{\n{table}}};\n"
    yield "#endif\n"
