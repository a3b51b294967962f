"""How many examples of a property are tried, and which files are tested first.

100 examples, always the same; `--hypothesis-profile=long` tries others, `mutants` ends at the first that fails.
"""

import gc

from hypothesis import HealthCheck, Phase, settings

gc.disable()  # until all tests are imported: what that makes stays, and looking through it finds no garbage

settings.register_profile("usual", max_examples=100, deadline=None, derandomize=True)
settings.register_profile(
    "long", max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "mutants", parent=settings.get_profile("usual"), phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("usual")


def pytest_collection_modifyitems(items):
    """Put files that take long first, a browser's before all: workers that take one by one end together."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: ("viewer" not in item.path.parts, item.path not in slow))


def pytest_collection_finish(session):
    """Leave what importing all tests made, millions of objects, out of every later collection of garbage."""
    gc.collect()
    gc.freeze()
    gc.enable()
