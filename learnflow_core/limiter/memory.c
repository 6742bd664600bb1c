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

#ifdef Py_GIL_DISABLED
#error "without the interpreter's lock, the limiter in Python is the one to use"
#endif

#include "asked.h"
#include "bucket.h"
#include "deciding.h"
#include "decision.h"
#include "limiter.h"
#include "plan.h"
#include "table.h"
#include "turns.h"

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
    if (ask_for_key(self, &ask, values[0]) == 0 && ask_under_quotas(self, &ask, values[1], values[2], takes) == 0) {
        decision = new_decision(self->state->decision_type, ask.text, ask.plan, ask.cost);
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

/* The keys as a tuple, which nobody changes while they are decided about; each is a str. A single str is none. */
static PyObject *
all_keys(PyObject *iterable)
{
    if (PyUnicode_Check(iterable)) {
        PyErr_SetString(PyExc_TypeError, "keys: an iterable of keys is needed, not a str");
        return NULL;
    }
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
        Decision *decision = new_decision(self->state->decision_type, ask->text, ask->plan, ask->cost);
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
    if (ask_under_quotas(self, &ask, values[1], values[2], true) == 0) {
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
limiter_refund(Limiter *self, PyObject *const *args, Py_ssize_t given, PyObject *keywords)
{
    static const char *const names[] = {"decision"};
    PyObject *values[1] = {NULL};
    if (check_made(self) < 0 || read_arguments(names, 1, 1, args, given, keywords, values) < 0) {
        return NULL;
    }
    Decision *decision = (Decision *)values[0];
    if (!Py_IS_TYPE(decision, self->state->decision_type) || decision->receipt != self->receipt) {
        return Py_NewRef(self->state->not_given_back);
    }
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

static PyObject *
limiter_reduce(Limiter *Py_UNUSED(self), PyObject *Py_UNUSED(nothing))
{
    PyErr_SetString(PyExc_TypeError,
                    "a MemoryLimiter cannot be copied or pickled: its buckets are in this process alone");
    return NULL;
}

static int
limiter_bool(Limiter *Py_UNUSED(self))
{
    return true;
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
    for (size_t i = 0; i < PLANS; i++) {
        if (self->plans[i] != NULL && self->plans[i]->users == 1) { /* no decision refers to the quotas by it */
            Py_VISIT(self->plans[i]->quotas);
        }
    }
    return 0;
}

static int
limiter_clear(Limiter *self)
{
    self->state = NULL;
    Py_CLEAR(self->clock);
    Py_CLEAR(self->kinds);
    for (size_t i = 0; i < PLANS; i++) {
        Plan *plan = self->plans[i];
        self->plans[i] = NULL;
        plan_done(plan);
    }
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
    PyMem_Free(self->longest);
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
    {"refund", (PyCFunction)(void (*)(void))limiter_refund, METH_FASTCALL | METH_KEYWORDS,
     "refund($self, decision)\n--\n\n"
     "Give back what an allowed decision of this limiter took, once; true when that counts."},
    {"reset", (PyCFunction)(void (*)(void))limiter_reset, METH_FASTCALL | METH_KEYWORDS,
     "reset($self, key, quotas)\n--\n\n"
     "Fill the key's buckets. What it owes in a shared bucket stays owed, since others owe it too."},
    {"__reduce__", (PyCFunction)limiter_reduce, METH_NOARGS, NULL},
    {NULL},
};

static PyMemberDef limiter_members[] = {
    {"overflow_hits", T_LONGLONG, offsetof(Limiter, overflow_hits), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Limiter, weakrefs), READONLY, NULL},
    {NULL},
};

static PyType_Slot limiter_slots[] = {
    {Py_tp_doc, "MemoryLimiter(*, clock=..., max_buckets=1000000, overflow_buckets=4096)\n--\n\n"
                "Token buckets in a table of this process: learnflow_core.limiter.memory.MemoryLimiter, in C.\n\n"
                "`clock` is time.monotonic_ns unless given."},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, limiter_init},
    {Py_tp_dealloc, limiter_dealloc},
    {Py_tp_traverse, limiter_traverse},
    {Py_tp_clear, limiter_clear},
    {Py_tp_methods, limiter_methods},
    {Py_tp_members, limiter_members},
    {Py_nb_bool, limiter_bool},
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
    State *state = PyModule_GetState(module);
    state->forks++;
    state->forker = PyThread_get_thread_ident();
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
