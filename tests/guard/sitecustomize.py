"""Makes any look-up of or connection to another host fail: for this process, or by PYTHONPATH for a child."""

import ipaddress
import socket
from typing import Any

refused: list[str] = []
_getaddrinfo, _connect, _connect_ex = socket.getaddrinfo, socket.socket.connect, socket.socket.connect_ex


def _is_local(host: Any) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _check(host: Any) -> None:
    if not _is_local(host):
        refused.append(str(host))
        raise AssertionError(f"a test tried to reach {host!r}")


def _guarded_getaddrinfo(host: Any, *rest: Any, **options: Any) -> Any:
    _check(host)
    return _getaddrinfo(host, *rest, **options)


def _guarded_connect(self: socket.socket, address: Any) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6):
        _check(address[0])
    _connect(self, address)


def _guarded_connect_ex(self: socket.socket, address: Any) -> int:
    if self.family in (socket.AF_INET, socket.AF_INET6):
        _check(address[0])
    return _connect_ex(self, address)


def install() -> None:
    """Put the guard in place for the life of this process."""
    socket.getaddrinfo = _guarded_getaddrinfo
    socket.socket.connect = _guarded_connect  # type: ignore[method-assign]
    socket.socket.connect_ex = _guarded_connect_ex  # type: ignore[method-assign]


install()
