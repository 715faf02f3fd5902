"""``p-cli``: the command line, one module per noun.

Argv enters; requests to the management API and lines for people (or JSON)
leave.  It knows the server only through its API, and through the files in
``run/`` that a leader writes for it.
"""
