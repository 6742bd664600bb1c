"""The whole server in a simulated world, in which everything goes wrong that can, and nothing may come of it.

What runs is the production code: the ASGI application with its pipeline, idempotency, sweep and saga, and the SQLite
storage with its drivers, on two nodes that share one database. What is simulated is the world around it: time
(`loop`), the failures of the database (`database`), the payment service (`payments`), processes that die (`node`), and
clients who lose replies, repeat themselves and leave (`clients`). Everything is drawn from one seed, so a run that
violates an invariant (`invariants`) can be seen again, step by step:

    python -m tests.simulator --seeds 2000
    python -m tests.simulator --seed 1234 --trace
"""
