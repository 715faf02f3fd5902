"""The data corridor's first half: from a socket to an agent's transport.

Bytes of HTTP/1.1 enter and leave; in between, a request is matched to a route,
its caller admitted, a place at an instance claimed, and the request handed to a
transport.  This room knows nothing of deployments, engines or how tasks are run.
"""
