"""What tests need of this server, for its own and for those of plugins: fakes, and contracts."""
