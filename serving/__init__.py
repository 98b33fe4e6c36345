"""The exported model: its signatures, and the clients that ask it."""
