"""What libp2p imports and a node doesn't use is imported late, and nobody is served a placeholder for it.

Each test is a program in a process of its own: what this one has imported is up to other tests. Where it begins with
importing libp2p as overlay does, that process is forked from one that has done so, and nothing else.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

Run = Callable[[str], None]

HEAVY = (
    "aioquic",
    "anyio",
    "coincurve",
    "Crypto",
    "dns",
    "fastecdsa",
    "httpx",
    "libp2p.bitswap",
    "libp2p.peer.persistent",
    "libp2p.relay",
    "noise.connection",
    "prometheus_client",
    "psutil",
    "requests",
    "service_identity",
    "trio_websocket",
    "urllib3",
    "zeroconf",
)
"""Packages that a node needs none of: some 30 MiB."""


FORKING = """
import overlay.libp2p.host
import json, os, sys, traceback
for line in sys.stdin:
    program, said = json.loads(line)
    process_id = os.fork()
    if process_id == 0:
        output = os.open(said, os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        try:
            exec(program, {})
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1]), flush=True)
"""
"""Runs programs, each in a fork. Beside libp2p, and what that needs, it has imported Python's own modules alone."""


def run_anew(program: str) -> None:
    """Runs a program in a Python that starts for it; what it asserts holds."""
    done = subprocess.run(
        [sys.executable, "-c", dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def forking() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", FORKING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def run(forking: subprocess.Popen[str], tmp_path: Path) -> Run:
    """Runs a program that goes on where libp2p has been imported; what it asserts holds."""

    def run_on(program: str) -> None:
        assert forking.stdin is not None
        assert forking.stdout is not None
        said = tmp_path / "said"
        print(json.dumps([dedent(program), str(said)]), file=forking.stdin, flush=True)
        ended = forking.stdout.readline()
        assert ended == "0\n", f"{ended}{said.read_text()}"

    return run_on


def test_two_linked_nodes_import_nothing_heavy(run: Run) -> None:
    run(f"""
        import sys, tempfile
        from pathlib import Path
        import trio
        from overlay.identity import Identity
        from overlay.settings import OverlaySettings
        from registry.node import open_node
        from registry.settings import NodeSettings

        async def main(folders):
            async with open_node(Identity.generate(), NodeSettings(), Path(folders, "one")) as one:
                bootstrap = tuple(one.peer.addresses())
                settings = NodeSettings(overlay=OverlaySettings(bootstrap=bootstrap))
                async with open_node(Identity.generate(), settings, Path(folders, "two")) as two:
                    await two.peer.wait_joined()
                    created = await two.registry.create_resource("sample")
                    assert created.resource_id is not None, created.errors

        with tempfile.TemporaryDirectory() as folders:
            for name in ("one", "two"):
                Path(folders, name).mkdir()
            trio.run(main, folders)
        assert "libp2p" in sys.modules
        found = [name for name in {HEAVY!r} if name in sys.modules]
        assert not found, found
        """)


def test_placeholders_are_gone_once_libp2p_is_imported(run: Run) -> None:
    run("""
        import sys
        import overlay.libp2p.host
        from overlay.libp2p.workarounds.deferred_imports import DEFERRED
        assert not [name for name, module in sys.modules.items() if "Placeholder" in type(module).__name__]
        assert not [finder for finder in sys.meta_path if "deferred_imports" in type(finder).__module__]
        for name in DEFERRED:
            assert name not in sys.modules, f"{name} was imported all the same; it has no place among what is deferred"
        """)


def test_libp2p_holds_no_constant_of_what_is_deferred(run: Run) -> None:
    run("""
        import sys
        from importlib import import_module
        import overlay.libp2p.host
        held = [
            (user.__name__, name, value)
            for user in list(sys.modules.values())
            if user.__name__.partition(".")[0] in ("libp2p", "multiaddr")
            for name, value in list(vars(user).items())
            if type(value).__name__ == "_Placeholder"
        ]
        assert held
        for user, name, value in held:
            real = getattr(import_module(value.__module__), value.__name__)
            assert callable(real), f"{user} would take the place of {value.__module__}.{name} for its value"
            assert not (isinstance(real, type) and issubclass(real, BaseException)) or name == "ConnectionClosed", (
                f"{user} may catch {name}"
            )
        """)


def test_an_application_gets_the_real_packages_afterwards(run: Run) -> None:
    run("""
        import overlay.libp2p.host
        import aioquic.quic.configuration, anyio, dns.resolver, prometheus_client, psutil, requests
        for package in (aioquic.quic.configuration, anyio, dns.resolver, prometheus_client, psutil, requests):
            assert package.__file__ and "Placeholder" not in type(package).__name__
        assert prometheus_client.Counter("sample", "as an application has it").collect()
        assert dns.resolver.Resolver(configure=False).nameservers == []
        from libp2p.transport.quic.transport import QUICTransport
        from libp2p.relay.circuit_v2.protocol import CircuitV2Protocol
        import libp2p.relay
        assert libp2p.relay.circuit_v2.protocol.CircuitV2Protocol is CircuitV2Protocol
        assert issubclass(QUICTransport, libp2p.abc.ITransport)
        """)


def test_what_an_application_imported_before_stays_what_it_is() -> None:
    run_anew("""
        import anyio, prometheus_client
        before = anyio, prometheus_client
        import overlay.libp2p.host, sys
        assert (sys.modules["anyio"], sys.modules["prometheus_client"]) == before
        import libp2p.tools.anyio_service.api
        assert libp2p.tools.anyio_service.api.anyio is anyio
        """)


def test_nothing_is_deferred_where_libp2p_was_imported_before() -> None:
    run_anew("""
        import libp2p, sys
        secio = sys.modules["libp2p.security.secio"]
        import overlay.libp2p.host
        assert libp2p.QUICTransport is sys.modules["libp2p.transport.quic.transport"].QUICTransport
        assert sys.modules["libp2p.security.secio"] is secio
        """)


def test_another_thread_that_imports_meanwhile_gets_a_module_that_works() -> None:
    run_anew("""
        import sys, threading
        from importlib.abc import MetaPathFinder
        found = []

        class Meanwhile(MetaPathFinder):
            def find_spec(self, fullname, path, target=None):
                if fullname == "libp2p.host.basic_host":
                    def other():
                        import prometheus_client
                        found.append(prometheus_client)
                    thread = threading.Thread(target=other)
                    thread.start()
                    thread.join(20)
                return None

        import trio
        sys.meta_path.insert(0, Meanwhile())
        import overlay.libp2p.host
        (package,) = found
        assert package.CollectorRegistry().collect() is not None
        import prometheus_client
        assert package.Counter is prometheus_client.Counter
        """)


def test_keys_of_foreign_peers_are_read(run: Run) -> None:
    run("""
        import sys
        import overlay.libp2p.host
        from libp2p.crypto.serialization import deserialize_public_key
        from libp2p.peer.envelope import pub_key_to_protobuf
        assert "libp2p.crypto.rsa" not in sys.modules
        from libp2p.crypto import rsa, secp256k1
        for kind in (rsa, secp256k1):
            pair = kind.create_new_key_pair()
            key = deserialize_public_key(pair.public_key.serialize())
            assert type(key) is type(pair.public_key)
            assert key.verify(b"message", pair.private_key.sign(b"message"))
            assert pub_key_to_protobuf(key).Data == key.to_bytes()
        """)


def test_keys_of_foreign_peers_are_read_though_nobody_has_imported_their_kind(run: Run) -> None:
    run("""
        import sys
        import overlay.libp2p.host
        from libp2p.crypto.pb import crypto_pb2
        from libp2p.crypto.serialization import deserialize_public_key
        from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
        public = generate_private_key(65537, 2048).public_key()
        data = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        message = crypto_pb2.PublicKey(key_type=crypto_pb2.KeyType.RSA, data=data)
        assert "Crypto" not in sys.modules
        key = deserialize_public_key(message.SerializeToString())
        assert type(key).__name__ == "RSAPublicKey" and key.to_bytes() == data
        """)


def test_names_in_addresses_are_resolved(run: Run) -> None:
    run("""
        import trio
        import overlay.libp2p.host
        from libp2p.network.swarm import DNSResolver
        from multiaddr import Multiaddr
        resolver = DNSResolver()  # as a swarm makes it
        import sys
        assert "dns" not in sys.modules
        resolved = trio.run(resolver.resolve, Multiaddr("/ip4/127.0.0.1/tcp/1"))
        assert resolved == [Multiaddr("/ip4/127.0.0.1/tcp/1")]
        assert "dns" in sys.modules
        """)


def test_a_websocket_that_closed_is_told_from_other_errors(run: Run) -> None:
    run("""
        import overlay.libp2p.host
        from libp2p.transport.websocket import connection
        assert not isinstance(ValueError(), connection.ConnectionClosed)
        import trio_websocket
        assert isinstance(trio_websocket.ConnectionClosed(None), connection.ConnectionClosed)
        assert not isinstance(ValueError(), connection.ConnectionClosed)
        """)


def test_what_a_placeholder_cannot_do_raises_and_says_what_to_do(run: Run) -> None:
    run("""
        import overlay.libp2p.host
        from libp2p import QUICTransport

        def subclass():
            class Mine(QUICTransport):
                pass

        for wrong in (lambda: bool(QUICTransport), lambda: list(QUICTransport), lambda: f"{QUICTransport}", subclass):
            try:
                wrong()
            except ImportError as error:
                assert "imports libp2p before overlay" in str(error)
            else:
                raise AssertionError(wrong)
        assert not isinstance(QUICTransport, str) and not isinstance("", QUICTransport)
        assert QUICTransport | None
        try:
            raise ValueError
        except (QUICTransport, ValueError):
            pass
        assert callable(QUICTransport.dial)  # the real one's: reading an attribute is a use
        from libp2p.transport.quic.transport import QUICTransport as real
        assert isinstance(real.__new__(real), QUICTransport)
        """)
