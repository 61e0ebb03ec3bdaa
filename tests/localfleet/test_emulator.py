"""An emulated board is a board: its RAM, its instructions, the files that ship; and it counts."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localfleet import whole_client
from localfleet.emulator import Emulator, compiled_client
from localfleet.errors import ProcessError
from localfleet.natmod import build_native
from localfleet.processes import PROJECT
from localfleet.toolchain import Kind
from protocol import fixed
from protocol.spec import heap
from protocol.spec.spec import Spec
from simulation.replay import make_spec, replay
from tests.support.networks import random_case, random_spec
from tests.support.parts import BOARD_SCRIPTS, GOLDEN, compile_client, real
from tests.support.waiting import PATIENCE

KINDS: list[Kind] = ["cortex-m0", "rv32imc"]


@pytest.fixture(params=KINDS)
def board(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    """A board with the compiled client; the first one builds the firmware."""
    compile_client()
    with real(lambda: Emulator(request.param)) as emulator:
        emulator.add(compiled_client(request.param))
        yield emulator


def run(board: Emulator, text: str, timeout: float = PATIENCE) -> list[str]:
    board.write("main.py", text)
    return board.run("main.py", timeout=timeout)


# --- A board


@pytest.mark.real
def test_it_has_the_heap_and_the_words_of_a_board(board: Emulator) -> None:
    [free, words, march, platform] = run(
        board,
        "import gc, sys; print(gc.mem_free()); print(sys.maxsize)\n"
        "print(sys.implementation._mpy >> 10 & 15); print(sys.platform)",
    )
    assert 137 * 1024 < int(free) < 139 * 1024
    assert int(words) == 2**31 - 1
    assert int(march) == {"cortex-m0": 4, "rv32imc": 11}[board.kind]  # armv6m, rv32imc
    assert platform == "emulator"


@pytest.mark.real
def test_the_shipped_arithmetic_loads_without_a_network(board: Emulator) -> None:
    [file, used] = run(
        board,
        "import gc; before = gc.mem_free()\n"
        "from tinymetafed import kernels, network, sparse\n"
        "gc.collect(); print(kernels.__file__); print(before - gc.mem_free())",
    )
    assert file == "tinymetafed/kernels.mpy"
    assert int(used) < 36_000  # Bytes; see docs/board.md.


@pytest.mark.real
def test_files_can_be_read_but_not_written(board: Emulator) -> None:
    board.write("text", "one\ntwo\n")
    lines = run(
        board,
        "with open('text') as f: print(f.readline().strip(), f.read())\n"
        "print(list(open('text', 'rb')))\n"
        "for path, mode in (('text', 'w'), ('absent', 'r')):\n"
        "    try: open(path, mode)\n"
        "    except OSError as error: print(error.errno)",
    )
    assert lines == ["one two", "", r"[b'one\n', b'two\n']", "30", "2"]
    assert (board.folder / "text").read_text() == "one\ntwo\n"


@pytest.mark.real
def test_a_script_has_arguments(board: Emulator) -> None:
    board.write("main.py", "import sys; print(sys.argv)")
    assert board.run("main.py", "a,b", "--c=1") == ["['main.py', 'a,b', '--c=1']"]
    with pytest.raises(ValueError, match="no spaces"):
        board.run("main.py", "a b")


# --- What goes wrong says so

LOAD = """\
import micropython
@micropython.viper
def load(address: uint) -> int:
    return int(ptr32(address)[0])
print("so far")
load({})
"""


@pytest.mark.real
def test_an_exception_ends_the_board_with_its_traceback(board: Emulator) -> None:
    with pytest.raises(ProcessError, match=r"(?s)ended with code 1.*line 2.*ZeroDivisionError"):
        run(board, "print('so far')\n1 / 0")
    with pytest.raises(ProcessError, match="ended with code 3"):
        run(board, "import sys; sys.exit(3)")
    assert run(board, "import sys; sys.exit()") == []


@pytest.mark.real
def test_a_board_that_hangs_is_given_up(board: Emulator) -> None:
    with pytest.raises(ProcessError, match=r"is not done after 3 s; it printed:\n  so far"):
        run(board, "print('so far')\nwhile True: pass", timeout=3)


@pytest.mark.real
def test_a_faulting_board_says_where(board: Emulator) -> None:
    with pytest.raises(ProcessError, match=r"(?s)so far.*(HardFault at|mcause 5)"):
        run(board, LOAD.format(0x18000000))  # Nothing is there.


@pytest.mark.real
def test_a_cortex_m0_faults_at_an_odd_address() -> None:
    with real(lambda: Emulator("cortex-m0")) as board:
        assert run(board, LOAD.format(0x20000004)) == ["so far"]
        with pytest.raises(ProcessError, match="HardFault at"):
            run(board, LOAD.format(0x20000002))


# --- The instruction counter

LOOP = """\
import icount
def loop(n):
    for _ in range(n):
        pass
for n in (0, 1, 2, 10, 1000, 100000):
    print(icount.measure(loop, n))
"""


@pytest.mark.real
def test_a_loop_counts_alike_in_every_run_and_linearly(board: Emulator) -> None:
    first = [int(line) for line in run(board, LOOP)]
    each = first[2] - first[1]
    assert each > 10
    for n, count in zip((1, 2, 10, 1000, 100000), first[1:], strict=True):
        assert count == first[1] + (n - 1) * each
    assert [int(line) for line in run(board, LOOP)] == first


@pytest.mark.real
def test_every_single_instruction_counts(board: Emulator) -> None:
    # Inline assembler, which mpy-cross compiles into the .mpy: 1 to 12 times nothing.
    assembler, nop = {"cortex-m0": ("thumb", "nop"), "rv32imc": ("rv32", "c_nop")}[board.kind]
    functions = [
        f"@micropython.asm_{assembler}\ndef f{n}():\n" + f"    {nop}()\n" * n for n in range(1, 13)
    ]
    board.compile("nops.mpy", "import micropython\n" + "".join(functions))
    script = "import icount, nops\nfor n in range(1, 13): "
    lines = run(board, script + "print(icount.measure(getattr(nops, 'f%d' % n)))")
    one = int(lines[0])
    assert [int(line) - one for line in lines] == list(range(12))


# --- C

DOT = """\
#include "py/dynruntime.h"

static mp_obj_t dot(mp_obj_t a_in, mp_obj_t b_in) {
    mp_buffer_info_t a, b;
    mp_get_buffer_raise(a_in, &a, MP_BUFFER_READ);
    mp_get_buffer_raise(b_in, &b, MP_BUFFER_READ);
    const int32_t *p = a.buf, *q = b.buf;
    int32_t sum = 0;
    for (size_t n = a.len / 4; n > 0; n--) {
        sum += *p++ * *q++;
    }
    return mp_obj_new_int(sum);
}
static MP_DEFINE_CONST_FUN_OBJ_2(dot_obj, dot);

mp_obj_t mpy_init(mp_obj_fun_bc_t *self, size_t n_args, size_t n_kw, mp_obj_t *args) {
    MP_DYNRUNTIME_INIT_ENTRY
    mp_store_global(MP_QSTR_dot, MP_OBJ_FROM_PTR(&dot_obj));
    MP_DYNRUNTIME_INIT_EXIT
}
"""
COMPARE = """\
import icount
from array import array
from native import dot
from tinymetafed import kernels
from tinymetafed.layers import Layer
from tinymetafed.messages import Plan
plan = Plan(1, 1, 0, [], 1, 1, 1, 1, 1, 1, 8, 0)
def count(n):
    layer = Layer([0, 1, 1, n, 1, 1, 1, 0, 1], plan, None)
    w = array("i", range(n + 1))
    a = array("i", [3] * n)
    if dot(a, w) != 3 * n * (n - 1) // 2:
        raise ValueError(dot(a, w))
    in_viper = icount.measure(kernels.forward, w, a, array("i", [0]), layer.table)
    return icount.measure(dot, a, w), in_viper
for less, more in zip(count(128), count(256)):
    print((more - less) / 128)
"""


@pytest.mark.real
def test_c_runs_beside_the_shipped_kernel(board: Emulator, tmp_path: Path) -> None:
    c_file = tmp_path / "native.c"
    c_file.write_text(DOT)
    board.add(real(lambda: build_native(c_file, board.kind)))
    in_c, in_viper = (float(line) for line in run(board, COMPARE))
    assert 5 <= in_c <= 9  # Instructions per multiply-accumulate; 8 with gcc 14.
    assert in_c < in_viper < 16


@pytest.mark.real
def test_c_that_does_not_compile_says_why(tmp_path: Path) -> None:
    c_file = tmp_path / "wrong.c"
    c_file.write_text('#include "py/dynruntime.h"\nint wrong(void) { return absent; }\n')
    with pytest.raises(ProcessError, match=r"(?s)wrong\.c does not compile for cortex-m0.*absent"):
        real(lambda: build_native(c_file, "cortex-m0"))


# --- The arithmetic, bit for bit


@pytest.fixture(params=["cortex-m0", "cortex-m0 without assembler", "rv32imc"])
def trainer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Emulator]:
    """A board with the compiled client; the one without assembler runs viper on the same core."""
    compile_client()
    kind: Kind = "rv32imc" if request.param == "rv32imc" else "cortex-m0"
    with real(lambda: Emulator(kind)) as emulator:
        package = tmp_path / "tinymetafed"
        shutil.copytree(compiled_client(kind), package)
        assert (package / "thumb.mpy").exists() == (kind == "cortex-m0")
        if request.param == "cortex-m0 without assembler":
            (package / "thumb.mpy").unlink()
        emulator.add(package)
        emulator.add(BOARD_SCRIPTS / "replay.py")
        yield emulator


def replay_on(board: Emulator, case: dict[str, Any]) -> Any:
    (board.folder / "case.json").write_text(json.dumps([case]))
    [line] = board.run("replay.py", "case.json")
    return in_words(json.loads(line))


def in_words(result: dict[str, Any]) -> dict[str, Any]:
    # These boards print seven digits of a float; what it stands for has nine fractional bits.
    words = [round(value * 2**fixed.ACTIVATION_BITS) for value in result["prediction"]]
    return {**result, "prediction": words}


@pytest.mark.real
@pytest.mark.slow
def test_a_board_trains_as_the_golden_vectors_say(trainer: Emulator) -> None:
    for vector in json.loads((GOLDEN / "arithmetic.json").read_text()):
        expected = in_words(vector.pop("expected"))
        assert replay_on(trainer, vector) == expected, vector["name"]


@pytest.mark.real
def test_a_board_trains_as_the_numpy_engine_does(trainer: Emulator) -> None:
    rng = np.random.default_rng(6)
    trained = 0
    while trained < 12:
        spec = random_spec(rng)
        case = random_case(rng, spec)
        if len(json.dumps(case)) > 8_000:
            continue  # Its text leaves too little of the heap.
        trained += 1
        assert replay_on(trainer, case) == in_words(replay(spec, case)), spec.plan.layers


@pytest.mark.real
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_kernel_in_assembler_is_the_one_in_viper(seed: int) -> None:
    compile_client()
    with real(lambda: Emulator("cortex-m0")) as board:
        board.add(compiled_client("cortex-m0"))
        board.add(BOARD_SCRIPTS / "kernels.py")
        [line] = board.run("kernels.py", "100", str(seed))
    result = json.loads(line)
    assert result["differ"] == dict.fromkeys(["forward", "carry_back", "settle", "update"], 0)
    assert result["rounds"] == 100
    assert result["ends"] > 100  # Weights that saturated: their code is seldom reached.


# --- A whole client, as shipped


def drawings() -> Spec:
    """Drawings of 14 x 14 points in five classes: a layer of each kind, and 4,000 parameters."""
    layers: list[Any] = [
        {"kind": "conv", "kernel": 3, "stride": 2, "outputs": 16, "activation": "relu"},
        {"kind": "depthwise", "activation": "relu"},
        {"kind": "conv", "kernel": 1, "outputs": 32, "activation": "relu"},
        {"kind": "pool", "size": 2},
        (24, True, False),
        (5, False, True),
    ]
    return make_spec((14, 14, 1), layers, loss="cross_entropy")


def shipped(name: str) -> Callable[[], Spec]:
    return lambda: Spec.from_file(PROJECT / "specs" / f"{name}.toml")


TASKS = {name: shipped(name) for name in ("sine", "omniglot", "keywords")} | {"drawings": drawings}


@pytest.mark.real
@pytest.mark.parametrize("task", TASKS)
def test_a_whole_client_takes_part_with_the_heap_that_is_asked_for(
    trainer: Emulator, task: str, record_property: Callable[[str, object], None]
) -> None:
    """A board connects, fetches the model, learns, sends its update and hears of the receipt.

    It has umqtt.simple, what a connection takes, for keywords also the features of what it hears;
    and no more heap than the spec's check says that it needs.
    """
    spec = TASKS[task]()
    needed = spec.heap_needed
    assert needed < heap.BOARD
    taken = real(lambda: whole_client.run(trainer, spec, heap=needed))

    update, host = taken.update, taken.expected
    assert update.changes.hex() == host["block"]
    assert [update.support_loss, update.query_loss] == host["losses"]
    assert update.query_correct == host["correct"][1]
    assert taken.by_samples == 0
    record_property("heap_peak", taken.peak)
    assert taken.peak < needed


LAYOUT = """\
import json, sys
from tinymetafed.layers import Shape, places
for layers in json.loads(sys.argv[1]):
    print(places([Shape(entry) for entry in layers])[1])
"""


@pytest.mark.real
def test_a_board_lays_out_activations_and_errors_as_the_host_counts_them() -> None:
    compile_client()
    rng = np.random.default_rng(9)
    with real(lambda: Emulator("cortex-m0")) as board:
        board.add(compiled_client("cortex-m0"))
        board.write("main.py", LAYOUT)
        for _ in range(20):
            spec = random_spec(rng)
            layers = json.dumps([spec.plan.layers], separators=(",", ":"))
            assert board.run("main.py", layers) == [str(heap.words_shared(spec.layers))]


@pytest.mark.real
@pytest.mark.parametrize("task", ["sine", "omniglot", "keywords"])
def test_a_board_with_a_tenth_less_heap_sits_out(task: str) -> None:
    """So the check refuses no spec that would fit: what it asks for is needed."""
    compile_client()
    spec = TASKS[task]()
    needed = spec.heap_needed
    with real(lambda: Emulator("cortex-m0")) as board:
        board.add(compiled_client("cortex-m0"))
        with pytest.raises(ProcessError, match=r"sits out|MemoryError"):
            real(lambda: whole_client.run(board, spec, heap=round(needed / 1.1)))
