/* Deciding: no Python code runs in here, so that each decision is one step to every thread. */

#ifndef LEARNFLOW_DECIDING_H
#define LEARNFLOW_DECIDING_H

#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

#include "asked.h"
#include "bucket.h"
#include "limiter.h"
#include "table.h"

typedef enum { TAKEN, REFUSED, UNKNOWN } Outcome;

static inline int64_t
debt_of(const Ask *ask, const Term *term)
{
    return ask->tokens * term->interval;
}

/* Take from buckets of the key's own, all of them or none. UNKNOWN: it has not one for every quota. */
static Outcome
take_own(Table *table, const Ask *ask, int64_t *after)
{
    const Plan *plan = ask->plan;
    uint32_t chain = plan->length > 0 ? chain_of(table, &table->own, ask->text, ask->tag) : 0;
    for (Py_ssize_t i = 0; i < plan->length; i++) {
        const Term *term = &plan->terms[i];
        int64_t *full_at = bucket_in(table, chain, term->kind);
        if (full_at == NULL) {
            return UNKNOWN;
        }
        if (!take(*full_at, ask->now, debt_of(ask, term), term->capacity, &after[i])) {
            return REFUSED;
        }
    }
    for (Py_ssize_t i = 0; i < plan->length; i++) {
        *bucket_in(table, chain, plan->terms[i].kind) = after[i];
    }
    return TAKEN;
}

static int64_t *
own_bucket(const Table *table, const Ask *ask, uint32_t kind)
{
    return bucket_in(table, chain_of(table, &table->own, ask->text, ask->tag), kind);
}

static int64_t *
common_bucket(const Table *table, const Ask *ask, uint32_t kind)
{
    return ask->slot == NULL ? NULL : bucket_in(table, chain_of(table, &table->common, ask->slot, ask->slot_tag), kind);
}

/* Find out, where it can matter, which buckets the key shares, and reserve what it may take to keep new ones. */
static int
prepare(Limiter *self, Ask *ask)
{
    Table *table = &self->table;
    size_t quotas = (size_t)ask->plan->length;
    if (table->shared_buckets > 0 || table->buckets - table->shared_buckets + quotas > (size_t)self->max_buckets) {
        /* Python's own hash of a str is keyed unless PYTHONHASHSEED is set; the secret in front keys it even then. */
        PyObject *keyed = PyUnicode_Concat(self->secret, ask->text);
        if (keyed == NULL) {
            return -1;
        }
        int64_t slot = PyObject_Hash(keyed) % self->overflow_buckets;
        Py_DECREF(keyed);
        ask->slot = PyUnicode_FromFormat("%lld", (long long)(slot < 0 ? slot + self->overflow_buckets : slot));
        if (ask->slot == NULL) {
            return -1;
        }
        ask->slot_tag = tag_of(table, ask->slot);
    }
    if (!reserve_blocks(table, quotas) || !reserve_slot(&table->own) || !reserve_slot(&table->common)) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* The longest debt that the bucket can have by rights. */
static inline int64_t
longest_of(const Limiter *self, const Term *term)
{
    int64_t remembered = term->kind < self->longest_room ? self->longest[term->kind] : 0;
    return remembered > term->longest ? remembered : term->longest;
}

/* The key's bucket: its own, or the shared one that stands for it as long as it has none, or a full one. */
static int64_t
level_of(Limiter *self, const Ask *ask, const Term *term)
{
    int64_t *full_at = own_bucket(&self->table, ask, term->kind);
    if (full_at == NULL) {
        full_at = common_bucket(&self->table, ask, term->kind);
    }
    if (full_at == NULL) {
        return ask->now;
    }
    int64_t level = settled(*full_at, ask->now, longest_of(self, term));
    if (level < *full_at) {
        *full_at = level;
        self->receipt = ++self->state->receipts;
    }
    return level;
}

/* The buckets as they are, and whether all of them hold enough. */
static bool
consider(Limiter *self, const Ask *ask, int64_t *levels)
{
    bool enough = true;
    for (Py_ssize_t i = 0; i < ask->plan->length; i++) {
        const Term *term = &ask->plan->terms[i];
        int64_t after;
        levels[i] = level_of(self, ask, term);
        enough &= take(levels[i], ask->now, debt_of(ask, term), term->capacity, &after);
    }
    return enough;
}

static bool
shares(const Table *table, const Ask *ask, uint32_t kind)
{
    return own_bucket(table, ask, kind) == NULL && common_bucket(table, ask, kind) != NULL;
}

/* Keep what a taking left, in the key's own bucket or, without room for one, in the shared one: true if so. */
static bool
store(Limiter *self, const Ask *ask, uint32_t kind, int64_t full_at)
{
    Table *table = &self->table;
    int64_t *own = own_bucket(table, ask, kind);
    if (own != NULL) {
        *own = full_at;
        return false;
    }
    forget_some(table, ask->now);
    if (table->buckets - table->shared_buckets < (size_t)self->max_buckets) {
        add_bucket(table, &table->own, ask->text, ask->tag, kind, full_at);
        return false;
    }
    int64_t *shared = common_bucket(table, ask, kind);
    if (shared != NULL) {
        *shared = full_at;
    }
    else {
        add_bucket(table, &table->common, ask->slot, ask->slot_tag, kind, full_at);
    }
    return true;
}

/* Decide for a key that has not a bucket of its own for every quota. */
static bool
take_unknown(Limiter *self, const Ask *ask, int64_t *levels)
{
    bool enough = consider(self, ask, levels);
    bool shared = false;
    for (Py_ssize_t i = 0; i < ask->plan->length; i++) {
        const Term *term = &ask->plan->terms[i];
        if (enough) {
            (void)take(levels[i], ask->now, debt_of(ask, term), term->capacity, &levels[i]);
            shared |= store(self, ask, term->kind, levels[i]);
        }
        else {
            shared |= shares(&self->table, ask, term->kind);
        }
    }
    self->overflow_hits += shared;
    return enough;
}

/* Fill in the decision; -1 without memory, and then nothing was taken. */
static int
decide(Limiter *self, Ask *ask, bool takes, Decision *decision)
{
    Outcome outcome = takes ? take_own(&self->table, ask, decision->full_at) : REFUSED;
    bool enough = outcome == TAKEN;
    if (!enough) {
        if (prepare(self, ask) < 0) {
            return -1;
        }
        enough = outcome == UNKNOWN ? take_unknown(self, ask, decision->full_at)
                                    : consider(self, ask, decision->full_at);
    }
    if (self->table.own.old != NULL) {
        move_slots(&self->table.own, 4);
    }
    decision->now = ask->now;
    decision->allowed = enough;
    decision->receipt = enough && takes ? self->receipt : 0;
    return 0;
}

#endif
