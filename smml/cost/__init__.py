"""What a job costs, and which machine to choose for it: unit economics, and decisions that give their reasons."""
