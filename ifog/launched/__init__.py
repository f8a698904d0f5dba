"""What ``ifog run`` starts on each rank; run by its path, so that it imports nothing of ifog."""
