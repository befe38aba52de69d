"""Who trusts whom, as the original's trust graph has it: pure rules, with `now` as an argument."""
