"""`python -m services.rollout`"""

from perilune.imports import uncollected

with uncollected():
    from perilune.runtime.service import main
    from services.rollout.config import RolloutSettings
    from services.rollout.server import run

if __name__ == "__main__":
    main("rollout", RolloutSettings, run)
