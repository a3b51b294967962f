"""How many examples hypothesis tries: few, always the same; with `--hypothesis-profile=long` many others."""

from hypothesis import HealthCheck, settings

settings.register_profile("usual", max_examples=40, deadline=None, derandomize=True)
settings.register_profile(
    "long", max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("usual")
