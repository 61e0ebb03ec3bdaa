"""The aggregator's settings: what a wrong one says, and that flags and documents are whole."""

import subprocess
import sys
from pathlib import Path

import pytest

from aggregator.settings import Settings
from localfleet.processes import PROJECT
from runtime.errors import SettingsError
from runtime.settings import PREFIX, gather


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*Settings.model_fields, "config"]:
        monkeypatch.delenv(f"{PREFIX}{name.upper()}", raising=False)


@pytest.mark.parametrize("text", ["127.0.0.1:9464", "0.0.0.0:1", "[::1]:9464", "Localhost:9464"])
def test_where_metrics_are_served(text: str) -> None:
    metrics = gather(Settings, None, {"spec": "a.toml", "metrics": text}).metrics
    assert str(metrics) == text.lower()


@pytest.mark.parametrize(
    "text", ["", "9464", ":9464", "host", "host:0", "host:70000", "http://host:1", "a@b:1", "a:1/b"]
)
def test_where_metrics_cannot_be_served(text: str) -> None:
    with pytest.raises(SettingsError, match=r"metrics: .*give HOST:PORT .*--metrics, TMF_METRICS"):
        gather(Settings, None, {"spec": "a.toml", "metrics": text})


def test_each_wrong_setting_has_its_line(tmp_path: Path) -> None:
    config = tmp_path / "aggregator.toml"
    config.write_text('brokr = "host"\nlog_level = "loud"\n')
    with pytest.raises(SettingsError) as caught:
        gather(Settings, config, {})
    lines = sorted(str(caught.value).splitlines())
    assert len(lines) == 3
    assert lines[0].startswith("brokr: no such setting")
    assert lines[1].startswith("log_level: Input should be 'debug'")
    assert lines[2].startswith("spec: ")
    assert "--spec, TMF_SPEC" in lines[2]


def serve(*flags: str | Path) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("tinymetafed")
    return subprocess.run(
        [command, "serve", *flags],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "100"},
    )


def test_a_wrong_setting_ends_the_command_with_one_line_and_code_2(tmp_path: Path) -> None:
    done = serve("--spec", tmp_path / "absent.toml", "--state", tmp_path / "state")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("tinymetafed: ")
    assert "absent.toml: cannot be read" in done.stderr


def test_each_setting_is_a_flag_with_its_help_but_for_the_password() -> None:
    text = " ".join(serve("--help").stdout.replace("│", " ").split())
    for name, field in Settings.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        assert (flag in text) == (name != "password")
        assert field.description is not None
        assert (field.description in text) == (name != "password")


def test_the_documentation_lists_each_setting_as_it_is() -> None:
    """On a failure, copy the table from the message into docs/aggregator.md."""
    rows = ["| setting | flag | environment | default | |", "| --- | --- | --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        flag = "" if name == "password" else f"`--{name.replace('_', '-')}`"
        default = "required" if field.is_required() else field.get_default()
        shown = {"required": "required", None: ""}.get(default, f"`{default}`".lower())
        rows.append(
            f"| `{name}` | {flag} | `{PREFIX}{name.upper()}` | {shown} | {field.description} |"
        )
    table = "\n".join(rows)
    assert table in (PROJECT / "docs" / "aggregator.md").read_text(encoding="utf-8"), table
