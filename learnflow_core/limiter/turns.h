/* Time, and turns to ask for it: around a clock written in Python, and only there, a lock is held. */

#ifndef LEARNFLOW_TURNS_H
#define LEARNFLOW_TURNS_H

#include <Python.h>
#include <pythread.h>
#include <stdint.h>
#include <time.h>

#include "bucket.h"
#include "limiter.h"

/* Where time.monotonic_ns() reads this very clock, it can be read without Python. */
#if defined(CLOCK_MONOTONIC) && !defined(CLOCK_HIGHRES) && !defined(__APPLE__)
#define HAS_MONOTONIC 1
#endif

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
    if (self->holder_forks != self->state->forks) {
        if (self->holder != self->state->forker) { /* a thread that did not come along with the fork */
            PyThread_type_lock turn = PyThread_allocate_lock();
            if (turn == NULL) {
                PyErr_NoMemory();
                return -1;
            }
            self->turn = turn;
            self->holder = 0;
        }
        self->holder_forks = self->state->forks;
    }
    if (self->holder == PyThread_get_thread_ident()) {
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

#endif
