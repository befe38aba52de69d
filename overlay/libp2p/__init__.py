"""All that touches py-libp2p: adapters to it for the protocols that other rooms define, and remedies for its faults."""

from overlay.libp2p.workarounds.deferred_imports import import_libp2p

import_libp2p()  # before any other module of this folder, all of which import it
