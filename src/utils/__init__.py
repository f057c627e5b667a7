"""What every package may use: whole files, checks, processes, interrupts."""
