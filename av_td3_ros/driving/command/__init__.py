"""Who drives, what is applied, and the commands that vehicles take."""
