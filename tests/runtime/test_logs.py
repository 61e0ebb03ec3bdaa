"""A line of the log, for machines."""

import json
import logging
import sys
from pathlib import Path

from runtime.logs import JsonFormatter


def test_an_error_keeps_its_traceback_in_its_line() -> None:
    try:
        raise ValueError("too\nlong")  # noqa: TRY301
    except ValueError:
        record = logging.makeLogRecord({"msg": "no", "exc_info": sys.exc_info(), "path": Path("a")})
    text = JsonFormatter("pumps").format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert (line["fleet"], line["path"]) == ("pumps", "a")
    assert line["exception"].endswith("ValueError: too\nlong")
