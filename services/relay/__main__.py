"""`python -m services.relay`"""

from perilune.imports import uncollected

with uncollected():
    from perilune.runtime.service import ServiceSettings, main
    from services.relay.server import run

if __name__ == "__main__":
    main("relay", ServiceSettings, run)
