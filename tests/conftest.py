"""What every test shares: no property test is a timed test, and child processes see the same number of threads."""

from hypothesis import settings

settings.register_profile("sparsepack", deadline=None)
settings.load_profile("sparsepack")
