"""What runs before and after reinforcement learning."""
