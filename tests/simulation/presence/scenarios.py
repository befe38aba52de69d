"""What goes wrong in the simulated network, each with what came of it: one line of docs/liveness.md's table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from overlay.presence.timings import WITNESSES
from tests.simulation.presence.machines import Cut, Outage, Trouble
from tests.simulation.presence.world import Lie, World

SETTLED: Final = 10.0  # seconds after which nothing that lives is hidden


class Row(Struct, frozen=True):
    """What came of one scenario."""

    fault: str
    hidden: tuple[float, ...] = ()
    """Seconds from the death to the hiding, for each host and replica."""
    never: int = 0
    """Pairs of them that weren't hidden in the end, though the host was dead."""
    again: tuple[float, ...] = ()
    """Seconds from being back to being listed again."""
    live_hidden: int = 0
    """Times that a replica hid a host that ran, and had run for a second, though they reached each other."""
    stuck: int = 0
    """Hosts still hidden at the end, more than `SETTLED` after all was well."""
    messages: float = 0.0
    """Of a node, a second."""
    core: float = 0.0
    """Part of a core that a node takes."""
    words: int = 0
    note: str = ""
    tries: int = 0
    """Hosts that something was done to that mustn't hide them; 0 where the scenario has none."""


def together(rows: Sequence[Row]) -> Row:
    """What came of a scenario in several runs: all times, the sums of what is counted, and means of what it costs."""
    return replace(
        rows[0],
        hidden=tuple(time for row in rows for time in row.hidden),
        never=sum(row.never for row in rows),
        again=tuple(time for row in rows for time in row.again),
        live_hidden=sum(row.live_hidden for row in rows),
        stuck=sum(row.stuck for row in rows),
        messages=sum(row.messages for row in rows) / len(rows),
        core=sum(row.core for row in rows) / len(rows),
        words=sum(row.words for row in rows),
        tries=sum(row.tries for row in rows),
    )


def percentiles(values: Sequence[float]) -> str:
    """The 50th and 99th, and the greatest."""
    if not values:
        return "-"
    ranked = sorted(values)
    p50, p99 = (ranked[min(len(ranked) - 1, int(len(ranked) * part))] for part in (0.5, 0.99))
    return f"{p50:.2f} / {p99:.2f} / {ranked[-1]:.2f}"


def victims(
    world: World, share: float, kind: Trouble, *, until: float = math.inf, after: float = 20.0
) -> dict[int, Outage]:
    """Hosts that suffer once; `until`: seconds until they are back."""
    chosen = world.randomness.sample(range(world.count), max(1, int(world.count * share)))
    found: dict[int, Outage] = {}
    for host in chosen:
        start = world.randomness.uniform(after, max(after + 1.0, world.seconds - 45.0))
        found[host] = Outage(start, start + until, kind)
        world.machines.outages[host].append(found[host])
    return found


def stalls(world: World, share: float, seconds: float, *, every: float = 20.0) -> None:
    """Part of the nodes stand still for so long, every 20 s on average."""
    for host in world.randomness.sample(range(world.count), int(world.count * share)):
        start = 3.0 + world.randomness.expovariate(1 / every)
        while start < world.seconds:
            world.machines.outages[host].append(Outage(start, start + seconds, Trouble.STALLED))
            start += seconds + 0.2 + world.randomness.expovariate(1 / every)


def outcome(world: World, fault: str, suffered: dict[int, Outage] | None = None, *, note: str = "") -> Row:
    """What came of a world that has run."""
    machines, suffered = world.machines, suffered or {}
    live, hidden, again, listed_off = 0, [], [], {}
    seen: set[tuple[int, int]] = set()
    for change in world.changes:
        pair = change.replica, change.host
        if change.replica in suffered:
            continue  # it missed things itself
        outage = suffered.get(change.host)
        if change.is_listed:
            listed_off.pop(pair, None)
            if outage is not None and change.at >= outage.end:
                again.append(change.at - outage.end)
            continue
        listed_off[pair] = change.at
        if outage is not None and outage.start <= change.at < outage.end + 3 and pair not in seen:
            seen.add(pair)
            hidden.append(change.at - outage.start)
            continue
        reach = not machines.is_cut(*pair, change.at) and not machines.is_cut(change.host, change.replica, change.at)
        runs = machines.outage(change.host, change.at) is None
        runs = runs and change.at - machines.woke_at(change.host, change.at) > 1
        live += reach and runs
    never = sum(
        (replica, host) not in seen
        for host, outage in suffered.items()
        for replica in world.replicas[host]
        if min(outage.end, world.seconds) - outage.start > 12
        and machines.outage(replica, outage.start + 12) is None
        and replica not in suffered
    )
    stuck = sum(
        machines.outage(host, world.now) is None
        and machines.outage(replica, world.now) is None
        and not machines.is_cut(replica, host, world.now)
        and world.now - max(at, _well_since(world, replica), _well_since(world, host)) > SETTLED
        for (replica, host), at in listed_off.items()
        if not _is_held(world, replica, host)
    )
    size = world.count * world.seconds
    messages, core = world.sent.total() / size, sum(world.cpu) / size
    return Row(fault, tuple(hidden), never, tuple(again), live, stuck, messages, core, world.sent["Said"], note)


def _well_since(world: World, machine: int) -> float:
    healed = max((cut.end for cut in world.machines.cuts if cut.end <= world.now), default=-math.inf)
    return max(healed, world.machines.woke_at(machine, world.now))


def _is_held(world: World, replica: int, host: int) -> bool:
    view = world.nodes[replica].view_of(world.names[host])
    return view is None or view.state.name == "HELD" or view.is_listed


def idle(count: int, seed: int, scale: float) -> Row:
    """Nothing happens."""
    return outcome(World(count, seed, seconds=300 * scale).run(), "idle")


def one_dies(kind: Trouble, name: str, until: float = math.inf) -> Callable[[int, int, float], Row]:
    """A tenth of the hosts suffer, one after the other."""

    def scenario(count: int, seed: int, scale: float) -> Row:
        world = World(count, seed, seconds=60 + 340 * scale)
        suffered = victims(world, 0.1, kind, until=until)
        return outcome(world.run(), name, suffered)

    return scenario


def stalling(share: float, seconds: float, *, loss: float = 0.0) -> Callable[[int, int, float], Row]:
    """Part of the nodes stall, and packets get lost."""

    def scenario(count: int, seed: int, scale: float) -> Row:
        world = World(count, seed, seconds=900 * scale, loss=loss, home=12 if loss else 28)
        stalls(world, share, seconds)
        lost = f"{loss:.0%} loss, " if loss else ""
        hours = f"{count * world.seconds / 3600:.0f} node-hours"
        return outcome(world.run(), f"{lost}{share:.0%} stall {seconds:g}, {hours}")

    return scenario


def lossy_vanish(count: int, seed: int, scale: float) -> Row:
    """Machines vanish where a fifth of the packets get lost."""
    world = World(count, seed, seconds=60 + 240 * scale, loss=0.2, home=12)
    suffered = victims(world, 0.1, Trouble.VANISHED)
    return outcome(world.run(), "20% loss, machine vanishes", suffered)


def dying_among_stalls(kind: Trouble, name: str) -> Callable[[int, int, float], Row]:
    """Hosts die while others stall."""

    def scenario(count: int, seed: int, scale: float) -> Row:
        world = World(count, seed, seconds=60 + 240 * scale)
        stalls(world, 0.1, 5.0)
        well = [host for host in range(count) if not world.machines.outages[host]]
        suffered = {}
        for host in world.randomness.sample(well, max(1, count // 10)):
            suffered[host] = Outage(world.randomness.uniform(20, world.seconds - 40), math.inf, kind)
            world.machines.outages[host].append(suffered[host])
        return outcome(world.run(), name, suffered)

    return scenario


def one_way_cuts(cut_off: int) -> Callable[[int, int, float], Row]:
    """Each host and some of its witnesses hear each other one way only."""

    def scenario(count: int, seed: int, scale: float) -> Row:
        world, pairs = World(count, seed, seconds=60 + 200 * scale), set()
        for host in range(count):
            for witness in world.randomness.sample(world.near[host][:WITNESSES], cut_off):
                pairs.add((witness, host) if world.randomness.random() < 0.5 else (host, witness))
        world.machines.cuts.append(Cut(30.0, world.seconds - 20, lambda one, other: (one, other) in pairs))
        row = outcome(world.run(), f"one-way cuts to {cut_off} witnesses")
        return replace(row, tries=count)

    return scenario


def halves(count: int, seed: int, scale: float) -> Row:
    """The network falls into halves for 30 s."""
    world = World(count, seed, seconds=100.0)
    side = [world.randomness.random() < 0.5 for _ in range(count)]
    world.machines.cuts.append(Cut(30.0, 60.0, lambda one, other: side[one] != side[other]))
    world.run()
    row = outcome(world, "halves for 30")
    gone = [change.at - 30 for change in world.changes if not change.is_listed]
    back = [change.at - 60 for change in world.changes if change.is_listed]
    return replace(row, hidden=tuple(gone), again=tuple(back))


def sides(count: int, seed: int, scale: float) -> Row:
    """The network falls into halves for 40 s, with hosts and replicas of all resources on both sides: each side goes on
    with its own hosts, and hides the others."""
    world = World(count, seed, seconds=110.0)
    side = [world.randomness.random() < 0.5 for _ in range(count)]
    world.machines.cuts.append(Cut(30.0, 70.0, lambda one, other: side[one] != side[other]))
    found = [0, 0]

    def look() -> None:
        for host in range(count):
            for replica in world.replicas[host]:
                view = world.nodes[replica].view_of(world.names[host])
                is_listed = view is not None and view.is_listed
                if is_listed != (side[host] == side[replica]):
                    found[is_listed] += 1

    world.at(60.0, 0, -1, look)
    row = outcome(world.run(), "halves for 40, hosts on both sides")
    gone = [change.at - 30 for change in world.changes if not change.is_listed]
    back = [change.at - 70 for change in world.changes if change.is_listed]
    return replace(row, hidden=tuple(gone), again=tuple(back), never=found[1], live_hidden=row.live_hidden + found[0])


def with_witnesses(kind: Trouble, name: str) -> Callable[[int, int, float], Row]:
    """Hosts die at the same moment as all five of their witnesses."""

    def scenario(count: int, seed: int, scale: float) -> Row:
        world = World(count, seed, seconds=50 + 100 * scale)
        suffered: dict[int, Outage] = {}
        for host in world.randomness.sample(range(count), max(1, count // 40)):
            outage = Outage(world.randomness.uniform(20, 25 + 100 * scale), math.inf, kind)
            for victim in (host, *world.near[host][:WITNESSES]):
                if victim not in suffered:
                    suffered[victim] = outage
                    world.machines.outages[victim].append(outage)
        return outcome(world.run(), name, suffered)

    return scenario


def witnesses_stall(kind: Trouble | None, seconds: float, name: str) -> Callable[[int, int, float], Row]:
    """All five witnesses of some hosts stand still for so long; the hosts die meanwhile, if there is a `kind`."""

    def scenario(count: int, seed: int, scale: float) -> Row:
        world = World(count, seed, seconds=70 + 200 * scale)
        suffered: dict[int, Outage] = {}
        stalled: set[int] = set()
        for host in world.randomness.sample(range(count), max(1, count // 20)):
            start = world.randomness.uniform(20, 25 + 200 * scale)
            witnesses = {*world.near[host][:WITNESSES]}
            if stalled & {host, *witnesses} or suffered.keys() & witnesses:
                continue  # each suffers once
            stalled |= witnesses
            for witness in witnesses:
                world.machines.outages[witness].append(Outage(start, start + seconds, Trouble.STALLED))
            if kind is not None:
                suffered[host] = Outage(start + 0.5, math.inf, kind)
                world.machines.outages[host].append(suffered[host])
        row = outcome(world.run(), name, suffered)
        hidden: dict[tuple[int, int], float] = {}
        for change in world.changes:
            if change.host in suffered and not change.is_listed:  # a witness may follow it, too: from when it goes on
                since = max(suffered[change.host].start, world.machines.woke_at(change.replica, change.at))
                hidden.setdefault((change.replica, change.host), change.at - since)
        return replace(row, hidden=tuple(hidden.values()))

    return scenario


def blackout(count: int, seed: int, scale: float) -> Row:
    """All nodes are killed at the same moment, and all start again within 2 s, 10 s later."""
    world = World(count, seed, seconds=80.0)
    for host in range(count):
        world.machines.outages[host].append(Outage(20.0, 30 + world.randomness.uniform(0, 2), Trouble.KILLED))
    world.run()
    return outcome(world, "all killed at once, back after 10")


def site(share: float, kind: Trouble, name: str) -> Callable[[int, int, float], Row]:
    """A part of the network dies at once."""

    def scenario(count: int, seed: int, scale: float) -> Row:
        world = World(count, seed, seconds=60.0)
        suffered = {
            host: Outage(20.0, math.inf, kind) for host in world.randomness.sample(range(count), int(count * share))
        }
        for host, outage in suffered.items():
            world.machines.outages[host].append(outage)
        spent: list[float] = []
        dials: list[int] = []
        for when in (19.9, 35.0):
            world.at(when, 0, -1, lambda: (spent.append(sum(world.cpu)), dials.append(world.dials)))  # type: ignore[func-returns-value]
        world.run()
        left = count - len(suffered)
        core, dialled = (spent[1] - spent[0]) / left, (dials[1] - dials[0]) / left
        note = f"{core:.2f} core-s and {dialled:.0f} dials a survivor in 15 s"
        return outcome(world, name, suffered, note=note)

    return scenario


def one_replica(kind: Trouble, name: str) -> Callable[[int, int, float], Row]:
    """A third of the nodes, all followed and read of by the same one, die at the same moment."""

    def scenario(count: int, seed: int, scale: float) -> Row:
        world = World(count, seed, seconds=45.0, replicas=0)
        replica, *hosts = world.randomness.sample(range(count), count // 3 + 1)
        world.add_replica(replica, hosts)
        suffered = {host: Outage(20.0, math.inf, kind) for host in hosts}
        for host, outage in suffered.items():
            world.machines.outages[host].append(outage)
        world.at(19.0, 0, replica, world.read, replica)
        spent: list[float] = []
        for when in (19.9, 35.0):
            world.at(when, 0, -1, lambda: spent.append(world.cpu[replica]))
        world.run()
        core, others = spent[1] - spent[0], (sum(world.cpu) - world.cpu[replica]) / count
        note = f"{core:.1f} core-s of the replica in 15 s for {len(hosts)} hosts, {others:.2f} of each other in all"
        note += f"; {world.links_made[replica]} links made by the replica"
        return outcome(world, name, suffered, note=note)

    return scenario


def followed_by_all(kind: Trouble, name: str) -> Callable[[int, int, float], Row]:
    """Some hosts that all other nodes follow die, one after the other."""

    def scenario(count: int, seed: int, scale: float) -> Row:
        world = World(count, seed, seconds=60.0, replicas=0)
        hosts = world.randomness.sample(range(count), 2)
        for replica in range(count):
            world.add_replica(replica, [host for host in hosts if host != replica])
        first, second = (Outage(start, math.inf, kind) for start in (20.0, 40.0))
        suffered = dict(zip(hosts, (first, second), strict=True))
        for host, outage in suffered.items():
            world.machines.outages[host].append(outage)
        spent: list[list[float]] = []
        for when in (19.9, 30.0):
            world.at(when, 0, -1, lambda: spent.append([*world.cpu]))
        world.run()
        shares = sorted((after - before for before, after in zip(*spent, strict=True)), reverse=True)
        note = f"{sum(shares) / count * 1000:.0f} ms of CPU a node in 10 s, at most {shares[0]:.2f} s"
        return outcome(world, name, suffered, note=note)

    return scenario


def mass_restart(count: int, seed: int, scale: float) -> Row:
    """All nodes restart within 10 s; 3 % don't come back."""
    world = World(count, seed, seconds=90.0)
    gone = {}
    for host in range(count):
        start = world.randomness.uniform(20, 30)
        end = start + world.randomness.uniform(1, 5)
        if world.randomness.random() < 0.03:
            end = math.inf
            gone[host] = Outage(start, end, Trouble.KILLED)
        world.machines.outages[host].append(Outage(start, end, Trouble.KILLED))
    world.run()
    row = outcome(world, "all restart within 10")
    hidden, again, shown = [], [], 0
    for change in world.changes:
        replica = world.machines.outages[change.replica][0]
        host = world.machines.outages[change.host][0]
        if change.is_listed:
            again.append(change.at - max(replica.end, host.end))
        elif change.host in gone and change.at > 25:
            hidden.append(change.at - max(world.machines.woke_at(change.replica, change.at), host.start))
    for host in gone:
        for replica in world.replicas[host]:
            view = world.nodes[replica].view_of(world.names[host])
            shown += replica not in gone and view is not None and view.is_listed
    return replace(row, hidden=tuple(hidden), never=shown, again=tuple(again))


def liars(number: int, *, say_down: bool) -> Callable[[int, int, float], Row]:
    """Of a tenth of the hosts so many witnesses lie: they say "down" of all, or nothing of anybody."""

    def scenario(count: int, seed: int, scale: float) -> Row:
        world = World(count, seed, seconds=60 + 140 * scale)
        hosts = world.randomness.sample(range(count), max(1, count // 10))
        for host in hosts:
            for witness in world.near[host][:number]:
                world.lies[witness] = Lie(say_down)
        suffered = {}
        if not say_down:
            for host in hosts:
                if host in world.lies:
                    continue
                suffered[host] = Outage(40.0, math.inf, Trouble.VANISHED)
                world.machines.outages[host].append(suffered[host])
                for replica in world.replicas[host]:
                    world.at(41.0 + world.randomness.random(), 0, replica, world.complain, replica, host)
        name = f"{number} of 5 witnesses " + ("lie" if say_down else "withhold, machine vanishes")
        row = outcome(world.run(), name, suffered)
        accused = sum(
            sum(witness in world.lies for witness in world.near[host][:WITNESSES]) >= number for host in range(count)
        )
        return replace(row, tries=accused if say_down else 0)

    return scenario


def flapping(count: int, seed: int, scale: float) -> Row:
    """Hosts that die every 20 s, for 5 s each."""
    world = World(count, seed, seconds=60 + 200 * scale)
    chosen = world.randomness.sample(range(count), max(1, count // 20))
    for host in chosen:
        start = 20.0
        while start < world.seconds - 30:
            world.machines.outages[host].append(Outage(start, start + 5, Trouble.KILLED))
            start += 20.0
    world.run()
    pairs = sum(len(world.replicas[host]) for host in chosen)
    changes = sum(change.host in chosen for change in world.changes) / pairs / ((world.seconds - 50) / 60)
    return outcome(world, "killed every 20 for 5", note=f"{changes:.1f} changes a minute and replica")


def busy(count: int, seed: int, scale: float) -> Row:
    """Every process stands still for more than a second again and again, for want of CPU, and hosts are killed."""
    world = World(count, seed, seconds=60 + 140 * scale)
    suffered = {
        host: Outage(world.randomness.uniform(20, world.seconds - 30), math.inf, Trouble.KILLED)
        for host in world.randomness.sample(range(count), max(1, count // 10))
    }
    stalls(world, 1.0, 1.3, every=1.5)
    for host, death in suffered.items():
        before = [outage for outage in world.machines.outages[host] if outage.end < death.start]
        world.machines.outages[host] = [*before, death]
    return outcome(world.run(), "kill -9, all stall 1.3 every 3", suffered)


def broken_links(count: int, seed: int, scale: float) -> Row:
    """Links break now and then though both machines are well, as on busy ones, and hosts are killed meanwhile."""
    world = World(count, seed, seconds=60 + 140 * scale)
    suffered = victims(world, 0.1, Trouble.KILLED)
    for own in range(count):
        for other in world.linked[own]:
            when = world.randomness.expovariate(1 / 15)
            while own < other and when < world.seconds:
                world.at(when, 0, -1, world.break_link, own, other, world.randomness.uniform(0.05, 3.0))
                when += 3.0 + world.randomness.expovariate(1 / 15)
    return outcome(world.run(), "kill -9, links break every 18", suffered)


SCENARIOS: Final[dict[str, Callable[[int, int, float], Row]]] = {
    "idle": idle,
    "kill": one_dies(Trouble.KILLED, "kill -9"),
    "killback": one_dies(Trouble.KILLED, "kill -9, back after 6", 6.0),
    "vanish": one_dies(Trouble.VANISHED, "machine vanishes"),
    "freeze": one_dies(Trouble.STALLED, "frozen for good"),
    "frozen3": one_dies(Trouble.STALLED, "frozen 3", 3.0),
    "frozen5": one_dies(Trouble.STALLED, "frozen 5", 5.0),
    "frozen8": one_dies(Trouble.STALLED, "frozen 8", 8.0),
    "frozen15": one_dies(Trouble.STALLED, "frozen 15", 15.0),
    "stall10": stalling(0.1, 5.0),
    "stall30": stalling(0.3, 10.0),
    "killstall": dying_among_stalls(Trouble.KILLED, "kill -9, 10% stall 5"),
    "vanishstall": dying_among_stalls(Trouble.VANISHED, "machine vanishes, 10% stall 5"),
    "busy": busy,
    "brokenlinks": broken_links,
    "loss": stalling(0.0, 5.0, loss=0.2),
    "lossstall": stalling(0.1, 5.0, loss=0.2),
    "lossvanish": lossy_vanish,
    "oneway1": one_way_cuts(1),
    "oneway2": one_way_cuts(2),
    "halves": halves,
    "sides": sides,
    "withwitnesses": with_witnesses(Trouble.VANISHED, "vanishes with its 5 witnesses"),
    "withwitnesseskill": with_witnesses(Trouble.KILLED, "kill -9 with its 5 witnesses"),
    "witnessesstall8": witnesses_stall(None, 8.0, "its 5 witnesses stall 8"),
    "witnessesstall": witnesses_stall(None, 20.0, "its 5 witnesses stall 20"),
    "witnessesstallkill": witnesses_stall(Trouble.KILLED, 20.0, "kill -9, its 5 witnesses stall 20"),
    "blackout": blackout,
    "site30": site(0.3, Trouble.VANISHED, "30% site vanishes"),
    "site30kill": site(0.3, Trouble.KILLED, "30% site is killed"),
    "site60": site(0.6, Trouble.VANISHED, "60% site vanishes"),
    "onereplica": one_replica(Trouble.KILLED, "a third of the nodes is killed, one replica"),
    "onereplicavanish": one_replica(Trouble.VANISHED, "a third of the nodes vanishes, one replica"),
    "followedbyall": followed_by_all(Trouble.KILLED, "kill -9, followed by all"),
    "followedbyallvanish": followed_by_all(Trouble.VANISHED, "vanishes, followed by all"),
    "restart": mass_restart,
    "lie2": liars(2, say_down=True),
    "lie5": liars(5, say_down=True),
    "withhold2": liars(2, say_down=False),
    "withhold5": liars(5, say_down=False),
    "flap": flapping,
}
"""By name; each takes how many nodes, the seed, and the part of the time that the whole table takes."""
