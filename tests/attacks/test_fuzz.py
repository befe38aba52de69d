"""A fixed part of the fuzzer's inputs, each time, and that it finds what it looks for."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import cbor2
import pytest

from overlay.limits.decoder import DecodeError, decode
from tests.attacks.fuzz.driver import BUDGET, MOST_FAULTS, REFERENCE, USUAL, input_of, run
from tests.attacks.fuzz.mutation import CBOR, PROTOBUF, Repeated, dump_cbor, load_protobuf
from tests.attacks.fuzz.parsers import PARSERS, Parser
from tests.attacks.fuzz.share import Share, try_in_process

SEED = 4
INPUTS = 100  # of each parser: some seconds in all


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_no_input_breaks_a_parser_or_holds_it_up(parser: Parser) -> None:
    report = run(parser, SEED, INPUTS)
    assert not report.faults, "\n".join(map(str, report.faults))
    assert report.inputs == INPUTS
    if parser.form and parser.errors:
        assert 0 < report.refused < INPUTS, "inputs of both kinds"
    assert len({input_of(parser, SEED, number) for number in range(INPUTS)}) > INPUTS / 2


def test_parsers_have_names_of_their_own() -> None:
    assert len({parser.name for parser in PARSERS}) == len(PARSERS)


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_good_messages_are_good(parser: Parser) -> None:
    """Else what is altered would be refused at once, and nothing reached deep."""
    for number, seed in enumerate(parser.seeds):
        assert parser.form is None or parser.form.load(seed) is not None
        parsed = parser.parse(seed)
        assert parsed is None or list(parsed if hasattr(parsed, "__next__") else []) is not None, number


def test_same_seed_makes_the_same_inputs() -> None:
    parser = PARSERS[0]
    assert [input_of(parser, 1, n) for n in range(50)] == [input_of(parser, 1, n) for n in range(50)]
    assert [input_of(parser, 1, n) for n in range(50)] != [input_of(parser, 2, n) for n in range(50)]


def test_altered_trees_are_written_as_they_were_read() -> None:
    for parser in PARSERS:
        if parser.form in (CBOR, PROTOBUF):
            for seed in parser.seeds:
                assert parser.form.load(parser.form.dump(parser.form.load(seed))) == parser.form.load(seed)
    assert load_protobuf(b"\x08\x01") == [[1, 0, 1]]


def test_what_is_repeated_within_what_is_repeated_takes_no_gigabytes() -> None:
    tree: object = bytes(60_000)
    for _ in range(3):
        tree = [Repeated(tree, 100_000)]
    assert len(dump_cbor(tree)) < 32 * 2**20


def test_an_error_that_isnt_declared_is_a_fault() -> None:
    def breaks(encoded: bytes) -> object:
        if len(encoded) % 2:
            raise KeyError("not declared")
        return decode(encoded)

    report = run(Parser("it", breaks, (DecodeError,), [b"\x80", b"\x41a"]), 0, 40)
    assert report.faults
    assert "KeyError" in str(report.faults[0])


def works(times: float) -> None:
    """Takes so many times what an input may: in work, not in seconds, since a slow machine's inputs may take longer."""
    for _ in range(round(times * BUDGET / USUAL)):
        cbor2.dumps(REFERENCE)


@pytest.mark.parametrize("stage", [0, 1])
def test_an_input_that_takes_long_is_a_fault_in_whichever_turn(stage: int) -> None:
    def parse(encoded: bytes) -> object:
        works(3 if stage == 0 else 0)
        yield
        works(3 if stage == 1 else 0)

    [fault, *_] = run(Parser("it", parse, (), [b"\x80"]), 0, 2).faults
    assert "ms" in str(fault)


def test_one_slow_try_is_the_machines() -> None:
    tries = 0

    def parse(encoded: bytes) -> None:
        nonlocal tries
        tries += 1
        works(3 if tries == 1 else 0)

    assert not run(Parser("it", parse, (), [b"\x80"]), 0, 1).faults
    assert tries == 2


def test_faults_are_counted_and_the_first_are_kept() -> None:
    def breaks(encoded: bytes) -> object:
        raise KeyError(encoded)

    report = run(Parser("it", breaks, (), [b"\x80"]), 0, 3 * MOST_FAULTS)
    assert (report.fault_count, len(report.faults)) == (3 * MOST_FAULTS, MOST_FAULTS)
    assert f"{3 * MOST_FAULTS} faults" in str(report)


@pytest.mark.parametrize(
    ("dies", "ending"),
    [
        ("pass", ""),
        ("raise KeyError", "faults, see above"),
        ("os._exit(7)", "its process ended with exit code 7 at input 2"),
        ("os.abort()", "its process was ended by SIGABRT at input 2"),
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            "its process was ended by SIGKILL at input 2; the system may have been short of memory",
        ),
        ("held.append(bytearray(2**31))", "faults, see above"),
    ],
)
def test_it_is_told_how_a_process_ended(
    dies: str, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dying.py").write_text(DYING.format(dies=dies))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    assert try_in_process(Share("it", 0, 5), "dying") == ending
    said = capfd.readouterr().out
    assert ("5 inputs" in said) == (ending in ("", "faults, see above"))
    assert ("MemoryError" in said) == ("bytearray" in dies)


DYING = """
import os, signal, sys
from tests.attacks.fuzz.parsers import Parser
from tests.attacks.fuzz.share import Share, try_here

held, tried = [], []

def parse(encoded):
    tried.append(encoded)
    if len(tried) == 3:
        {dies}

sys.exit(try_here(Share.of(sys.argv[2]), [Parser("it", parse, (), [b"1"])]))
"""
