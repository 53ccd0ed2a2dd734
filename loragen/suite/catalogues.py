"""Catalogues by name."""

from enum import StrEnum
from typing import Final

from loragen.suite.small import SMALL
from loragen.suite.tenants import TENANTS


class CatalogueName(StrEnum):
    """Suites that an evaluation can ask."""

    SMALL = "small"
    TENANTS = "tenants"


CATALOGUES: Final = {CatalogueName.SMALL: SMALL, CatalogueName.TENANTS: TENANTS}
