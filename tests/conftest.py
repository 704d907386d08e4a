"""Settings of every test: one thread, no network, no display, and the same examples at each run."""

import os

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ.pop("DRAFTPLAN_PROFILES", None)

import pytest  # noqa: E402  (the lines above come before numpy is loaded)
from hypothesis import HealthCheck, settings  # noqa: E402

settings.register_profile(
    "draftplan",
    derandomize=True,
    deadline=None,
    max_examples=20,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("deep", settings.get_profile("draftplan"), derandomize=False, max_examples=1000)
settings.load_profile("draftplan")  # --hypothesis-profile=deep takes its place, as in make nightly


@pytest.fixture(scope="session", autouse=True)
def wide_terminal():
    """Sentences come in one piece; a test of narrow terminals sets its own width."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "10000")
        yield
