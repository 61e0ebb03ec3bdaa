"""Learning from a sample takes no heap.

A board that allocates must collect, and a collection stops it for milliseconds in which readings
are lost; or its heap splinters until the next round no longer fits.
"""

import pytest

from localfleet.parts import Bits
from tests.conftest import Broker
from tests.support.parts import on_both_boards, run_board


@pytest.mark.real
@on_both_boards
def test_a_thousand_samples_take_no_heap(bits: Bits, broker: Broker) -> None:
    # Samples as a source may hand them over, of values and of classes, for layers of every kind;
    # a converter's counts; then the client's own loop, connected and not.
    taken = dict(run_board("memory.py", bits, str(broker.port)))
    assert taken.pop("six floats") > 0  # The measure measures.
    assert len(taken) == 34
    assert taken == dict.fromkeys(taken, 0)
