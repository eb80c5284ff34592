"""The store on SQLite and PostgreSQL, by one SQLAlchemy Core code."""
