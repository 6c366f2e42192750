"""What every chapter stands on: networks, models, energies, relaxation, rules."""
