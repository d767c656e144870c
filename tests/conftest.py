"""Shared settings: Flower stays offline and quiet, no test leaves a thread pool fighting another, none judges time.

Hypothesis draws the same examples on every run, so that one commit has one verdict; `--hypothesis-profile=thorough`
draws new ones, ten times as many in every test.
"""

import os

import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION", "1")

# An example's seconds say how busy the machine is: there is no deadline, and none is called too slow to draw.
UNTIMED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("same", derandomize=True, **UNTIMED)
settings.register_profile("thorough", max_examples=1000, **UNTIMED)
settings.load_profile("same")
MORE = 10
SLOWEST = ("every_command_runs", "supernode", "superlink", "flwr_run")


def pytest_collection_modifyitems(items: list[pytest.Item], config: pytest.Config) -> None:
    """Slow ones first, the README and what starts SuperNodes before all, so that workers end together.

    Integration tests run without the tracer, which doubles their time: coverage is that of the others.
    """
    for item in items:
        if "integration" in item.keywords:
            item.add_marker("no_cover")
    items.sort(key=lambda item: (not any(map(item.name.count, SLOWEST)), "integration" not in item.keywords))
    if config.getoption("--hypothesis-profile") == "thorough":
        for test in {item.obj for item in items if is_hypothesis_test(getattr(item, "obj", None))}:
            _draw_more(test)


def _draw_more(test: object) -> None:
    """A number of examples that a test names is its usual one."""
    own = getattr(test, "_hypothesis_internal_use_settings", settings.default)
    if own.max_examples != settings.default.max_examples:
        more = settings(own, max_examples=MORE * own.max_examples)
        test._hypothesis_internal_use_settings = more  # type: ignore[attr-defined]
