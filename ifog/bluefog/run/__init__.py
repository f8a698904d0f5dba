"""What BlueFog's notebooks import of its launchers."""
