"""Look up in which Availability Zones EC2 offers which types; offered is not available: capacity changes by the hour.

The facts stand in offerings.toml. Zones are named by their ID (use1-az1), which is the same in every account.
"""

import datetime
import tomllib
from functools import lru_cache
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from smml.data.packaged import text_of
from smml.data.schema import Source, Text
from smml.errors import UserError

OFFERINGS_FILE = "offerings.toml"


class Offer(BaseModel):
    """Types of a region that are offered in the same zones, where it was read, and the day for which it was."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")]
    zones: Annotated[list[Annotated[str, Field(pattern=r"^[a-z0-9]+-az\d$")]], Field(min_length=1)]
    types: Annotated[list[Text], Field(min_length=1)]
    source: Text
    url: str
    date: datetime.date
    checked: bool


def read_offerings(text: str, file: str = OFFERINGS_FILE) -> list[Offer]:
    """Parse and check a TOML text of [sources] and [[offers]]. Raises UserError naming `file`, row and field."""
    row = "(file)"
    try:
        content = tomllib.loads(text)
        sources = {key: Source.model_validate(value) for key, value in content["sources"].items()}
        found: list[Offer] = []
        seen: set[tuple[str, str]] = set()
        for number, block in enumerate(content["offers"], 1):
            row = f"offer {number}"
            cited = sources[block["source"]]
            offer = Offer(
                region=block["region"],
                zones=block["zones"],
                types=block["types"],
                source=cited.title,
                url=cited.url,
                date=cited.date,
                checked=cited.checked,
            )
            for name in offer.types:
                if (offer.region, name) in seen:
                    raise ValueError(f"types: {name} stands twice in {offer.region}")
                seen.add((offer.region, name))
            found.append(offer)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file} is not TOML: {error}; correct that line.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{file}, row {row}, field {where}: {first['input']!r}: {first['msg']}. Correct it there."
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"missing {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{file}, row {row}: {reason}. Correct it there.") from error
    return found


@lru_cache
def _packaged() -> list[Offer]:
    return read_offerings(text_of(OFFERINGS_FILE))


def offerings(region: str) -> dict[str, list[str]]:
    """The types of the catalogue that each zone of `region` offers, zones in order; raises UserError for other regions."""
    held = [offer for offer in _packaged() if offer.region == region]
    if not held:
        known = sorted({offer.region for offer in _packaged()})
        raise UserError(
            f"no offerings are known of region {region!r}; known are {', '.join(known)}; give one of these."
        )
    zones = sorted({zone for offer in held for zone in offer.zones})
    return {
        zone: [name for offer in held if zone in offer.zones for name in offer.types]
        for zone in zones
    }


def zones_of(instance_type: str, region: str) -> list[str]:
    """The zones of `region` that offer the type; empty if the region does not offer it. UserError: unknown region."""
    return [zone for zone, names in offerings(region).items() if instance_type in names]
