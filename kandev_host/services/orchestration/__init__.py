"""The orchestrator: tasks that run by themselves, in order, within bounds, and again when that is worth it.

`queue` holds who waits, `dispatcher` starts what may start, `lease` lets one run hold a task, `conclusions` says what
a run's end means, `settling` makes queue and tasks agree again, `recovery` does so after a host that died, and
`service` is what the actions call. `retry`, `verdict` and `capacity` are the rules, without any I/O.
"""
