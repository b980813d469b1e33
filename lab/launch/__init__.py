"""Where jobs run: processes of this machine, SLURM, and Ray."""
