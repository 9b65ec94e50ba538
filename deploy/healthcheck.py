"""Is the part that runs in this container well? `healthcheck.py grpc PORT` or `healthcheck.py http PORT`; exit 0 or 1.

Where gRPC asks its callers for certificates, a port that takes connections has to do.
"""

from __future__ import annotations

import os
import socket
import sys
import urllib.request

TIMEOUT_S = 3.0


def main(kind: str, port: str) -> bool:
    """Whether it answers within three seconds."""
    try:
        if kind == "http":
            with urllib.request.urlopen(f"http://127.0.0.1:{int(port)}/healthz", timeout=TIMEOUT_S) as answer:
                return bool(answer.status == 200)
        if os.environ.get("TOLLWAY_TLS_CERT"):
            socket.create_connection(("127.0.0.1", int(port)), TIMEOUT_S).close()
            return True
    except OSError:
        return False
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(f"127.0.0.1:{int(port)}") as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    sys.exit(0 if main(*sys.argv[1:]) else 1)
