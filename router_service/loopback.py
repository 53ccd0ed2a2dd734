"""Loopback: closes the one port that Ray opens to the network on a single machine.

Each Serve replica starts a gRPC server between deployments on every interface. It unpickles what
it gets and asks for no token, so whoever reaches the port runs code. Ray 2.60 has no setting for
its address; on one machine nothing but this machine needs it.
"""

from typing import Any, Final

from ray.serve._private import replica

from loragen.errors import ConfigError

_BINDER: Final = "add_port_to_grpc_server"


def bind_replica_to_loopback() -> None:
    """Make the replica of this process bind 127.0.0.1; call it in a deployment's constructor.

    Raises:
        ConfigError: this Ray version opens the port in another way.
    """
    original = getattr(replica, _BINDER, None)
    if original is None:
        raise ConfigError("unsupported Ray version: cannot keep Serve replicas on loopback")

    def bind(server: Any, address: str) -> int:
        port: int = original(server, f"127.0.0.1:{address.rpartition(':')[2]}")
        return port

    setattr(replica, _BINDER, bind)
