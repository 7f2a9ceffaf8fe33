"""What every part uses and which knows nothing of networks: errors, files, settings, devices, processes."""
