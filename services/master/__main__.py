"""`python -m services.master`"""

from perilune.imports import uncollected

with uncollected():
    from perilune.runtime.service import main
    from services.master.config import MasterSettings
    from services.master.server import run

if __name__ == "__main__":
    main("master", MasterSettings, run)
