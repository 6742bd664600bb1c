"""LearnFlow's domain, without a framework, a database, a clock or an event loop of its own.

In reading order:

- `errors`: the stable codes, the one exception, the envelope
- `limiter`: the rate-limit engine (standard library only; useful on its own)
- `pagination`: page and cursor requests, page arithmetic (standard library only)
- `ids`, `money`, `search`: prefixed ids, minor units of currencies, words of a search
- `model`: what there is: accounts, API keys, users, courses, enrollments, certificates
- `access`: plans, scopes and roles; who may see and do what
- `enrollment`: the rules of enrolling, as pure decisions
- `ledger`, `audit`: what money moves between which accounts; what is noted of everything that happens to it
- `ports`: what the core asks of the world: storage, payment gateway, chance and time
- `usecases`: one function for each operation

This module imports nothing, so that `import learnflow_core.limiter` costs the limiter alone.
"""
