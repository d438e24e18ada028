"""Features, scores, the task-by-time matrix and the report."""
