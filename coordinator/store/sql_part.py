"""What the parts of a transaction have in common: what they speak to the database through."""

from sqlalchemy import Connection


class SqlPart:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def connection(self) -> Connection:
        """Everything that was saved is in the database when this is used."""
        return self._connection

    @property
    def beside(self) -> Connection:
        """For what has nothing to do with what may be held back."""
        return self._connection
