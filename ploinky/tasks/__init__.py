"""The tasks room: which instance takes a call, and how a task travels to it.

A route and a task enter, an answer leaves.  This room knows instances, queues
and wires; it does not know hosts, paths, or who is allowed to call.
"""
