"""Real server processes under load, killed at random points, with a payment service in a process of its own.

What the simulator (`tests.simulator`) proves of a virtual clock and one thread, this looks at where nothing is virtual:
threads, sockets, files, PostgreSQL, and SIGKILL.
"""
