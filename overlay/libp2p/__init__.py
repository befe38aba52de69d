"""All that touches py-libp2p: adapters to it for the protocols that other rooms define, and remedies for its faults."""
