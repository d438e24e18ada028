"""What is frozen: one house for every model that a method is taught to."""
