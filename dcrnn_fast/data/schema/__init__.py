"""The schema of a table, as users write it in YAML: files, columns, fields, histories, tasks."""
