"""Which source of a setting wins, and what a wrong one is answered."""

from pathlib import Path

import pytest

from runtime.errors import SettingsError
from runtime.settings import PREFIX, Address, Connection, gather, parse_address


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*Connection.model_fields, "config"]:
        monkeypatch.delenv(f"{PREFIX}{name.upper()}", raising=False)


def test_flags_win_over_the_environment_which_wins_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "service.toml"
    config.write_text('broker = "file:1"\nusername = "file"\npassword = "file"\n')
    monkeypatch.setenv("TMF_USERNAME", "environment")
    monkeypatch.setenv("TMF_PASSWORD", "environment")
    settings = gather(Connection, config, {"password": "flag"})
    assert settings.broker == Address("file", 1)
    assert settings.username == "environment"
    assert settings.password is not None
    assert settings.password.get_secret_value() == "flag"
    monkeypatch.setenv("TMF_CONFIG", str(config))
    assert gather(Connection, None, {"password": "flag"}).model_dump() == settings.model_dump()


def test_a_password_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMF_PASSWORD", "secret")
    settings = gather(Connection, None, {})
    assert settings.password is not None
    assert settings.password.get_secret_value() == "secret"
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("mqtt://broker.example:1884", Address("broker.example", 1884)),
        ("mqtt://broker.example", Address("broker.example", 1883)),
        ("mqtt://broker.example/", Address("broker.example", 1883)),
        ("10.0.0.7:1884", Address("10.0.0.7", 1884)),
        ("localhost", Address("localhost", 1883)),
        ("[::1]:1884", Address("::1", 1884)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("mqtts://host", "mqtts:// is not spoken here"),
        ("http://host:1883", "http:// is not spoken here"),
        ("mqtt://name:secret@host", "do not belong here"),
        ("host:port", "cannot be read"),
        ("host:70000", "cannot be read"),
        ("host:0", "no address of a broker"),
        ("mqtt://host/path", "no address of a broker"),
        ("", "no address of a broker"),
        ("[::1", "cannot be read"),
    ],
)
def test_wrong_addresses(text: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=rf"broker: .*{reason}.*give mqtt://HOST:PORT"):
        gather(Connection, None, {"broker": text})


def test_a_wrong_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml: no such file"):
        gather(Connection, tmp_path / "absent.toml", {})
    bad = tmp_path / "bad.toml"
    bad.write_text("spec = ")
    with pytest.raises(SettingsError, match=r"bad\.toml: not readable as TOML"):
        gather(Connection, bad, {})
