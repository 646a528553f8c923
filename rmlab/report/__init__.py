"""From run directories to tables and figures. Reads nothing but run directories, and no torch."""
