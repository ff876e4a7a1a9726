"""`python -m services.reward`"""

from perilune.imports import uncollected

with uncollected():
    from perilune.runtime.service import main
    from services.reward.config import RewardSettings
    from services.reward.server import run

if __name__ == "__main__":
    main("reward", RewardSettings, run)
