"""Settings of the agent that a node is of its machine."""

from __future__ import annotations

import msgspec


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which services a node keeps registered, beside those of `[[service]]`."""

    services: str = ""
    """Folder of service files, TOML and JSON (docs/agent.md); `--services`. Empty: none."""
    scripts: bool = False
    """Whether checks may run programs: whoever may write service files can then run any as this node's user."""
    key: str = ""
    """Under which key the services are registered: its name, as `aqua-registry key new` makes it, or its file. It is
    read at the node's start. Empty: the node's own."""
    certificates: str = ""
    """File with a certificate for `key`, or folder of files `*.cert`, where resources' policies ask for one. Those in
    the folder `certificates` of the user's data folder are used, too. Empty: those that `certificates` names."""
    owner: str = ""
    """Whose resources those services are on that name no owner: an alias, a peer id, or `me`, the node's own key.
    Empty: the owner that the network's invitation tells, or `me`."""
    owner_keys: tuple[str, ...] = ()
    """Files of other owners' keys, as `aqua-registry key new` makes them: their resources are made when they aren't
    there. A relative path is seen from where the node is started."""
    registrars: tuple[str, ...] = ()
    """Peer ids of the nodes that are asked to make resources whose owner's key isn't here. Empty: those that the
    network's invitation tells."""
    makes_for: tuple[str, ...] = ()
    """Peer ids for which this node makes resources of the owners in `owner_keys`, as a registrar; `anyone`: whoever can
    call it, which in a private network are its peers."""
