"""`python -m services.trainer`: PERILUNE_LISTEN is where the fleet fetches weights, PERILUNE_HOME holds checkpoints."""

from perilune.service import ServiceSettings, main
from services.trainer.worker import run

if __name__ == "__main__":
    main("trainer", ServiceSettings, run)
