"""The wires between ranks: what a wire must offer, and one module for each kind of wire."""
