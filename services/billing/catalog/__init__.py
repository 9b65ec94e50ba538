"""The catalog: pricing as data. `model` says what a catalog may say, `load` reads a file and names what is wrong."""

from services.billing.catalog.load import CatalogError, load_catalog
from services.billing.catalog.model import Catalog, Limit, Price, Tier

__all__ = ["Catalog", "CatalogError", "Limit", "Price", "Tier", "load_catalog"]
