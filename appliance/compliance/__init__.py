"""What compliance shows: who processes what for which purpose, what is proven, and what went wrong."""
