"""Backups: everything that a server is, in one file, and a server made of such a file again.

What is kept (database, code, volumes) enters; an archive leaves, piece by piece, while the server
serves: `making`.  An archive enters, and a data directory leaves: `restoring`.  `archive` is the
form of the file and `envelope` what it is sealed in; docs/backup.md describes both.

A room above the deployments': it must not know of HTTP or of command lines.
"""

MAGIC = b"ploinky-sealed\x001"
"""How a sealed archive begins; any other is gzip."""
