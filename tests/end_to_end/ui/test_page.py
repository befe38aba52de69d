"""The page in a browser, of a node in a network that runs.

Screenshots are in the folder that AQUA_REGISTRY_SCREENSHOTS names, where it names one.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import trio

from aqua_compat import connect
from aqua_compat.http.message import AccessLevel
from aqua_compat.http.tokens import Tokens
from aqua_compat.settings import HttpSettings
from registry.model.endpoints import Instance, write_instances
from tests.aqua.npm import Missing, install, or_skip
from tests.end_to_end.ui.browser import Tab, browsing, chromium
from tests.end_to_end.ui.many import made_up_network
from tests.end_to_end.ui.page_node import HOSTILE, furnished, serving, with_hostile
from tests.unit.aqua_compat.http.running import running_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CONNECTED = "document.body.dataset.connected === 'true'"
ROWS = "[...document.querySelectorAll('#services-list > li:not([hidden])')]"
PHONE = 360  # pixels
VISITS = 12
PAINTED = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"
"""Milliseconds since the navigation, once what is there now is on the screen."""


@pytest.fixture(scope="module", autouse=True)
def browser_is_there() -> None:
    chromium()


@pytest.fixture(scope="module")
def axe() -> str:
    """What checks a page for accessibility."""
    project = Path(__file__).parent
    try:
        install(project)
    except Missing as missing:
        or_skip(missing)
    return (project / "node_modules" / "axe-core" / "axe.min.js").read_text()


async def main_thread_seconds(tab: Tab) -> float:
    """What the page's main thread has computed since the navigation."""
    metrics = (await tab.call("Performance.getMetrics"))["metrics"]
    return sum(each["value"] for each in metrics if each["name"] == "TaskDuration")


async def keep_screenshot(tab: Tab, name: str) -> None:
    folder = os.environ.get("AQUA_REGISTRY_SCREENSHOTS")
    if folder:
        await tab.screenshot(Path(folder) / f"{name}.png")


async def choose(tab: Tab, name: str) -> None:
    await tab.evaluate(f"location.hash = '#/' + encodeURIComponent({json.dumps(name)})")


async def no_violations(tab: Tab, axe: str) -> None:
    await tab.evaluate(axe + "; undefined")
    found = await tab.evaluate(
        "axe.run(document, {resultTypes: ['violations']}).then((ran) => ran.violations.map((each) =>"
        " [each.id, each.help, each.nodes.slice(0, 5).map((node) => node.html + ' ' + node.failureSummary)]))"
    )
    assert found == [], json.dumps(found, indent=1)


async def no_wider_than_the_window(tab: Tab) -> None:
    wide = await tab.evaluate(
        "[...document.querySelectorAll('body *')].filter((each) => each.getBoundingClientRect().right > innerWidth + 1"
        " && !each.closest('svg') && getComputedStyle(each).position !== 'absolute').map((each) => each.outerHTML"
        ".slice(0, 200))"
    )
    assert wide == []
    assert await tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


async def test_the_page_shows_the_network_and_a_kill_at_once(tmp_path: Path, axe: str) -> None:
    async with serving(tmp_path) as served, furnished(served) as web, browsing(tmp_path) as tab:
        own = served.nodes[0].peer_id
        await tab.open(served.page)
        await tab.until(CONNECTED)
        await tab.until(f"{ROWS}.length === 5")
        await tab.until("document.querySelectorAll('#ring circle.dot').length === 6")
        assert await tab.evaluate("document.querySelectorAll('#ring .line.link').length") == 5
        assert own in await tab.evaluate("document.getElementById('node-facts').innerText")
        # The list tells how services are that nobody chose.
        await tab.until(f"{ROWS}.some((row) => row.innerText.includes('mail') && row.innerText.includes('1 critical'))")
        await tab.until(f"{ROWS}.some((row) => row.innerText.includes('db') && row.innerText.includes('1 warning'))")
        await no_violations(tab, axe)

        # By the keyboard alone: what is typed is searched, Enter opens it, and the focus goes to what was opened.
        await tab.evaluate("document.getElementById('query').focus()")
        await tab.type("web")
        await tab.until(f"{ROWS}.length === 1")
        await tab.press("Enter", 13, "\r")
        await tab.until("document.querySelectorAll('#records-body .record.passing').length === 3")
        assert await tab.evaluate("document.activeElement.id") == "resource-title"
        await tab.until("document.querySelectorAll('#keepers-body li').length === 6")
        await tab.until("document.getElementById('changes-state').innerText === 'watching web'")
        await tab.until("document.querySelectorAll('#ring .line.keeps').length === 6")
        text = await tab.evaluate("document.getElementById('resource').innerText")
        for told in (web, "http://192.0.2.2:8080", "v2, eu", "eu-3", "anybody: it has no policy", "stored", own):
            assert told in text, text
        await tab.evaluate("document.getElementById('query').value = ''")
        await tab.evaluate("document.getElementById('query').dispatchEvent(new Event('input'))")
        await no_violations(tab, axe)
        await keep_screenshot(tab, "light")
        await tab.show(dark=True)
        await no_violations(tab, axe)
        await keep_screenshot(tab, "dark")
        await tab.show()

        killed = served.nodes[3]
        await tab.evaluate("document.getElementById('members').open = true")
        since = trio.current_time()
        await killed.kill()
        await tab.until("document.querySelectorAll('#records-body .record.down').length === 1", within=2)
        await tab.until(f"{ROWS}.some((row) => row.innerText.includes('web') && row.innerText.includes('1 down'))", 2)
        print(f"down after {trio.current_time() - since:.2f} s")  # noqa: T201 - the figure
        down = "document.querySelector('#records-body .record.down').innerText"
        assert killed.peer_id in await tab.evaluate(down)
        assert "down" in await tab.evaluate("document.getElementById('changes-list').firstChild.innerText")
        await tab.until("document.querySelectorAll('#ring circle.gone').length === 1", within=2)
        await tab.until(
            f"document.getElementById('members-list').innerText.includes('{killed.peer_id} down')", within=6
        )

        # A choice of colours holds for the next visit, whatever the system says.
        await tab.evaluate("document.getElementById('theme').click()")
        assert await tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(14, 21, 25)"
        await tab.open(served.page + "?again=1#/mail@me")
        await tab.until("document.querySelectorAll('#records-body .record.critical').length === 1")
        assert await tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(14, 21, 25)"
        await tab.evaluate("document.getElementById('theme').click()")

        await tab.show(width=PHONE, height=740)
        await no_wider_than_the_window(tab)
        await no_violations(tab, axe)
        await choose(tab, "web@me")
        await tab.until("document.querySelectorAll('#records-body .record').length === 3")
        await no_wider_than_the_window(tab)
        await keep_screenshot(tab, "phone")

        # Another owner's resources, by its id; and what isn't there is told.
        await tab.show()
        await tab.evaluate("document.getElementById('query').focus()")
        await tab.type(served.nodes[1].peer_id)
        await tab.press("Enter", 13, "\r")
        await tab.until("document.getElementById('services-count').innerText === 'no services'")
        assert tab.problems == []
        await choose(tab, "nobody has this@me")
        await tab.until("document.querySelector('#resource-body [role=alert]')")
        # The browser itself notes the answer's 404; nothing else.
        assert [each for each in tab.problems if "404" not in each] == []


async def test_each_instance_of_a_record_is_shown_as_it_is(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, browsing(tmp_path) as tab:
        host, pair = served.nodes[4].peer_id, await served.create("pair")
        value = write_instances([Instance(id=each, address="192.0.2.1", port=80) for each in ("left", "right")])
        async with connect(served.nodes[1].address) as client:
            assert (await client.registry.register_service(pair, value, host, "web", ttl=600)).success
            await client.set_health(pair, "passing", peer_id=host, ttl=600)
            await client.set_health(pair, "critical", "no disk", peer_id=host, instance="right", ttl=600)
            await tab.open(served.page + "#/pair@me")
            instances = "[...document.querySelectorAll('#records-body .instances > li')].map((each) => each.innerText)"
            await tab.until(f"{instances}.some((text) => text.includes('right') && text.includes('critical no disk'))")
            await tab.until(f"{instances}.some((text) => text.includes('left') && text.includes('passing'))")
            await tab.until("document.getElementById('changes-state').innerText === 'watching pair'")
            await client.set_health(pair, "warning", "hot", peer_id=host, instance="left", ttl=600)
            await tab.until(f"{instances}.some((text) => text.includes('left') && text.includes('warning'))")
            changes = "document.getElementById('changes-list').innerText"
            await tab.until(f"{changes}.includes('left warning')")
            assert "right" not in await tab.evaluate(changes), "what is as before isn't told again"
        assert tab.problems == []


async def test_hostile_texts_are_only_texts(tmp_path: Path, axe: str) -> None:
    async with serving(tmp_path) as served, with_hostile(served) as names, browsing(tmp_path) as tab:
        await tab.show(width=PHONE, height=740)
        await tab.open(served.page)
        await tab.until(f"{ROWS}.length === {len(HOSTILE)}")
        for name, text in names.items():
            await choose(tab, name)
            await tab.until("document.querySelectorAll('#records-body .record').length === 2")
            await tab.until("document.querySelectorAll('#ring .line.keeps').length > 1")
            visible = "".join(each if each.isprintable() else "\ufffd" for each in text)
            shown = await tab.evaluate("document.getElementById('resource-body').textContent")
            # The value; the note and the instance, where they may have it.
            assert shown.count(visible) >= (3 if text.isprintable() else 1), (text, shown)
            assert visible in await tab.evaluate("document.getElementById('resource-title').textContent")
            await tab.until(f"document.getElementById('ring-text').textContent.includes({json.dumps(visible)})")
            await no_wider_than_the_window(tab)
        assert await tab.evaluate("window.hacked") is None
        made = "document.querySelectorAll('img, iframe, body script, svg svg, textarea').length"
        assert await tab.evaluate(made) == 0
        # Had a text become markup, it would have run nothing all the same: the browser refuses it.
        refused = "(() => { try { document.body.innerHTML = '<p>'; } catch (error) { return error.name; } })()"
        assert await tab.evaluate(refused) == "TypeError"
        await no_violations(tab, axe)


async def test_where_tokens_are_asked_for_it_asks_for_one(tmp_path: Path, axe: str) -> None:
    token = Tokens(tmp_path / "node").create("page", AccessLevel.READ, 1)
    async with (
        running_server(tmp_path / "node", HttpSettings(listen="127.0.0.1:0")) as running,
        browsing(tmp_path) as tab,
    ):
        await running.node.registry.create_resource("secret")
        await tab.open(f"http://{running.server.address}/ui/")
        await tab.until("document.activeElement.id === 'token-value'")
        assert await tab.evaluate(f"{ROWS}.length") == 0
        await no_violations(tab, axe)
        await tab.type(token)
        await tab.press("Enter", 13, "\r")
        await tab.until(f"{ROWS}.length === 1")
        await choose(tab, "secret@me")
        await tab.until("document.getElementById('changes-state').innerText === 'watching secret'")
        assert await tab.evaluate("document.getElementById('token').hidden")


async def test_a_thousand_services_and_two_hundred_nodes_render_within_a_second(tmp_path: Path) -> None:
    async with made_up_network(200, 1000) as page, browsing(tmp_path) as tab:
        took: list[float] = []
        busy: list[float] = []
        await tab.call("Performance.enable", timeDomain="threadTicks")
        # What else runs on the machine adds to the clock's time: one visit has to make it.
        while len(took) < VISITS and min(took, default=1000) >= 1000:
            await tab.open(f"{page}?visit={len(took)}")
            await tab.until(
                "document.querySelectorAll('#services-list li').length === 1000"
                " && document.querySelectorAll('#ring circle.dot').length === 200"
            )
            took.append(await tab.evaluate(PAINTED))
            busy.append(1000 * await main_thread_seconds(tab))
        for what, figures in (("from the navigation to the paint", took), ("of the page's thread", busy)):
            print(f"ms {what}: {sorted(map(round, figures))}")  # noqa: T201 - the figures
        await keep_screenshot(tab, "many")
        assert min(took) < 1000, took
        assert max(busy) < 1000, busy
        sifted = await tab.evaluate(
            "(() => { const query = document.getElementById('query'); query.value = '00999'; const since ="
            " performance.now(); query.dispatchEvent(new Event('input')); document.body.offsetHeight;"
            " return performance.now() - since; })()"
        )
        print(f"ms to search: {sifted:.1f}")  # noqa: T201 - the figure
        assert await tab.evaluate(f"{ROWS}.length") == 1
        assert tab.problems == []
