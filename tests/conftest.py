"""How many examples of a property are tried: 100, always the same; `--hypothesis-profile=long` tries others."""

from hypothesis import HealthCheck, settings

settings.register_profile("usual", max_examples=100, deadline=None, derandomize=True)
settings.register_profile(
    "long", max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("usual")
