"""Long runs: checkpoints, devices, files."""
