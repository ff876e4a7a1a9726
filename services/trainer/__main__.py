"""`python -m services.trainer`: PERILUNE_LISTEN is where the fleet fetches weights, PERILUNE_HOME holds checkpoints.

`torchrun --nproc-per-node N -m services.trainer` is one trainer of N ranks.
"""

from perilune.imports import uncollected

with uncollected():
    from perilune.runtime.service import main
    from services.trainer.config import TrainerSettings
    from services.trainer.server import run

if __name__ == "__main__":
    main("trainer", TrainerSettings, run)
