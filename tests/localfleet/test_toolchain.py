"""What an emulated board needs is found on PATH if it serves, or missed in one clear line."""

from pathlib import Path

import pytest

from localfleet import debian, toolchain
from localfleet.errors import PartsError


def test_what_is_missing_is_one_line_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(debian, "CACHE", tmp_path / "cache")
    for find, name in (
        (lambda: toolchain.compiler("cortex-m0"), "compiler-arm"),
        (lambda: toolchain.qemu("rv32imc"), "qemu"),
        (toolchain.micropython_source, "micropython's source"),
        (toolchain.pyelftools, "pyelftools"),
    ):
        with pytest.raises(PartsError, match=f"^{name} is missing: .* `apt [^\n]*$"):
            find()
    with pytest.raises(PartsError) as caught:
        toolchain.fetch()  # Without apt-get.
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    assert all("is missing (apt-get is not on this machine)" in line for line in lines)


def test_an_emulator_on_path_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "qemu-system-arm"
    installed.write_text("#!/bin/sh\n")
    installed.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert toolchain.qemu("cortex-m0")[0] == str(installed)


@pytest.mark.parametrize(("exit_code", "serves"), [(0, True), (1, False)])
def test_a_compiler_on_path_is_used_only_if_it_serves(
    exit_code: int, *, serves: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(debian, "CACHE", tmp_path / "cache")
    for name in ("arm-none-eabi-gcc", "arm-none-eabi-ld"):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {exit_code}\n")
        (tmp_path / name).chmod(0o755)
    if serves:
        assert toolchain.compiler("cortex-m0") == "arm-none-eabi-"
    else:
        with pytest.raises(PartsError, match="compiler-arm is missing"):
            toolchain.compiler("cortex-m0")
