"""SQLite and PostgreSQL as the services use them: engines, migrations, transactions."""
