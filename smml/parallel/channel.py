"""Messages between the notebook and its workers: one JSON object a line over a TCP connection on this host.

Nothing is pickled: what a worker runs is named as module:function, and what comes back is data.
"""

import contextlib
import json
import secrets
import socket
from typing import Any, Self

from smml.errors import UserError
from smml.measure import Record

ADDRESS = "SMML_WORKERS_CHANNEL"  # host:port:token, in the environment of a worker
_RECORD = "smml record"


class Channel:
    """One end of a connection; `send` and `receive` whole messages. Usable in one reading and one writing thread."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = connection
        self._lines = connection.makefile("rb")

    @classmethod
    def connect(cls, address: str, hello: dict[str, Any]) -> Self:
        """Connect to the `host:port:token` of a `Listener` and introduce oneself."""
        host, port, token = address.rsplit(":", 2)
        channel = cls(socket.create_connection((host, int(port))))
        channel.send(hello | {"token": token})
        return channel

    def send(self, message: dict[str, Any]) -> None:
        """Send one message. Raises UserError for what cannot be sent, OSError where the other end is gone."""
        self.connection.sendall(encoded(message))

    def receive(self) -> dict[str, Any] | None:
        """The next message; None where the other end is gone."""
        try:
            line = self._lines.readline()
        except OSError:  # reset: the process at the other end was killed
            return None
        return json.loads(line, object_hook=_decoded) if line.endswith(b"\n") else None

    def close(self) -> None:
        """End the connection, also under a thread that reads from it."""
        with contextlib.suppress(OSError):  # the other end closed it first
            self.connection.shutdown(socket.SHUT_RDWR)
        self._lines.close()
        self.connection.close()


def encoded(message: dict[str, Any]) -> bytes:
    """The message as a line. Raises UserError for what JSON cannot hold."""
    try:
        return json.dumps(message, default=_plain).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{error}: tasks take and return numbers, text, lists, dicts and records; convert it there."
        ) from error


class Listener:
    """Waits for workers on this host; only those that know the token are let in."""

    def __init__(self) -> None:
        self._token = secrets.token_hex(16)
        self._socket = socket.create_server(("127.0.0.1", 0))

    @property
    def address(self) -> str:
        """`host:port:token`, for `Channel.connect`."""
        host, port = self._socket.getsockname()
        return f"{host}:{port}:{self._token}"

    def accept(self, timeout_s: float) -> tuple[Channel, dict[str, Any]] | None:
        """A connection and its introduction; None where none came in `timeout_s` or it was a stranger's."""
        self._socket.settimeout(timeout_s)
        try:
            connection, _ = self._socket.accept()
        except TimeoutError:
            return None
        connection.settimeout(None)
        channel = Channel(connection)
        hello = channel.receive() or {}
        if not secrets.compare_digest(str(hello.get("token")), self._token):
            channel.close()
            return None
        return channel, hello

    def close(self) -> None:
        """Let nobody in any more."""
        self._socket.close()


def _plain(value: object) -> Any:
    if isinstance(value, Record):
        return {_RECORD: value.model_dump(mode="json", by_alias=True)}
    raise TypeError(f"a {type(value).__name__} cannot be sent between processes")


def _decoded(value: dict[str, Any]) -> Any:
    return Record.model_validate(value[_RECORD]) if value.keys() == {_RECORD} else value
