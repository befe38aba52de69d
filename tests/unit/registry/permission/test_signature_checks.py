"""How many signatures a policy costs whoever stores a record: counted where they are checked."""

from __future__ import annotations

import sys
from types import FrameType

from overlay import identity as overlay_identity
from overlay.membership.certificate import encode_chain
from registry.model.policy_withholding import why_withheld
from registry.model.values import Key, Record
from registry.model.verification import check_key, check_record
from registry.permission.policy import Policy
from registry.settings import RegistrySettings
from tests.unit.registry.builders import NOW, OWNER, a_certificate, a_key, a_record, identity, keys_of

RULES = RegistrySettings()
ROOT, MIDDLE, LAST, SUBJECT = (identity(number) for number in range(900, 904))


def checks(key: Key, record: Record) -> int:
    counted = 0

    def note(frame: FrameType, event: str, _: object) -> None:
        nonlocal counted
        counted += event == "call" and frame.f_code is overlay_identity.verify.__code__

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        check_key(key, NOW, RULES)
        check_record(record, NOW, RULES)
        assert why_withheld(key, record, NOW) is None
    finally:
        sys.setprofile(before)
    return counted


def test_a_first_registration_costs_at_most_four_signature_checks_more_and_what_is_issued_anew_none() -> None:
    chain = [a_certificate(ROOT, MIDDLE, depth=2), a_certificate(MIDDLE, LAST, depth=1), a_certificate(LAST, SUBJECT)]
    guarded = a_key("counted", OWNER, policy=Policy(revision=1, roots=keys_of(ROOT)))
    opened = a_key("counted openly", OWNER)
    solution = encode_chain(chain)
    added = [
        checks(guarded, a_record(guarded.id, SUBJECT, SUBJECT, issued, solution=solution))
        - checks(opened, a_record(opened.id, SUBJECT, SUBJECT, issued))
        for issued in (NOW - 1, NOW)
    ]
    assert 0 < added[0] <= 4
    assert added[1] == 0
