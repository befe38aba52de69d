"""Settings of the agent that a node is of its machine."""

from __future__ import annotations

import msgspec


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which services a node keeps registered, beside those of `[[service]]`."""

    services: str = ""
    """Folder of service files, TOML and JSON (docs/agent.md); `--services`. Empty: none."""
    scripts: bool = False
    """Whether checks may run programs: whoever may write service files can then run any as this node's user."""
