"""What the server knows of itself: logs and sums.

Events, access lines and counts enter; files and numbers leave.  This room knows neither routes
nor processes.
"""
