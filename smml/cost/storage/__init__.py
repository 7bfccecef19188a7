"""Where bytes lie, by how often they are read: storage classes, lifecycle, tiering."""
