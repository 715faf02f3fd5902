"""Ploinky Cloud: agents from Git repositories, in containers, behind one domain and path each."""
