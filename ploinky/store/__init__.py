"""What outlives the process: one SQLite database, written by one thread.

Values enter and leave; secrets are sealed by an injected `ISecretBox` before
they are written.  SQLAlchemy is imported here alone.  This room knows nothing
of what deployments, repositories or keys mean.
"""
