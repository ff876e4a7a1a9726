"""`python -m services.sandbox`"""

from perilune.imports import uncollected

with uncollected():
    from perilune.runtime.service import main
    from services.sandbox.config import SandboxSettings
    from services.sandbox.server import run

if __name__ == "__main__":
    main("sandbox", SandboxSettings, run)
