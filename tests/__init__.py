"""Tests of nitroproxy. What a busy machine makes slow is no failure: hypothesis judges no times."""

from hypothesis import HealthCheck, settings

settings.register_profile("nitroproxy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("nitroproxy")
