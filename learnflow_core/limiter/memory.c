/* The accelerator: memory.py's limiter in C, method for method, for CPython with its interpreter lock.
 *
 * What a decision reads and writes, it does between two lines that run no Python code: so it is one step to every
 * thread, to signals and to finalizers, without a lock of its own. The one thing to call back is a clock written in
 * Python, and only around that one a lock is held.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pythread.h>
#include <stdbool.h>
#include <stdint.h>
#include <structmember.h>
#include <time.h>

#ifdef Py_GIL_DISABLED
#error "without the interpreter's lock, the limiter in Python is the one to use"
#endif

#include "bucket.h"
#include "decision.h"
#include "plan.h"
#include "table.h"

/* Where time.monotonic_ns() reads this very clock, it can be read without Python. */
#if defined(CLOCK_MONOTONIC) && !defined(CLOCK_HIGHRES) && !defined(__APPLE__)
#define HAS_MONOTONIC 1
#endif

#define PLANS 16

typedef struct {
    PyTypeObject *decision_type;
    PyObject *decisions_type;
    PyObject *given_back, *not_given_back, *was_reset;
    PyObject *one;
    PyObject *monotonic_ns;
    Fields fields;
    uint64_t receipts;      /* how many were given out, each of them once */
    uint64_t forks;         /* how many lie between this process and the one that imported the module */
} State;

typedef struct {
    PyObject_HEAD
    State *state;           /* NULL until __init__ has succeeded */
    Table table;
    int64_t max_buckets, overflow_buckets;
    PyObject *clock;        /* NULL: the system's, read without Python */
    PyObject *kinds;        /* the number of each `bucket` of a quota */
    PyObject *secret;
    Plan *plans[PLANS];     /* of the tuples of quotas seen last */
    uint64_t receipt;       /* of decisions that can still be refunded */
    long long overflow_hits;
    PyThread_type_lock turn; /* held around a clock written in Python, */
    unsigned long holder;    /* by this thread, */
    uint64_t holder_forks;   /* of this process */
    PyObject *weakrefs;
} Limiter;

/* What one decision is asked for, once it is known to make sense. */
typedef struct {
    PyObject *key;          /* as it came */
    PyObject *text;         /* as an exact str: a reference of its own */
    uint32_t tag;
    Plan *plan;             /* a use of its own */
    PyObject *cost;
    int64_t tokens;         /* the cost; without quotas any number, as nobody reads it */
    int64_t now;
    PyObject *slot;         /* the name of the buckets shared with other keys; NULL while there is no need to know */
    uint32_t slot_tag;
} Ask;

/* ---- Time, and turns to ask for it ---- */

static int
read_clock(Limiter *self, int64_t *now)
{
#ifdef HAS_MONOTONIC
    if (self->clock == NULL) {
        struct timespec instant;
        (void)clock_gettime(CLOCK_MONOTONIC, &instant);
        *now = (int64_t)instant.tv_sec * 1000000000 + instant.tv_nsec;
        return 0;
    }
#endif
    PyObject *value = PyObject_CallNoArgs(self->clock);
    if (value == NULL) {
        return -1;
    }
    int overflow = 0;
    if (!PyLong_CheckExact(value)) {
        PyErr_Format(PyExc_TypeError, "clock: an int is needed, not %.200s", Py_TYPE(value)->tp_name);
        overflow = 1;
    }
    else {
        *now = PyLong_AsLongLongAndOverflow(value, &overflow);
        if (overflow != 0 || *now <= -FARTHEST_NS || *now >= FARTHEST_NS) {
            PyErr_SetString(PyExc_ValueError, "clock: it must stay within 2**62 ns of zero");
            overflow = 1;
        }
    }
    Py_DECREF(value);
    return overflow ? -1 : 0;
}

/* Wait for the lock; signals are handled meanwhile. */
static int
wait_for_turn(Limiter *self)
{
    if (self->holder_forks != self->state->forks) { /* the holder is a thread that did not come along with a fork */
        self->turn = PyThread_allocate_lock();
    }
    else if (self->holder == PyThread_get_thread_ident()) {
        PyErr_SetString(PyExc_RuntimeError, "a limiter was asked by its own clock, or while this thread read it");
        return -1;
    }
    PyLockStatus status;
    do {
        Py_BEGIN_ALLOW_THREADS
        status = PyThread_acquire_lock_timed(self->turn, -1, 1);
        Py_END_ALLOW_THREADS
        if (status == PY_LOCK_INTR && Py_MakePendingCalls() < 0) {
            return -1;
        }
    } while (status != PY_LOCK_ACQUIRED);
    return 0;
}

static void
leave(Limiter *self)
{
    if (self->clock != NULL) {
        self->holder = 0;
        PyThread_release_lock(self->turn);
    }
}

/* Read the clock; from then until leave(), which follows unless this failed, nobody else decides. */
static int
enter(Limiter *self, int64_t *now)
{
    if (self->clock == NULL) {
        return read_clock(self, now);
    }
    if (!PyThread_acquire_lock(self->turn, NOWAIT_LOCK) && wait_for_turn(self) < 0) {
        return -1;
    }
    self->holder = PyThread_get_thread_ident();
    self->holder_forks = self->state->forks;
    if (read_clock(self, now) < 0) {
        leave(self);
        return -1;
    }
    return 0;
}

/* ---- What is asked ---- */

static Plan *
plan_of(Limiter *self, PyObject *quotas)
{
    if (!PyTuple_CheckExact(quotas)) {
        return new_plan(quotas, &self->state->fields, self->kinds);
    }
    Plan **place = &self->plans[((uintptr_t)quotas / 16) % PLANS];
    if (*place != NULL && (*place)->quotas == quotas) {
        return plan_shared(*place);
    }
    Plan *plan = new_plan(quotas, &self->state->fields, self->kinds);
    if (plan != NULL) {
        Plan *before = *place;
        *place = plan_shared(plan);
        plan_done(before);
    }
    return plan;
}

/* The key as the table knows it: its text alone, whatever a class derived from str makes of it. A new reference. */
static PyObject *
text_of(PyObject *key)
{
    if (PyUnicode_CheckExact(key)) {
        return Py_NewRef(key);
    }
    if (PyUnicode_Check(key)) {
        return PyUnicode_FromObject(key);
    }
    PyErr_Format(PyExc_TypeError, "key: a str is needed, not %.200s", Py_TYPE(key)->tp_name);
    return NULL;
}

static int
read_cost(Ask *ask)
{
    if (!PyLong_CheckExact(ask->cost)) {
        PyErr_Format(PyExc_TypeError, "cost: an int is needed, not %.200s", Py_TYPE(ask->cost)->tp_name);
        return -1;
    }
    int overflow;
    ask->tokens = PyLong_AsLongLongAndOverflow(ask->cost, &overflow);
    if (overflow < 0 || (overflow == 0 && ask->tokens < 1)) {
        PyErr_SetString(PyExc_ValueError,
                        "cost: it must be at least 1; what was taken is given back by a refund");
        return -1;
    }
    if (overflow > 0) {
        ask->tokens = INT64_MAX;
    }
    return 0;
}

static int
check_plan(const Ask *ask)
{
    if (!ask->plan->names_differ) {
        PyErr_SetString(PyExc_ValueError, "quotas: each needs a name of its own");
        return -1;
    }
    for (Py_ssize_t i = 0; i < ask->plan->length; i++) {
        if (ask->tokens > ask->plan->terms[i].burst) {
            PyErr_Format(PyExc_ValueError, "cost: %R never holds as much, so waiting cannot help",
                         PyTuple_GET_ITEM(ask->plan->quotas, i));
            return -1;
        }
    }
    return 0;
}

static void
close_ask(Ask *ask)
{
    Py_XDECREF(ask->text);
    Py_XDECREF(ask->slot);
    plan_done(ask->plan);
}

/* close_ask() follows the next two, whatever comes of them. */
static int
ask_for_key(Limiter *self, Ask *ask, PyObject *key)
{
    ask->key = key;
    Py_XSETREF(ask->text, text_of(key));
    Py_CLEAR(ask->slot);
    if (ask->text == NULL) {
        return -1;
    }
    ask->tag = tag_of(&self->table, ask->text);
    return 0;
}

static int
ask_under_quotas(Limiter *self, Ask *ask, PyObject *quotas, PyObject *cost)
{
    ask->cost = cost != NULL ? cost : self->state->one;
    if (read_cost(ask) < 0) {
        return -1;
    }
    ask->plan = plan_of(self, quotas);
    return ask->plan != NULL ? check_plan(ask) : -1;
}

/* ---- Deciding: no Python code from here on, until the next section ---- */

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
    int64_t level = settled(*full_at, ask->now, term->longest);
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

/* ---- Methods ---- */

static int
check_made(Limiter *self)
{
    if (self->state == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "MemoryLimiter.__init__ was not called");
        return -1;
    }
    return 0;
}

/* The arguments, however they were passed, into `values`; one that was left out stays NULL. */
static int
read_arguments(const char *const *names, int needed, int most, PyObject *const *args, Py_ssize_t given,
               PyObject *keywords, PyObject **values)
{
    if (given > most) {
        PyErr_Format(PyExc_TypeError, "at most %d positional arguments are taken, not %zd", most, given);
        return -1;
    }
    for (Py_ssize_t i = 0; i < given; i++) {
        values[i] = args[i];
    }
    for (Py_ssize_t i = 0; keywords != NULL && i < PyTuple_GET_SIZE(keywords); i++) {
        PyObject *name = PyTuple_GET_ITEM(keywords, i);
        int at = 0;
        while (at < most && PyUnicode_CompareWithASCIIString(name, names[at]) != 0) {
            at++;
        }
        if (at == most || values[at] != NULL) {
            PyErr_Format(PyExc_TypeError, at == most ? "there is no argument %R" : "argument %R was given twice", name);
            return -1;
        }
        values[at] = args[given + i];
    }
    for (int at = 0; at < needed; at++) {
        if (values[at] == NULL) {
            PyErr_Format(PyExc_TypeError, "argument '%s' is missing", names[at]);
            return -1;
        }
    }
    return 0;
}

static PyObject *
one_decision(Limiter *self, bool takes, PyObject *const *args, Py_ssize_t given, PyObject *keywords)
{
    static const char *const names[] = {"key", "quotas", "cost"};
    PyObject *values[3] = {NULL};
    if (check_made(self) < 0 || read_arguments(names, 2, 3, args, given, keywords, values) < 0) {
        return NULL;
    }
    Ask ask = {NULL};
    Decision *decision = NULL;
    if (ask_for_key(self, &ask, values[0]) == 0 && ask_under_quotas(self, &ask, values[1], values[2]) == 0) {
        decision = new_decision(self->state->decision_type, ask.key, ask.plan, ask.cost);
    }
    if (decision != NULL) {
        int failed = enter(self, &ask.now);
        if (failed == 0) {
            failed = decide(self, &ask, takes, decision);
            leave(self);
        }
        if (failed < 0) {
            Py_CLEAR(decision);
        }
    }
    close_ask(&ask);
    return (PyObject *)decision;
}

static PyObject *
limiter_hit(Limiter *self, PyObject *const *args, Py_ssize_t given, PyObject *keywords)
{
    return one_decision(self, true, args, given, keywords);
}

static PyObject *
limiter_peek(Limiter *self, PyObject *const *args, Py_ssize_t given, PyObject *keywords)
{
    return one_decision(self, false, args, given, keywords);
}

/* The keys as a tuple, which nobody changes while they are decided about; each is a str. */
static PyObject *
all_keys(PyObject *iterable)
{
    PyObject *keys = PySequence_Tuple(iterable);
    for (Py_ssize_t i = 0; keys != NULL && i < PyTuple_GET_SIZE(keys); i++) {
        PyObject *key = PyTuple_GET_ITEM(keys, i);
        if (!PyUnicode_Check(key)) {
            PyErr_Format(PyExc_TypeError, "key: a str is needed, not %.200s", Py_TYPE(key)->tp_name);
            Py_CLEAR(keys);
        }
    }
    return keys;
}

/* Decide about each of the keys at one instant, and put the decisions in their places. */
static int
decide_all(Limiter *self, Ask *ask, PyObject *keys, PyObject *places)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(keys); i++) {
        if (ask_for_key(self, ask, PyTuple_GET_ITEM(keys, i)) < 0) {
            return -1;
        }
        Decision *decision = new_decision(self->state->decision_type, ask->key, ask->plan, ask->cost);
        if (decision == NULL || decide(self, ask, true, decision) < 0) {
            Py_XDECREF(decision);
            return -1;
        }
        Py_DECREF(PyList_GET_ITEM(places, i));
        PyList_SET_ITEM(places, i, (PyObject *)decision);
    }
    return 0;
}

static PyObject *
limiter_hit_many(Limiter *self, PyObject *const *args, Py_ssize_t given, PyObject *keywords)
{
    static const char *const names[] = {"keys", "quotas", "cost"};
    PyObject *values[3] = {NULL};
    if (check_made(self) < 0 || read_arguments(names, 2, 3, args, given, keywords, values) < 0) {
        return NULL;
    }
    PyObject *keys = all_keys(values[0]);
    if (keys == NULL) {
        return NULL;
    }
    Ask ask = {NULL};
    PyObject *decisions = NULL;
    if (ask_under_quotas(self, &ask, values[1], values[2]) == 0) {
        decisions = PyObject_CallNoArgs(self->state->decisions_type);
    }
    /* The keys keep the places, so that nothing more is needed of the list once tokens are taken. */
    int failed = decisions == NULL || PyList_SetSlice(decisions, 0, 0, keys) < 0 || enter(self, &ask.now) < 0;
    if (!failed) {
        failed = decide_all(self, &ask, keys, decisions) < 0;
        leave(self);
    }
    if (failed) {
        Py_CLEAR(decisions);
    }
    close_ask(&ask);
    Py_DECREF(keys);
    return decisions;
}

static void
give_back(Limiter *self, const Ask *ask, Decision *decision)
{
    decision->receipt = 0;
    for (Py_ssize_t i = 0; i < decision->plan->length; i++) {
        const Term *term = &decision->plan->terms[i];
        int64_t *full_at = own_bucket(&self->table, ask, term->kind);
        if (full_at != NULL) {
            *full_at = given_back(*full_at, ask->now, debt_of(ask, term), decision->now);
        }
    }
}

static PyObject *
limiter_refund(Limiter *self, PyObject *argument)
{
    if (check_made(self) < 0) {
        return NULL;
    }
    if (!Py_IS_TYPE(argument, self->state->decision_type) || ((Decision *)argument)->receipt != self->receipt) {
        return Py_NewRef(self->state->not_given_back);
    }
    Decision *decision = (Decision *)argument;
    Ask ask = {.cost = decision->cost};
    bool refundable = false;
    int failed = ask_for_key(self, &ask, decision->key) < 0 || read_cost(&ask) < 0 || enter(self, &ask.now) < 0;
    if (!failed) {
        refundable = decision->receipt == self->receipt; /* unless someone was quicker while the clock was read */
        if (refundable) {
            give_back(self, &ask, decision);
        }
        leave(self);
    }
    close_ask(&ask);
    return failed ? NULL : Py_NewRef(refundable ? self->state->given_back : self->state->not_given_back);
}

static PyObject *
limiter_reset(Limiter *self, PyObject *const *args, Py_ssize_t given, PyObject *keywords)
{
    static const char *const names[] = {"key", "quotas"};
    PyObject *values[2] = {NULL};
    if (check_made(self) < 0 || read_arguments(names, 2, 2, args, given, keywords, values) < 0) {
        return NULL;
    }
    Ask ask = {NULL};
    int failed = ask_for_key(self, &ask, values[0]) < 0 || (ask.plan = plan_of(self, values[1])) == NULL
        || enter(self, &ask.now) < 0;
    if (!failed) {
        self->receipt = ++self->state->receipts;
        for (Py_ssize_t i = 0; i < ask.plan->length; i++) {
            int64_t *full_at = own_bucket(&self->table, &ask, ask.plan->terms[i].kind);
            if (full_at != NULL) {
                *full_at = ask.now;
            }
        }
        leave(self);
    }
    close_ask(&ask);
    return failed ? NULL : Py_NewRef(self->state->was_reset);
}

static Py_ssize_t
limiter_length(Limiter *self)
{
    return (Py_ssize_t)self->table.buckets;
}

/* ---- The limiter's life ---- */

static struct PyModuleDef module_def;

static int
read_size(const char *name, PyObject *value, int64_t *size)
{
    if (value == NULL) {
        return 0;
    }
    if (!PyLong_CheckExact(value)) {
        PyErr_Format(PyExc_TypeError, "%s: an int is needed, not %.200s", name, Py_TYPE(value)->tp_name);
        return -1;
    }
    int overflow;
    *size = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow > 0) {
        *size = INT64_MAX;
    }
    return 0;
}

/* The clock, tried once. */
static int
set_clock(Limiter *self, State *state, PyObject *clock)
{
#ifdef HAS_MONOTONIC
    if (clock == NULL || clock == state->monotonic_ns) {
        return 0;
    }
#endif
    self->clock = Py_NewRef(clock != NULL ? clock : state->monotonic_ns);
    self->turn = PyThread_allocate_lock();
    if (self->turn == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    int64_t now;
    return read_clock(self, &now);
}

static int
set_secret(Limiter *self)
{
    PyObject *os = PyImport_ImportModule("os");
    PyObject *bytes = os != NULL ? PyObject_CallMethod(os, "urandom", "i", 16) : NULL;
    self->secret = bytes != NULL ? PyObject_CallMethod(bytes, "hex", NULL) : NULL;
    int failed = self->secret == NULL;
    if (!failed) {
        uint64_t numbers[2];
        memcpy(numbers, PyBytes_AS_STRING(bytes), sizeof(numbers));
        failed = !open_table(&self->table, numbers[0], numbers[1]);
        if (failed) {
            PyErr_NoMemory();
        }
    }
    Py_XDECREF(os);
    Py_XDECREF(bytes);
    return failed ? -1 : 0;
}

static int
limiter_init(Limiter *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"clock", "max_buckets", "overflow_buckets", NULL};
    PyObject *clock = NULL, *max_buckets = NULL, *overflow_buckets = NULL;
    if (self->kinds != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a MemoryLimiter is made once");
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|$OOO:MemoryLimiter", names, &clock, &max_buckets,
                                     &overflow_buckets)) {
        return -1;
    }
    PyObject *module = PyType_GetModuleByDef(Py_TYPE(self), &module_def);
    if (module == NULL || (self->kinds = PyDict_New()) == NULL) {
        return -1;
    }
    State *state = PyModule_GetState(module);
    self->max_buckets = 1000000;
    self->overflow_buckets = 4096;
    if (set_clock(self, state, clock) < 0 || read_size("max_buckets", max_buckets, &self->max_buckets) < 0
        || read_size("overflow_buckets", overflow_buckets, &self->overflow_buckets) < 0) {
        return -1;
    }
    if (self->max_buckets < 1 || self->overflow_buckets < 1) {
        PyErr_SetString(PyExc_ValueError, "max_buckets, overflow_buckets: each must be at least 1");
        return -1;
    }
    if (set_secret(self) < 0) {
        return -1;
    }
    self->receipt = ++state->receipts;
    self->state = state;
    return 0;
}

static int
limiter_traverse(Limiter *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->clock);
    Py_VISIT(self->kinds);
    return 0;
}

static int
limiter_clear(Limiter *self)
{
    self->state = NULL;
    Py_CLEAR(self->clock);
    Py_CLEAR(self->kinds);
    return 0;
}

static void
limiter_dealloc(Limiter *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    (void)limiter_clear(self);
    Py_XDECREF(self->secret);
    for (size_t i = 0; i < PLANS; i++) {
        plan_done(self->plans[i]);
    }
    close_table(&self->table);
    if (self->turn != NULL) {
        PyThread_free_lock(self->turn);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef limiter_methods[] = {
    {"hit", (PyCFunction)(void (*)(void))limiter_hit, METH_FASTCALL | METH_KEYWORDS,
     "hit($self, key, quotas, cost=1)\n--\n\n"
     "Take `cost` tokens from each of the key's quotas, or none from any of them; see `Limiter`."},
    {"hit_many", (PyCFunction)(void (*)(void))limiter_hit_many, METH_FASTCALL | METH_KEYWORDS,
     "hit_many($self, keys, quotas, cost=1)\n--\n\n"
     "One `hit` for each of the keys, in their order; see `Limiter`."},
    {"peek", (PyCFunction)(void (*)(void))limiter_peek, METH_FASTCALL | METH_KEYWORDS,
     "peek($self, key, quotas, cost=1)\n--\n\n"
     "What `hit` would answer now, without taking anything; see `Limiter`."},
    {"refund", (PyCFunction)limiter_refund, METH_O,
     "refund($self, decision, /)\n--\n\n"
     "Give back what an allowed decision of this limiter took, once; whether it was still to be given back."},
    {"reset", (PyCFunction)(void (*)(void))limiter_reset, METH_FASTCALL | METH_KEYWORDS,
     "reset($self, key, quotas)\n--\n\n"
     "Fill the key's buckets. What it owes in a shared bucket stays owed, since others owe it too."},
    {NULL},
};

static PyMemberDef limiter_members[] = {
    {"overflow_hits", T_LONGLONG, offsetof(Limiter, overflow_hits), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Limiter, weakrefs), READONLY, NULL},
    {NULL},
};

static PyType_Slot limiter_slots[] = {
    {Py_tp_doc, "Token buckets in a table of this process: learnflow_core.limiter.memory.MemoryLimiter, in C.\n\n"
                "MemoryLimiter(*, clock=time.monotonic_ns, max_buckets=1_000_000, overflow_buckets=4_096)"},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, limiter_init},
    {Py_tp_dealloc, limiter_dealloc},
    {Py_tp_traverse, limiter_traverse},
    {Py_tp_clear, limiter_clear},
    {Py_tp_methods, limiter_methods},
    {Py_tp_members, limiter_members},
    {Py_sq_length, limiter_length},
    {0, NULL},
};

static PyType_Spec limiter_spec = {
    .name = "learnflow_core.limiter.MemoryLimiter",
    .basicsize = sizeof(Limiter),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = limiter_slots,
};

/* ---- The module ---- */

static PyObject *
attribute_of(const char *module, const char *name)
{
    PyObject *imported = PyImport_ImportModule(module);
    PyObject *value = imported != NULL ? PyObject_GetAttrString(imported, name) : NULL;
    Py_XDECREF(imported);
    return value;
}

static PyObject *
result_of(const char *name, PyObject *argument)
{
    PyObject *type = attribute_of("learnflow_core.limiter.decision", name);
    PyObject *result = type == NULL ? NULL
        : argument == NULL          ? PyObject_CallNoArgs(type)
                                    : PyObject_CallOneArg(type, argument);
    Py_XDECREF(type);
    return result;
}

static int
intern_fields(Fields *fields)
{
    return (fields->name = PyUnicode_InternFromString("name")) == NULL
        || (fields->bucket = PyUnicode_InternFromString("bucket")) == NULL
        || (fields->burst = PyUnicode_InternFromString("burst")) == NULL
        || (fields->interval_ns = PyUnicode_InternFromString("interval_ns")) == NULL
        || (fields->capacity_ns = PyUnicode_InternFromString("capacity_ns")) == NULL
        || (fields->longest_ns = PyUnicode_InternFromString("longest_ns")) == NULL ? -1 : 0;
}

static int
add_types(PyObject *module, State *state)
{
    PyObject *decision = attribute_of("learnflow_core.limiter.decision", "Decision");
    if (decision == NULL) {
        return -1;
    }
    state->decision_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &decision_spec, decision);
    Py_DECREF(decision);
    PyObject *limiter = PyType_FromModuleAndSpec(module, &limiter_spec, NULL);
    PyObject *name = PyUnicode_FromString("c");
    int failed = state->decision_type == NULL || limiter == NULL || name == NULL
        || PyObject_SetAttrString(limiter, "implementation", name) < 0
        || PyModule_AddType(module, (PyTypeObject *)limiter) < 0;
    Py_XDECREF(limiter);
    Py_XDECREF(name);
    return failed ? -1 : 0;
}

/* A thread that held a limiter's turn at the fork is not in the child, where it would never let go. */
static PyObject *
count_fork(PyObject *module, PyObject *Py_UNUSED(nothing))
{
    ((State *)PyModule_GetState(module))->forks++;
    Py_RETURN_NONE;
}

static int
watch_forks(PyObject *module)
{
    PyObject *os = PyImport_ImportModule("os");
    int failed = os == NULL;
    if (!failed && PyObject_HasAttrString(os, "register_at_fork")) {
        PyObject *registering = PyObject_GetAttrString(os, "register_at_fork");
        PyObject *none = PyTuple_New(0);
        PyObject *hook = Py_BuildValue("{s:N}", "after_in_child", PyObject_GetAttrString(module, "_count_fork"));
        PyObject *done = registering && none && hook ? PyObject_Call(registering, none, hook) : NULL;
        failed = done == NULL;
        Py_XDECREF(registering);
        Py_XDECREF(none);
        Py_XDECREF(hook);
        Py_XDECREF(done);
    }
    Py_XDECREF(os);
    return failed ? -1 : 0;
}

static int
module_exec(PyObject *module)
{
    State *state = PyModule_GetState(module);
    return (state->decisions_type = attribute_of("learnflow_core.limiter.decision", "Decisions")) == NULL
        || (state->given_back = result_of("Refund", Py_True)) == NULL
        || (state->not_given_back = result_of("Refund", Py_False)) == NULL
        || (state->was_reset = result_of("Reset", NULL)) == NULL
        || (state->one = PyLong_FromLong(1)) == NULL
        || (state->monotonic_ns = attribute_of("time", "monotonic_ns")) == NULL
        || intern_fields(&state->fields) < 0
        || add_types(module, state) < 0
        || PyModule_AddStringConstant(module, "SOURCE_DIGEST", SOURCE_DIGEST) < 0
        || watch_forks(module) < 0 ? -1 : 0;
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);
    Py_VISIT(state->decision_type);
    Py_VISIT(state->decisions_type);
    Py_VISIT(state->given_back);
    Py_VISIT(state->not_given_back);
    Py_VISIT(state->was_reset);
    return 0;
}

static int
module_clear(PyObject *module)
{
    State *state = PyModule_GetState(module);
    Py_CLEAR(state->decision_type);
    Py_CLEAR(state->decisions_type);
    Py_CLEAR(state->given_back);
    Py_CLEAR(state->not_given_back);
    Py_CLEAR(state->was_reset);
    Py_CLEAR(state->one);
    Py_CLEAR(state->monotonic_ns);
    Py_CLEAR(state->fields.name);
    Py_CLEAR(state->fields.bucket);
    Py_CLEAR(state->fields.burst);
    Py_CLEAR(state->fields.interval_ns);
    Py_CLEAR(state->fields.capacity_ns);
    Py_CLEAR(state->fields.longest_ns);
    return 0;
}

static void
module_free(void *module)
{
    (void)module_clear((PyObject *)module);
}

static PyMethodDef module_methods[] = {
    {"_count_fork", count_fork, METH_NOARGS, NULL},
    {NULL},
};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_learnflow_limiter",
    .m_doc = "The limiter in memory, in C. Import it from learnflow_core.limiter, which knows whether it is there.",
    .m_size = sizeof(State),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__learnflow_limiter(void)
{
    return PyModuleDef_Init(&module_def);
}
