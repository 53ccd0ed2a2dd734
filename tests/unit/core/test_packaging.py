"""The five top-level names are ours alone: another distribution would overwrite them silently."""

from importlib.metadata import packages_distributions

import pytest


@pytest.mark.parametrize("name", ["loragen", "server", "router_service", "workers", "config"])
def test_a_top_level_package_belongs_to_this_distribution_only(name: str) -> None:
    assert set(packages_distributions()[name]) == {"loragen-server"}
