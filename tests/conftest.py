"""Shared settings: Flower stays offline and quiet, and no test leaves a thread pool fighting another."""

import os

import pytest

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow ones first, SuperNodes before all, so that workers beside each other end together."""
    items.sort(key=lambda item: ("supernode" not in item.name, "integration" not in item.keywords))
