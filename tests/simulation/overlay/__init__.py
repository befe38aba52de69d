"""The overlay in virtual time: discovery by the same objects that run on the network, against brute force."""
