"""Links of a peer that doesn't answer as its software would."""

from __future__ import annotations

from overlay.rpc.links import Links
from overlay.rpc.server import Handler


class LyingLinks(Links):
    """Answers a method by what `lies` holds for it at that time, else as it should."""

    lies: dict[str, Handler]

    def serve(self, method: str, handler: Handler) -> None:
        async def answer(caller: str, body: object) -> object:
            return await self.lies.get(method, handler)(caller, body)

        super().serve(method, answer)
