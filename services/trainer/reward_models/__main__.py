"""`python -m services.trainer.reward_models`: a classic reward model, served; PERILUNE_MODEL is its folder."""

from perilune.imports import uncollected

with uncollected():
    from perilune.runtime.service import main
    from services.trainer.reward_models.server import RewardModelSettings, run

if __name__ == "__main__":
    main("reward-model", RewardModelSettings, run)
