"""The log on stderr: for people, one sentence a line; for machines, the same with its facts.

A message is a sentence that holds what a person wants to know. What it was made of goes with it in
``extra``, under the names that the progress topic and the journal use, and is shown in JSON only.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

NOT_FACTS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
"""What every record has."""


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: ``time`` (RFC 3339), ``level``, ``fleet``, ``message``, facts.

    Args:
        fleet: the fleet's name.
    """

    def __init__(self, fleet: str) -> None:
        super().__init__()
        self._fleet = fleet

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "fleet": self._fleet,
            "message": record.getMessage(),
        }
        line |= {name: fact for name, fact in vars(record).items() if name not in NOT_FACTS}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def to_stderr(level: str, log_format: str, fleet: str) -> None:
    """Send all logs to stderr.

    Args:
        level: the least level that is logged.
        log_format: ``text``, coloured on a terminal, or ``json``.
        fleet: the fleet's name.
    """
    handler: logging.Handler = logging.StreamHandler()
    if log_format == "json":
        handler.setFormatter(JsonFormatter(fleet))
    elif sys.stderr.isatty():
        # A service seldom has a terminal: it need not load this.
        from rich.console import Console  # noqa: PLC0415
        from rich.logging import RichHandler  # noqa: PLC0415

        handler = RichHandler(console=Console(stderr=True), show_path=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
