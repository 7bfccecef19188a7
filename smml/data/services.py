"""Look up AWS services by name: what each is for, whether a new account still gets it, what succeeds it; each with its source.

The rows stand in services.toml, with the rules that this loader checks.
"""

import datetime
import tomllib
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from smml.data.packaged import text_of
from smml.data.schema import Source, Text
from smml.errors import UserError

SERVICES_FILE = "services.toml"
STATUSES = ("available", "maintenance", "closed to new customers", "withdrawn", "renamed")
MOST_WORDS = 12

Status = Literal["available", "maintenance", "closed to new customers", "withdrawn", "renamed"]


class ServiceRow(BaseModel):
    """One service. `date` is the day for which its status was read at `url`; `successor` None while it is available."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: Text
    name: Text
    names: list[Text] = []
    purpose: Text
    status: Status
    since: datetime.date | None = None
    successor: Text | None = None
    api: Annotated[str, Field(pattern=r"^[a-z0-9-]+:[A-Z][A-Za-z0-9]+$")] | None = None
    source: Text
    url: str
    date: datetime.date
    checked: bool

    @model_validator(mode="after")
    def _row_is_whole(self) -> "ServiceRow":
        if len(self.purpose.split()) > MOST_WORDS:
            raise ValueError(f"purpose has {len(self.purpose.split())} words, at most {MOST_WORDS}")
        if (self.status == "available") != (self.successor is None):
            raise ValueError(
                f"status {self.status!r} and successor {self.successor!r} do not go together: "
                'a successor, or "none", belongs to what is not available'
            )
        return self

    @property
    def open_to_new_customers(self) -> bool:
        """Whether a new account gets it: available, or the same thing under a new name."""
        return self.status in ("available", "renamed")

    def __str__(self) -> str:
        since = "" if self.since is None else f" since {self.since}"
        instead = "" if self.successor is None else f"; successor: {self.successor}"
        return f"{self.name}: {self.status}{since}{instead} (checked for {self.date})"


def read_services(text: str, file: str = SERVICES_FILE) -> dict[str, ServiceRow]:
    """Parse and check a TOML text; rows by key. Raises UserError naming `file`, row and what is wrong with it."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file} is not TOML: {error}; correct that line.") from error
    found: dict[str, ServiceRow] = {}
    taken: dict[str, str] = {}
    row = "sources"
    try:
        sources = {key: Source.model_validate(value) for key, value in content["sources"].items()}
        for row, entry in content["services"].items():
            origin = sources[entry["source"]]
            cited = {"url": origin.url, "date": origin.date, "checked": origin.checked}
            found[row] = ServiceRow(**{"key": row, **entry, "source": origin.title, **cited})
            for name in (row, found[row].name, *found[row].names):
                if taken.setdefault(_plain(name), row) != row:
                    raise ValueError(f"{name!r} is a name of row {taken[_plain(name)]} too")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file}, row {row}: {_reason(error)}. Correct it there.") from error
    return found


@lru_cache
def services() -> dict[str, ServiceRow]:
    """All services by key. Raises UserError when the file is corrupt."""
    return read_services(text_of(SERVICES_FILE))


def service(name: str) -> ServiceRow:
    """The service of that key or name, such as "Step Functions", case and hyphens ignored; UserError names the nearest."""
    from difflib import get_close_matches

    by_name = {
        _plain(n): row for row in services().values() for n in (row.key, row.name, *row.names)
    }
    wanted = _plain(name)
    if wanted in by_name:
        return by_name[wanted]
    inside = [known for known in by_name if wanted and wanted in known]
    near = inside or get_close_matches(wanted, list(by_name), n=8, cutoff=0.5)
    shown = ", ".join(sorted({by_name[one].key for one in near})) or "none"
    raise UserError(
        f"{SERVICES_FILE} holds no service {name!r}; the nearest are {shown}; `smml services` lists all."
    )


def _plain(name: str) -> str:
    words = name.casefold().replace("-", " ").split()
    return " ".join(word for word in words if word not in ("amazon", "aws"))


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first: Any = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return f"{where}: {first['msg']}" if where else first["msg"].removeprefix("Value error, ")
    return f"missing {error}" if isinstance(error, KeyError) else str(error)
