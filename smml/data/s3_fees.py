"""Look up what S3 asks for storage, requests and retrievals of each class: prices.toml first, then s3_fees.toml."""

from functools import lru_cache

from smml.data.packaged import text_of
from smml.data.prices import PriceRow, read_prices, table
from smml.data.schema import Quantity

FEES_FILE = "s3_fees.toml"


@lru_cache
def _packaged() -> dict[tuple[str, str, str], PriceRow]:
    text = text_of(FEES_FILE)
    return read_prices(text, FEES_FILE)


def s3_price(item: str, region: str = "us-east-1") -> Quantity | None:
    """The on-demand price of an S3 item, such as "s3/standard-ia/retrieval"; None where no source was found for it."""
    key = (item, region, "on-demand")
    row = table().get(key) or _packaged().get(key)
    return None if row is None else row.price
