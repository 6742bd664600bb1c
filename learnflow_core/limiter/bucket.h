/* The arithmetic of one bucket: bucket.py in C, function for function; a test compares the two.
 *
 * Nothing overflows: instants are less than FARTHEST_NS from zero and what a clock's step back left of earlier ones,
 * which is at most a longest period more (see quota.py); debts and capacities are no longer than that.
 */

#ifndef LEARNFLOW_BUCKET_H
#define LEARNFLOW_BUCKET_H

#include <stdbool.h>
#include <stdint.h>

#define FARTHEST_NS ((int64_t)1 << 62)

static inline bool
take(int64_t full_at, int64_t now, int64_t debt, int64_t capacity, int64_t *after)
{
    int64_t start = full_at > now ? full_at : now;
    *after = start + debt;
    return start <= now + (capacity - debt);
}

static inline int64_t
settled(int64_t full_at, int64_t now, int64_t longest)
{
    int64_t latest = now + longest;
    return full_at < now ? now : full_at < latest ? full_at : latest;
}

static inline int64_t
given_back(int64_t full_at, int64_t now, int64_t debt, int64_t taken_at)
{
    int64_t elapsed = now - taken_at;
    return elapsed < 0 || elapsed >= debt ? full_at : full_at - (debt - elapsed);
}

#endif
