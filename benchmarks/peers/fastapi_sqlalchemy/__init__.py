"""The courses as a service of FastAPI, SQLAlchemy 2 and slowapi, written as their documentation shows it.

It has what decides about speed in our server too: a bearer token that is verified and whose user is looked up, two
quotas whose figures are in every reply, validated parameters, a response model, exact totals, indexes for every order.
It lacks what would only slow it down: request ids, conditional requests, links between pages, cursors, error envelopes.
"""
