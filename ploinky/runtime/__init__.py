"""Where agents run: container engines, and host processes that stand in for them.

What enters is an `InstanceSpec`, what leaves an `InstanceStatus` and, once the
instance answers its probe, a `Target`.  This room knows nothing of routes,
releases or repositories.

`engine` speaks to Docker and Podman, `process` starts AgentCore on the host,
`instances` keeps each instance alive whichever of them runs it: `life` says what comes next,
`steps` does it, `chronicle` tells what became of it.
"""
