"""Images: root file systems that an operator adds by name, and that a job may ask for in place of this machine's own.

`archive` reads what `docker save` and others write, and checks every digest; `layers` unpacks it safely; `store` is the
folder that they come into; `toolchains` finds out what languages one has. `python -m services.sandbox.images` is the
operator's command.
"""
