"""A board's configuration: a JSON file with the settings of SETTINGS."""

import json

from micropython import const

from tinymetafed.cohort import fnv1a
from tinymetafed.errors import ConfigError

_SHARDS = const(64)

# Name: (type, default or None where it must be given, what it is)
SETTINGS = {
    "broker": (str, None, "the broker, as mqtt://HOST:PORT or HOST"),
    "fleet": (str, None, "the fleet's name, as in its spec"),
    "board": (str, "", "this board's name; its hardware id if not given"),
    "user": (str, "", "user name at the broker"),
    "password": (str, "", "password at the broker"),
    "keepalive": (int, 60, "seconds after which a silent board counts as lost"),
}


def load(source):
    """The settings from a file's path or a dict, completed.

    Raises:
        ConfigError: says which setting is wrong and what to write.
    """
    given = source
    if isinstance(source, str):
        try:
            with open(source) as file:
                text = file.read().strip()
            if not text.endswith("}"):  # MicroPython's parser takes an object without its end
                raise ValueError
            given = json.loads(text)
        except OSError:
            raise ConfigError("%s: cannot be read; put it beside main.py" % source)
        except ValueError:
            raise ConfigError("%s: not JSON" % source)
    if not isinstance(given, dict):
        raise ConfigError('configuration: write {"broker": "mqtt://HOST", "fleet": "NAME"}')
    for name in given:
        if name not in SETTINGS:
            raise ConfigError(
                "configuration: %r is not a setting; these are: %s"
                % (name, ", ".join(sorted(SETTINGS)))
            )
    settings = dict(given)
    for name, (kind, default, meaning) in SETTINGS.items():
        value = given.get(name, default)
        if value is None:
            raise ConfigError("configuration: %r is missing: %s" % (name, meaning))
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ConfigError("configuration: %r must be %s: %s" % (name, kind.__name__, meaning))
        settings[name] = value
    settings["host"], settings["port"] = _address(settings["broker"])
    settings["board"] = settings["board"] or _hardware_id()
    for name in ("fleet", "board"):
        _check_name(name, settings[name])
    if not 1 <= settings["keepalive"] <= 65535:
        raise ConfigError("configuration: 'keepalive' must be 1 to 65535 seconds")
    settings["client"] = ("tmf-%s-%s" % (settings["fleet"], settings["board"])).encode()
    settings["topics"] = _topics(settings["fleet"], settings["board"])
    return settings


def _topics(fleet, board):
    """A board's topics as bytes, in the order in which session.py names them."""
    root = "tmf/v1/%s/" % fleet
    shard = fnv1a(board) % _SHARDS
    names = (
        "up/%d/%s" % (shard, board),
        "board/%s/state" % board,
        "model/full/",
        "model/canary/",
        "plan",
        "model/delta",
        "round",
        "receipt/%d" % shard,
    )
    return [(root + name).encode() for name in names]


def _address(broker):
    scheme, _, rest = broker.rpartition("://")
    host, _, port = rest.partition(":")
    port = port or "1883"
    is_port = port.isdigit() and 1 <= int(port) <= 65535
    if scheme not in ("", "mqtt") or not host or "/" in host or not is_port:
        raise ConfigError(
            "configuration: 'broker' must be mqtt://HOST:PORT, HOST:PORT or HOST, not %r" % broker
        )
    return host, int(port)


def _check_name(setting, name):
    if not 1 <= len(name) <= 32:
        raise ConfigError("configuration: %r must have 1 to 32 characters" % setting)
    for letter in name:
        if not (letter.isalpha() or letter.isdigit() or letter in "._-") or ord(letter) > 127:
            raise ConfigError(
                "configuration: %r may hold letters, digits, . _ - but not %r" % (setting, letter)
            )


def _hardware_id():
    try:
        from binascii import hexlify

        from machine import unique_id
    except ImportError:
        raise ConfigError("configuration: 'board' is missing: this machine has no hardware id")
    return hexlify(unique_id()).decode()
