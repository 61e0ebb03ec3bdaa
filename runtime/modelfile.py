"""A version of the model as a file: numpy's ``.npz``, to look into, to keep and to bring back.

====================  ===================================================================
array                 what
====================  ===================================================================
``layer0_weights``    a global layer, by its place in the spec: int16, shape (outputs,
                      weights of a window + 1), the bias last. Row after row and layer
                      after layer they are the parameters as messages bear them.
``layer1_start``      a local layer likewise: the seeded start that every board trains
``scale``             what an int16 is worth: 2**-12
``fleet``, ``made``,  text
``origin``
``lineage``,          integers
``version``
``spec``              the spec as JSON text
====================  ===================================================================

A layer without parameters, a pool, has no array.
"""

import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from protocol.fixed import WEIGHT_BITS
from protocol.messages import Plan
from protocol.spec.layers import LOCAL, RELU, Kind, LayerShape
from protocol.spec.spec import Spec
from runtime.errors import ModelFileError

SCALE: Final = 2.0**-WEIGHT_BITS
"""A weight unit in real numbers."""

_DAMAGED: Final = (
    OSError,
    ValueError,
    TypeError,
    EOFError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)
"""What numpy and zipfile raise for bytes that are no archive of arrays."""


@dataclass(frozen=True)
class ModelFile:
    """A complete model and where it comes from."""

    spec: Spec
    lineage: int
    version: int
    made: str
    origin: str
    weights: NDArray[np.int16]
    """The global parameters, shape (parameters,), in weight units."""

    def layers(self) -> list[tuple[int, LayerShape, NDArray[np.int16]]]:
        """Every layer with parameters: its place, itself, and they, shape (outputs, row_size)."""
        rest = {False: self.weights, True: self.spec.local_start()}
        found = []
        for place, shape in enumerate(self.spec.layers):
            if shape.parameters:
                flat, rest[shape.local] = np.split(rest[shape.local], [shape.parameters])
                found.append((place, shape, flat.reshape(shape.outputs, shape.row_size)))
        return found

    def write(self, path: Path) -> None:
        """Write it as ``.npz``; see this module.

        Raises:
            ModelFileError: the file cannot be written.
        """
        arrays: dict[str, Any] = {name_of(place, shape): w for place, shape, w in self.layers()}
        try:
            with path.open("wb") as file:  # A file, or numpy would add to the name.
                np.savez_compressed(
                    file,
                    **arrays,
                    scale=SCALE,
                    fleet=self.spec.fleet,
                    lineage=np.uint32(self.lineage),
                    version=np.uint32(self.version),
                    made=self.made,
                    origin=self.origin,
                    spec=self.spec.model_dump_json(),
                )
        except OSError as error:
            raise ModelFileError(f"{path}: cannot be written ({error})") from error

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file that :meth:`write` has written, perhaps with other weights since.

        Raises:
            ModelFileError: it is none; says why.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return cls._from(path, arrays)
        except FileNotFoundError as error:
            raise ModelFileError(f"{path}: no such file") from error
        except ValidationError as error:
            raise ModelFileError(
                f"{path}: its spec is none for this version ({error.errors()[0]['msg']})"
            ) from error
        except _DAMAGED as error:
            raise ModelFileError(f"{path}: not a model in .npz ({error})") from error

    @classmethod
    def _from(cls, path: Path, arrays: Mapping[str, NDArray[Any]]) -> Self:
        def array(name: str) -> NDArray[Any]:
            if name not in arrays:
                raise ModelFileError(
                    f"{path}: has no array {name!r}; give a file that `tinymetafed model export` "
                    f"has written"
                )
            return arrays[name]

        spec = Spec.model_validate_json(str(array("spec")))
        parts = []
        for place, shape in enumerate(spec.layers):
            if not shape.parameters or shape.local:
                continue
            name = name_of(place, shape)
            part, wanted = array(name), (shape.outputs, shape.row_size)
            if part.dtype != np.int16 or part.shape != wanted:
                raise ModelFileError(
                    f"{path}: {name} is {part.dtype} of shape {part.shape}; its spec asks for "
                    f"int16, in units of 2**-{WEIGHT_BITS}, of shape {wanted}"
                )
            parts.append(part.ravel())
        return cls(
            spec,
            int(array("lineage")),
            int(array("version")),
            str(array("made")),
            str(array("origin")),
            np.concatenate(parts),
        )

    def check_fits(self, plan: Plan) -> None:
        """See that these weights are for a plan's network.

        Raises:
            ModelFileError: they are not; names the layer.
        """
        ours, theirs = self.spec.plan.layers, plan.layers
        if len(ours) != len(theirs):
            raise ModelFileError(
                f"the file's network has {len(ours)} layers and the fleet's {len(theirs)}"
            )
        for place, (own, other) in enumerate(zip(ours, theirs, strict=True)):
            if own != other:
                raise ModelFileError(
                    f"layer {place} is {_words(own)} in the file, and {_words(other)} in the fleet"
                )


def name_of(place: int, shape: LayerShape) -> str:
    """What a layer's array is called."""
    return f"layer{place}_{'start' if shape.local else 'weights'}"


def _words(layer: tuple[int, ...]) -> str:
    """A layer of a plan in words."""
    kind, height, width, channels, outputs, kernel, stride, flags, _ = layer
    known = Kind(kind).name.lower() if kind in {*Kind} else f"kind {kind}"
    return (
        f"{known} {height} x {width} x {channels} -> {outputs}, kernel {kernel}, stride {stride}"
        f"{', ReLU' * bool(flags & RELU)}{', local' * bool(flags & LOCAL)}"
    )
