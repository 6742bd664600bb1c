"""What every test shares: the profiles of Hypothesis."""

from hypothesis import HealthCheck, settings

# A slow machine is no defect: Hypothesis finds wrong answers here, and benchmarks find slow ones.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("soak", settings.get_profile("default"), max_examples=5_000)
settings.load_profile("default")
