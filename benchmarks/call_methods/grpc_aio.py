"""gRPC: its asyncio server and client over TLS, with handlers of plain bytes.

As a process: `python -m benchmarks.call_methods.grpc_aio KEY CERTIFICATE`, both files. The certificate is made for one
run. grpcio comes with libp2p.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import grpc  # type: ignore[import-untyped]
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks.call_methods.method import CALL_TIMEOUT, Measure, server
from benchmarks.timing import Timing, timed_on_asyncio

WARM_UP = 50  # calls on each new channel


@asynccontextmanager
async def grpc_aio() -> AsyncIterator[Measure]:
    """Calls over one channel; each measurement has its own event loop, in a thread while Trio's is idle."""
    with tempfile.TemporaryDirectory() as name:
        key, certificate = Path(name) / "key.pem", Path(name) / "certificate.pem"
        certificate_pem = _make_certificate(key, certificate)
        async with server("grpc_aio", str(key), str(certificate)) as target:

            async def measure(payload: bytes, count: int, in_flight: int) -> Timing:
                calls = partial(_calls, target, certificate_pem, payload, count, in_flight)
                return await trio.to_thread.run_sync(lambda: asyncio.run(calls()))

            yield measure


async def _calls(target: str, certificate: bytes, payload: bytes, count: int, in_flight: int) -> Timing:
    async with grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(certificate)) as channel:
        echo = channel.unary_unary("/echo/echo")

        async def call(number: int) -> bool:  # noqa: ARG001 - a call's signature
            return len(await echo(payload, timeout=CALL_TIMEOUT)) == len(payload)

        await timed_on_asyncio(call, WARM_UP, min(in_flight, WARM_UP))
        return await timed_on_asyncio(call, count, in_flight)


def _make_certificate(key_file: Path, certificate_file: Path) -> bytes:
    """A self-signed certificate for loopback, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "benchmark")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key_file.write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    certificate_pem = certificate.public_bytes(encoding)
    certificate_file.write_bytes(certificate_pem)
    return certificate_pem


async def _answer(payload: bytes, context: object) -> bytes:  # noqa: ARG001 - a handler's signature
    return payload


async def serve(key_file: str, certificate_file: str) -> None:
    """Answers callers until told to end."""
    running = grpc.aio.server()
    handlers = {"echo": grpc.unary_unary_rpc_method_handler(_answer)}
    running.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo", handlers),))
    pair = await asyncio.gather(*(asyncio.to_thread(Path(file).read_bytes) for file in (key_file, certificate_file)))
    port = running.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([tuple(pair)]))
    await running.start()
    print(f"127.0.0.1:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await running.stop(0)


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
