"""Modules are loaded quickly, and the process is as it was afterwards. In processes of their own, which it marks."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent


def run(program: str) -> None:
    """Runs a program in a process of its own; what it asserts holds."""
    done = subprocess.run(
        [sys.executable, "-c", dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_garbage_is_not_looked_for_meanwhile_and_what_was_loaded_is_left_alone_later() -> None:
    run("""
        import gc
        from aqua_compat.cli.loading import loading
        looked = []
        gc.callbacks.append(lambda phase, info: looked.append(phase))
        with loading():
            import aqua_compat.api.full_node
            assert not gc.isenabled() and not looked
        assert gc.isenabled()
        assert gc.get_freeze_count() > 50_000
        """)


def test_structlog_does_without_rich_and_others_get_it_afterwards() -> None:
    run("""
        import sys
        from aqua_compat.cli.logs import configure_logs
        configure_logs("error", "human")
        assert "structlog" in sys.modules and "rich" not in sys.modules
        import rich.console
        import structlog
        try:
            raise ValueError("shown")
        except ValueError:
            structlog.get_logger().error("with a traceback", exc_info=True)
        """)


def test_rich_stays_where_it_was_imported_before() -> None:
    run("""
        import rich, sys
        from aqua_compat.cli.loading import loading
        with loading():
            import rich.console
        assert sys.modules["rich"] is rich
        """)


def test_garbage_is_looked_for_again_when_loading_fails() -> None:
    run("""
        import gc, sys
        from aqua_compat.cli.loading import loading
        try:
            with loading():
                raise MemoryError
        except MemoryError:
            pass
        assert gc.isenabled() and "rich" not in sys.modules
        """)


def test_a_command_through_a_relay_has_loaded_all_of_ours_before_it_connects() -> None:
    run("""
        import sys
        from aqua_compat.cli.loading import load_client
        load_client()
        loaded = set(sys.modules)
        import trio
        from aqua_compat.api.connections import connect
        from overlay.identity import Identity
        from registry.errors import NodeUnavailable

        async def main():
            try:
                async with connect(f"/ip4/127.0.0.1/tcp/1/p2p/{Identity.generate().peer_id}"):
                    raise AssertionError("nobody is there")
            except NodeUnavailable:
                pass

        trio.run(main)
        later = [name for name in set(sys.modules) - loaded if name.startswith(("overlay", "registry", "aqua_compat"))]
        assert not later, later
        """)
