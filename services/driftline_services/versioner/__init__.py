"""The versioner: row states in, versions and backups out."""
