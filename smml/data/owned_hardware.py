"""Look up what hardware of one's own costs: servers, electricity, cooling, a place; each figure with source and date.

The facts stand in owned_hardware.toml. What no source serves for everyone (people, resale) is not in it.
"""

import tomllib
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from smml.data.catalogue import accelerators
from smml.data.packaged import text_of
from smml.data.purchase_terms import reason
from smml.data.schema import Count, Quantity, Source, Text
from smml.errors import UserError

HARDWARE_FILE = "owned_hardware.toml"


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Server(_Row):
    """One server as quoted: price in USD, most power in kW, its accelerators, EC2 types that hold the same ones."""

    name: Text
    accelerator: Text
    accelerators: Count
    price: Quantity
    power: Quantity
    comparable: Annotated[list[Text], Field(min_length=1)]


class OwnedHardware(_Row):
    """Everything that owned_hardware.toml holds."""

    servers: dict[str, Server]
    figures: dict[str, Quantity]


def read_owned_hardware(text: str, file: str = HARDWARE_FILE) -> OwnedHardware:
    """Parse and check a TOML text. Raises UserError naming `file` and row."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file} is not TOML: {error}; correct that line.") from error
    row = "sources"
    try:
        sources = {key: Source.model_validate(raw) for key, raw in content["sources"].items()}

        def quantity(raw: dict[str, Any], unit: str) -> Quantity:
            cited = sources[raw["source"]]
            value = float(raw["value"]) if type(raw["value"]) is int else raw["value"]
            origin = {"source": cited.title, "url": cited.url, "date": cited.date}
            return Quantity(value=value, unit=unit, checked=cited.checked, **origin)

        servers, figures = {}, {}
        for row, raw in content["servers"].items():
            if raw.get("accelerator") not in accelerators():
                raise ValueError(f"accelerator: {raw.get('accelerator')!r} is not in the catalogue")
            priced = {"price": quantity(raw["price"], "USD"), "power": quantity(raw["power"], "kW")}
            servers[row] = Server(**raw | priced)
        for row, raw in content["figures"].items():
            figures[row] = quantity(raw, raw["unit"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file}, row {row}: {reason(error)}. Correct it there.") from error
    return OwnedHardware(servers=servers, figures=figures)


@lru_cache
def owned_hardware() -> OwnedHardware:
    """All servers and figures. Raises UserError when the file is corrupt."""
    return read_owned_hardware(text_of(HARDWARE_FILE))


def server(name: str) -> Server:
    """The server of that name, such as "dgx-h100"; raises UserError that lists the names."""
    held = owned_hardware().servers
    if name not in held:
        raise UserError(
            f"{HARDWARE_FILE} holds no server {name!r}; it holds {', '.join(held)}; give one of these, "
            "or the price and power of your quotation."
        )
    return held[name]


def figure(name: str) -> Quantity:
    """The figure of that name, such as "power_usage_effectiveness"; raises UserError that lists the names."""
    held = owned_hardware().figures
    if name not in held:
        raise UserError(
            f"{HARDWARE_FILE} holds no {name!r}; it holds {', '.join(held)}; give one of these."
        )
    return held[name]


def electricity_usd_per_kwh(name: str, usd_per_unit: float | None = None) -> float:
    """The electricity price of that name in USD/kWh; one in another currency needs `usd_per_unit`, the exchange rate.

    Raises UserError for a currency without a rate, and for a rate given where the price is in USD.
    """
    held = figure(name)
    currency, _, per = held.unit.partition("/")
    if per != "kWh":
        raise UserError(
            f"{name} is in {held.unit}, not a price of electricity; give a name such as electricity_us_commercial."
        )
    if (currency == "USD") != (usd_per_unit is None):
        needed = (
            "leave usd_per_unit out"
            if currency == "USD"
            else f"give usd_per_unit, USD for a {currency}"
        )
        raise UserError(f"{name} is in {held.unit}; {needed}: currencies are not mixed.")
    if usd_per_unit is not None and not usd_per_unit > 0:
        raise UserError(f"usd_per_unit is {usd_per_unit!r}; give USD for a {currency}, above 0.")
    return held.value * (usd_per_unit or 1.0)
