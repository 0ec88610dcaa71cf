/* The sparse engine: everything of a training step that is not a matrix product, in plain C.
 *
 * Shapes: B rows, D = d_in, F = d_sae, N entries of a code, L levels. Matrices are row-major; W_enc is stored by feature, [F, D].
 * This file is compiled once; kernels.h is read twice, for float and for double (names end in _f32 and _f64); screen.h and firings.h once.
 *
 * No library is needed but libc and libm. Work is split over the threads of the OpenMP runtime that torch has already
 * started (engine_use_openmp): a second pool of threads would fight the first for the cores. Which thread does what never
 * shows in a result: each row and each feature is summed by one thread, in the order of its entries.
 */

#include <math.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Digest of the files that this library was compiled from (build.py). */
const char *engine_sources(void) { return ENGINE_SOURCES; }

/* --- threads ------------------------------------------------------------------------------------------------------ */

typedef void (*task_fn)(void *job, int64_t part, int64_t parts);

/* GOMP_parallel of libgomp, libomp or libiomp5: runs body(data) in num_threads threads and waits for them. */
typedef void (*parallel_fn)(void (*body)(void *), void *data, unsigned num_threads, unsigned flags);

static parallel_fn openmp_parallel = NULL;

void engine_use_openmp(void *gomp_parallel) { openmp_parallel = (parallel_fn)gomp_parallel; }

struct team {
    task_fn task;
    void *job;
    int64_t parts;
    atomic_llong next;
};

static void team_member(void *data) {
    struct team *team = data;
    int64_t part;
    while ((part = atomic_fetch_add(&team->next, 1)) < team->parts) team->task(team->job, part, team->parts);
}

/* Run task(job, part, parts) for each part, on up to num_threads threads. */
static void run_parts(task_fn task, void *job, int64_t parts, int num_threads) {
    struct team team = {task, job, parts, 0};
    if (num_threads > 1 && openmp_parallel) openmp_parallel(team_member, &team, (unsigned)num_threads, 0);
    else team_member(&team);
}

/* First item of a part, when count items are cut into parts of nearly equal size. */
static int64_t part_start(int64_t count, int64_t part, int64_t parts) { return count * part / parts; }

/* --- the kernels, for both precisions ----------------------------------------------------------------------------- */

#define REAL float
#define BITS int32_t
#define SQRT sqrtf
#define NAME(name) name##_f32
#include "kernels.h"
#undef REAL
#undef BITS
#undef SQRT
#undef NAME

#define REAL double
#define BITS int64_t
#define SQRT sqrt
#define NAME(name) name##_f64
#include "kernels.h"

/* --- screening and the feature pass, for float alone ----------------------------------------------------------------------------- */

#include "screen.h"
#include "firings.h"
