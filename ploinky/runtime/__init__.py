"""Where agents run: container engines, and host processes that stand in for them.

What enters are `InstanceSpec`s, what leaves are `InstanceStatus`es and, once an
instance answers its probe, a `Target`.  This room knows nothing of routes,
releases or repositories.

`engine` speaks to Docker and Podman, `process` starts AgentCore on the host,
`instances` keeps each instance alive whichever of them runs it.
"""
