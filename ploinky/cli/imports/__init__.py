"""What runs elsewhere, as deployments: files of Docker Compose and Kubernetes.

A file's text enters, a `Plan` leaves: what will be deployed, and for every part of the file that
does not map a line that says what, where, why, and what to do instead.  Nothing here speaks to a
server; `ploinky.cli.importing` does.
"""
