"""The fourteen steps from an empty machine to a watched model, here and on AWS."""
