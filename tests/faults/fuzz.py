"""One decoder against a generator that follows its coverage (atheris, libFuzzer).

    python tests/faults/fuzz.py TARGET [libFuzzer's options]

Ends with a traceback, a file with the input, and a code that is not 0, where an input is neither
read nor refused as documented.
"""

import sys

import atheris

with atheris.instrument_imports(include=["protocol", "aggregator", "rounds"]):
    from tests.faults.decoders import TARGETS

if __name__ == "__main__":
    target = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[target])
    atheris.Fuzz()
