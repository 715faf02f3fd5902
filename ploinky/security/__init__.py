"""Who may do what: keys, sessions, roles, and the box that secrets are kept in.

Tokens enter, principals leave.  Only hashes of tokens are kept or passed on.
This room knows nothing of HTTP or of how anything is stored.
"""
