"""The times of presence, in seconds, and its bounds; each with its reason. docs/liveness.md tells the rules."""

from __future__ import annotations

from typing import Final

WITNESSES: Final = 5
"""Members nearest to a host's position to whom it beats: three of them speak though two are down, stalled or lie."""
KEEPERS: Final = 8
"""Members nearest to a host's position that have its presence: the witnesses, and those that are asked when too few of
them speak."""
SUBSCRIBED_AT: Final = 2
"""Witnesses of a host at which a replica subscribes: one may be down or lie."""
ALSO_AT: Final = 1
"""Other keepers at which it subscribes: all witnesses may stand still at once, and these see the links, too."""

BEAT: Final = 3.0
"""Between two beats. One takes 0.4 ms at either end: faster than 2.7 they would take more than 0.15 % of a core."""
LATE_BEAT: Final = 6.25
"""Silence after which a witness dials: two beats are lost and the third one is a moment late."""
NO_BEAT: Final = 9.0
"""Silence after which a process is taken for dead: a stall of 5, a beat, and what was lost sent again fit in."""

KERNEL_PING: Final = 2.0
"""Silence of the host's kernel after which it is sent something to acknowledge: two keep-alive probes in a row lost."""
KERNEL_DOUBT: Final = 2.7
"""Silence of the kernel after which a witness dials, and warns subscribers: the ping was sent three times by then."""
KERNEL_DOUBT_EASED: Final = 3.5
KERNEL_EASED_FOR: Final = 60.0
"""The same, for so long after a beat came in spite of the silence: of a path that is cut one way each beat would make
the witness dial and warn."""
KERNEL_DOWN: Final = 4.0
"""Silence of the kernel after which a machine is taken for dead: at 20 % loss no live one was silent for so long that
dialling didn't tell otherwise."""

CONNECTING: Final = 2.0
"""For an answer of the other machine to a connection's first packet, which is sent twice meanwhile."""
OWN_TRY: Final = 2.5
"""For all of a replica's own try, in which the process has to say who it is."""
RETRIED_DIAL: Final = 3.0
"""For dialling a host that is down again."""
MUTE_PAUSE: Final = 0.25
"""Between two dials of a keeper to a machine that answers while its process doesn't."""
PROOF_PATIENCE: Final = 1.0
"""For a proof that was asked for through few, until all are asked."""

STALL: Final = 1.0
"""An own pause after which all clocks of others' silence start anew: what they said waits to be read."""
LOOK: Final = 0.5
"""Between two looks at the clock and at the kernel's figures; so no longer stall goes unnoticed."""
LONG_STALL: Final = 4.0
"""An own pause after which a host tells that it is there before anybody accuses it."""

TRY_COUNTS: Final = 1.5
"""For which a failed try speaks against a host."""
TRY_PAUSE: Final = 0.9
"""Between the beginnings of two tries at least."""
TRY_AGAIN: Final = 4.0
"""After a failed try, until a further word causes another one."""
ASK_PAUSE: Final = 1.0
"""Between two rounds of asking for proof at least."""
ASK_COUNTS: Final = 3.0
"""For which having asked without a proof speaks against a host."""
ASK_ANSWERED: Final = 0.5
"""In which a proof has to come: two hops both ways, at 50 ms each, twice."""
ASK_MORE: Final = 0.4
"""After which the other keepers are asked too, where fewer words came than are enough at once."""

ENOUGH_WORDS: Final = 3
"""Words that are believed at once."""
WITH_WORDS: Final = (5.0, 4.0, 2.0)
"""How long a doubt has to last with no, one and two words: without any a whole verdict of the kernel and a dial."""

WORD_TTL: Final = 30.0
"""For which a word counts at most, on its receiver's clock."""
WORD_RENEWED: Final = 5.0
"""Age from which a word is said anew when somebody asks."""
SPOKEN_LATELY: Final = 2.0
"""Age of a word up to which its witness isn't asked about a hidden host: a thousand may be hidden at once."""

RETRY_SHARE: Final = 4.0
"""A host that is down is tried again after this part of the time for which it is: what comes back late waits longer,
and the dead cost little."""
WITNESS_RETRY: Final = (2.0, 60.0)
"""Shortest and longest pause between two dials of a witness to one that is down."""
REPLICA_RETRY: Final = (1.0, 300.0)
"""Shortest and longest pause between two tries of a replica."""
ASKS_GROW: Final = 4.0
"""Proof of a hidden host is asked for 1, 4, 16 seconds after it was hidden, and so on: many may be hidden at once."""

DISTRUST: Final = (20.0, 600.0)
"""For which a witness that accused one who then proved to be alive isn't listened to; doubles each time."""
HINT_DISTRUST: Final = 10.0
"""For which a hint that was disproved isn't repeated: packets get lost, so hints are wrong more often than words."""

FLAP_WINDOW: Final = 60.0
FLAPS: Final = 3
"""Reappearances within the window from which on a host is held back."""
HOLD: Final = (10.0, 60.0)
"""For which it is held back at first, and at most; doubles each time."""

SELF_DOUBT: Final = 60.0
"""For which who lost most of its home judges nobody, if too few of them answer."""
LOST_WITHIN: Final = 15.0
"""Losses that count together: the kernel's verdict and the end of a silent link lie so far apart."""
FEWEST_ANSWERS: Final = 3
ANSWERS_SHARE: Final = 8
"""Of so many members of the home one has to answer for the doubt to end, but three at least."""

JOIN_PAUSES: Final = (0.25, 0.5)
JOIN_PAUSE: Final = 1.0
JOIN_FAST: Final = 12
JOIN_SLOW: Final = 5.0
"""A host tries to reach a lost witness after 0.25 and 0.5, each second 12 times in all, then every 5: as fast as a
restarted machine comes up, then as often as costs nothing."""
JOINING: Final = 2.0
"""For one such try."""

CLIENT_GRACE: Final = 6.0
"""For which a light client without a node isn't down: it finds another one within 3, and tells so."""
CLIENT_CHALLENGE: Final = 30.0
"""Between two proofs that a witness wants of a light client: its nodes could say for ever that it is there."""
CLIENT_RETRY: Final = 1.0
"""Between two of them while none comes."""
CLIENT_RETRY_DOWN: Final = (2.0, 300.0)
"""Shortest and longest pause between two of them while the client is down: its node tells when it is back."""
CLIENT_NEWS_RATE: Final = 2.0
CLIENT_NEWS_BURST: Final = 20.0
"""How often a second, and at once, a node brings a client's news to its keepers, each of which is eight messages: it
tells what doesn't pass once a second at most."""

BUMP_RATE: Final = 0.2
BUMP_BURST: Final = 4.0
"""How often a second, and at once, an accusation makes a host raise its sequence: a liar could accuse each new one."""
PROOF_RATE: Final = 20.0
PROOF_BURST: Final = 200.0
"""Proofs a second, and at once, that one witness gets of a host; each takes 0.05 ms."""
ASKED_RATE: Final = 2.0
ASKED_BURST: Final = 10.0
"""Requests for a proof of one host, a second and at once, that a keeper passes on for one replica, which has no need of
more than one each `ASK_PAUSE`: else one peer could use up what the host proves to that keeper."""
CHECK_RATE: Final = 100.0
CHECK_BURST: Final = 2000.0
"""Signatures a second, and at once, that are checked of what one peer tells; each takes 0.1 ms."""

MOST_WITNESSED: Final = 4096
"""Hosts that one peer witnesses: a member has 8 on average, and light clients beside them."""
MOST_UNTOLD: Final = 1024
"""Those among them of which others asked and no presence came: peers name whom they like, so the oldest give way."""
NAMED_RATE: Final = 100.0
NAMED_BURST: Final = 4096.0
"""Hosts a second, and at once, that one peer subscribes to, and as many that it asks about: each may cost a message of
5 kB, and nobody has more than `MOST_WITNESSED`."""
UNKNOWN_RATE: Final = 20.0
UNKNOWN_BURST: Final = 512.0
"""The same of hosts that aren't kept, and of those that it tells of as another keeper: who is near to one takes 0.7 ms
to find among 1,000 members."""
FEW_BROUGHT: Final = 64
"""Light clients that one node brought and that have their places even where hosts have none."""
LINKED_RATE: Final = 0.5
LINKED_BURST: Final = 64.0
"""Links a second, and at once, that are tried for the light clients that one peer told of, to nodes of theirs that
weren't heard or reached: ids can be made up, and each costs a lookup."""
MOST_CLIENTS: Final = 4096
"""Light clients whose presence names one node; it has places for fewer."""
MOST_FOLLOWED: Final = 16_384
"""Hosts that one peer follows as a replica."""
MOST_SUBSCRIBERS: Final = 1024
"""Subscribers of one host at one keeper; three of eight keepers have each, so some 2,500 nodes can follow one host."""
MOST_SUBSCRIPTIONS: Final = 131_072
"""Of all hosts together at one keeper; each takes 0.1 kB."""
MOST_ASKERS: Final = 1024
"""Replicas to which proofs of one host are passed on at the same time."""
SUBSCRIPTION: Final = 600.0
"""For which a subscription lasts; it is renewed after half of that, or when the link to the witness was lost."""
MOST_LINKED: Final = 64
"""Peers at which one subscribes, each of which is a link. In networks of more peers than that some hosts may be without
any subscription: they are looked at when somebody reads of them."""
LOOKED_AT: Final = 2.0
"""For which such a look is good enough for the next reader."""
SUBSCRIPTIONS_LOOKED_AT: Final = 10.0
"""Between two looks for subscriptions that have ended, where a witness has as many as it may."""
SUBSCRIBED_AGAIN: Final = 5.0
"""After which a replica that has too few subscriptions, since witnesses weren't reached, tries to have more."""
MOST_TRIES: Final = 512
"""Own tries at the same time."""
FORGOTTEN: Final = 86_400.0
"""After which a witness forgets a host that is down: its records have expired."""
HEARSAY_FORGOTTEN: Final = 300.0
"""The same of one that it never heard, nor any node of it: whoever told of it keeps it."""
MOST_EXCEPTIONS: Final = 4096
"""Bytes of a presence about what doesn't pass."""
MOST_VIA: Final = 4
"""Nodes that a light client may name."""
