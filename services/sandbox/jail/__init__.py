"""The jail: where a job runs, apart from everything.

The service's side is `pool` (who waits for what), `slot` (one job at a time), `cgroups`, `output` and
`verdict`. The other side is a process per slot, `keeper`, that stands in the slot's namespaces with a warm interpreter.
For each job it forks the program's process (`supervisor`), which makes its file system (`mounts`) and gives up every
right (`program`), or starts a kernel for the program (`gvisor`, with `refusals`); the keeper ends whatever the program
left, and only then has files read back (`files`). `protocol` is what passes between the two sides. The keeper's side
imports the standard library alone, and never sees a job's content: what it forks would inherit it.
"""
