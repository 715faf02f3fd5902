"""The management API: a Klein application behind the gateway, on the control socket.

HTTP requests enter; everything it does, it does through interfaces.  Klein is
imported here alone, and importing it installs a reactor: the root chooses one
first.  This room must not know engines, Git or SQL.
"""
