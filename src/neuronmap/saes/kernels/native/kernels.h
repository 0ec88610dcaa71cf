/* Kernels for one precision: REAL, its integer of the same size BITS, SQRT, and NAME(x) which adds the suffix. See engine.c. */

#define LANES 32 /* values looked at together in a scan: a few vector registers, and the bits of a mask */

static inline BITS NAME(bits)(REAL value) {
    BITS bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline REAL NAME(value_of)(BITS bits) {
    REAL value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The next smaller number of a positive one, 0 of others: "x > below(y)" says "x >= y" and "x > 0". */
static inline REAL NAME(below)(REAL value) { return value > 0 ? NAME(value_of)(NAME(bits)(value) - 1) : 0; }

/* Which of a group of LANES values (fewer at the end of a row) exceed a bound, or each its own floor, as bits of a mask. Few do:
 * finding them in the mask is quicker than writing all and keeping some. */
static inline uint32_t NAME(exceeding)(const REAL *pre, const REAL *bias, REAL bound, int64_t lanes) {
    uint32_t mask = 0;
    if (lanes == LANES) /* a known length is what makes vectors of it */
        for (int j = 0; j < LANES; j++) mask |= (uint32_t)(pre[j] + bias[j] > bound) << j;
    else
        for (int j = 0; j < lanes; j++) mask |= (uint32_t)(pre[j] + bias[j] > bound) << j;
    return mask;
}

static inline uint32_t NAME(exceeding_own)(const REAL *pre, const REAL *bias, const REAL *floor, int64_t lanes) {
    uint32_t mask = 0;
    if (lanes == LANES)
        for (int j = 0; j < LANES; j++) mask |= (uint32_t)(pre[j] + bias[j] > floor[j]) << j;
    else
        for (int j = 0; j < lanes; j++) mask |= (uint32_t)(pre[j] + bias[j] > floor[j]) << j;
    return mask;
}

static inline int64_t NAME(count_from)(const REAL *values, int64_t n, REAL floor) {
    int32_t count = 0;
    for (int64_t i = 0; i < n; i++) count += values[i] >= floor;
    return count;
}

/* A floor that exactly k of n positive values reach (*tied = 0), or, when equal values straddle the cut, the k-th largest
 * (*tied = how many of those equal to it belong to the k). Bisection over bit patterns, which order positive numbers. */
static REAL NAME(cut)(const REAL *values, int64_t n, int64_t k, int64_t *tied) {
    BITS low = NAME(bits)(values[0]), high = low;
    for (int64_t i = 1; i < n; i++) {
        BITS bits = NAME(bits)(values[i]);
        low = bits < low ? bits : low;
        high = bits > high ? bits : high;
    }
    *tied = 0;
    high++; /* reached by none; low is reached by all n > k */
    int64_t above = 0;
    while (high - low > 1) {
        BITS middle = low + (high - low) / 2;
        int64_t reached = NAME(count_from)(values, n, NAME(value_of)(middle));
        if (reached == k) return NAME(value_of)(middle);
        if (reached > k) low = middle;
        else high = middle, above = reached;
    }
    *tied = k - above;
    return NAME(value_of)(low);
}

/* --- encode: the k largest of each row ------------------------------------------------------------------------------ */

struct NAME(top_k) {
    const REAL *pre, *bias;
    int64_t rows, width, first, k, capacity;
    int last;         /* whether no block follows */
    REAL *value;      /* [B, capacity] candidates of each row, in order of their features */
    int32_t *feature; /* [B, capacity] */
    int32_t *count;   /* [B] */
    REAL *bound;      /* [B] what a candidate has to exceed */
};

/* Keep the k largest candidates of a row, in their order; of equal ones the earlier. The bound becomes the k-th largest. */
static void NAME(tighten_row)(struct NAME(top_k) *s, int64_t row) {
    REAL *value = s->value + row * s->capacity;
    int32_t *feature = s->feature + row * s->capacity;
    int64_t tied, kept = 0, n = s->count[row];
    if (n <= s->k) return;
    REAL floor = NAME(cut)(value, n, s->k, &tied);
    if (!tied) { /* the usual case: no branch in the loop */
        for (int64_t i = 0; i < n; i++) {
            value[kept] = value[i];
            feature[kept] = feature[i];
            kept += value[i] >= floor;
        }
    } else {
        for (int64_t i = 0; i < n; i++) {
            if (value[i] > floor || (value[i] == floor && tied-- > 0)) {
                value[kept] = value[i];
                feature[kept++] = feature[i];
            }
        }
    }
    REAL least = value[0];
    for (int64_t i = 1; i < kept; i++) least = value[i] < least ? value[i] : least;
    s->bound[row] = least;
    s->count[row] = (int32_t)kept;
}

/* A bound that at least k of a row's values reach: the k-th largest of the maxima of `groups` groups. */
static REAL NAME(first_bound)(const REAL *pre, const REAL *bias, int64_t width, int64_t k, int64_t groups, REAL *maximum) {
    for (int64_t j = 0; j < groups; j++) maximum[j] = 0;
    for (int64_t i = 0; i + groups <= width; i += groups)
        for (int64_t j = 0; j < groups; j++) {
            REAL value = pre[i + j] + bias[i + j];
            maximum[j] = value > maximum[j] ? value : maximum[j];
        }
    int64_t tied;
    return NAME(below)(NAME(cut)(maximum, groups, k, &tied));
}

static void NAME(top_k_rows)(void *job, int64_t part, int64_t parts) {
    struct NAME(top_k) *s = job;
    int64_t stop = part_start(s->rows, part + 1, parts);
    int64_t groups = (2 * s->k + LANES - 1) / LANES * LANES;
    REAL maximum[1024];
    for (int64_t row = part_start(s->rows, part, parts); row < stop; row++) {
        const REAL *pre = s->pre + row * s->width, *bias = s->bias;
        REAL *value = s->value + row * s->capacity;
        int32_t *feature = s->feature + row * s->capacity;
        if (s->first == 0) {
            s->count[row] = 0;
            s->bound[row] = 0;
            if (groups <= 1024 && 2 * groups <= s->width)
                s->bound[row] = NAME(first_bound)(pre, bias, s->width, s->k, groups, maximum);
        }
        REAL bound = s->bound[row];
        int64_t count = s->count[row];
        for (int64_t i = 0; i < s->width; i += LANES) {
            int64_t lanes = s->width - i < LANES ? s->width - i : LANES;
            uint32_t mask = NAME(exceeding)(pre + i, bias + i, bound, lanes);
            if (!mask) continue;
            if (count + LANES > s->capacity) {
                s->count[row] = (int32_t)count;
                NAME(tighten_row)(s, row);
                count = s->count[row], bound = s->bound[row];
                mask = NAME(exceeding)(pre + i, bias + i, bound, lanes);
            }
            for (; mask; mask &= mask - 1, count++) {
                int64_t at = i + __builtin_ctz(mask);
                value[count] = pre[at] + bias[at];
                feature[count] = (int32_t)(s->first + at);
            }
        }
        s->count[row] = (int32_t)count;
        if (s->last || count > s->k + s->k / 2) NAME(tighten_row)(s, row);
    }
}

/* Take in one block of features: pre[B, width] (without bias) of features first .. first + width. Blocks come in order;
 * after the last one each row holds at most k candidates. */
void NAME(top_k_block)(const REAL *pre, const REAL *bias, int64_t rows, int64_t width, int64_t first, int64_t k, int64_t capacity,
                       int last, REAL *value, int32_t *feature, int32_t *count, REAL *bound, int threads) {
    struct NAME(top_k) s = {pre, bias, rows, width, first, k, capacity, last, value, feature, count, bound};
    run_parts(NAME(top_k_rows), &s, threads * 4, threads);
}

/* Pack the candidates into a code; offset[B + 1] has been filled from the counts. */
void NAME(top_k_pack)(const REAL *value, const int32_t *feature, const int32_t *count, int64_t rows, int64_t capacity,
                      const int64_t *offset, int32_t *out_row, int32_t *out_feature, REAL *out_value) {
    for (int64_t row = 0; row < rows; row++) {
        int64_t n = count[row], at = offset[row];
        for (int64_t i = 0; i < n; i++) {
            out_row[at + i] = (int32_t)row;
            out_feature[at + i] = feature[row * capacity + i];
            out_value[at + i] = value[row * capacity + i];
        }
    }
}

struct NAME(keep) {
    REAL *pre;
    int64_t rows, width, k;
    atomic_int failed;
};

static void NAME(keep_rows)(void *job, int64_t part, int64_t parts) {
    struct NAME(keep) *s = job;
    int64_t stop = part_start(s->rows, part + 1, parts);
    REAL *positive = malloc(s->width * sizeof(REAL));
    if (!positive) {
        s->failed = 1;
        return;
    }
    for (int64_t row = part_start(s->rows, part, parts); row < stop; row++) {
        REAL *pre = s->pre + row * s->width, floor = 0;
        int64_t n = 0, tied = 0;
        for (int64_t i = 0; i < s->width; i++) {
            positive[n] = pre[i];
            n += pre[i] > 0;
        }
        if (n > s->k) floor = NAME(cut)(positive, n, s->k, &tied);
        if (!tied)
            for (int64_t i = 0; i < s->width; i++) pre[i] = pre[i] > 0 && pre[i] >= floor ? pre[i] : 0;
        else
            for (int64_t i = 0; i < s->width; i++) pre[i] = pre[i] > floor || (pre[i] == floor && tied-- > 0) ? pre[i] : 0;
    }
    free(positive);
}

/* In place: zero everywhere but at the k largest positive values of each row. Returns 0, or -1: out of memory. */
int NAME(keep_top_k)(REAL *pre, int64_t rows, int64_t width, int64_t k, int threads) {
    struct NAME(keep) s = {pre, rows, width, k, 0};
    run_parts(NAME(keep_rows), &s, threads * 4, threads);
    return s.failed ? -1 : 0;
}

/* --- encode: everything above a floor, or the largest of the whole batch -------------------------------------------- */

/* Entries found so far. Rows are cut into `parts`; each part has its own growing list, ordered by block, row, feature. */
struct NAME(collector) {
    int64_t rows, parts, blocks, block_capacity;
    int32_t *count; /* [blocks, B] entries of each row in each block */
    int64_t *size, *capacity;
    REAL **value;
    int32_t **feature;
    atomic_int failed; /* out of memory */
};

void NAME(collector_free)(struct NAME(collector) *c) {
    for (int64_t part = 0; part < c->parts; part++) {
        if (c->value) free(c->value[part]);
        if (c->feature) free(c->feature[part]);
    }
    free(c->count), free(c->size), free(c->capacity), free(c->value), free(c->feature), free(c);
}

/* NULL: out of memory. */
struct NAME(collector) *NAME(collector_new)(int64_t rows, int64_t parts) {
    struct NAME(collector) *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->rows = rows, c->parts = parts;
    c->size = calloc(parts, sizeof(int64_t)), c->capacity = calloc(parts, sizeof(int64_t));
    c->value = calloc(parts, sizeof(REAL *)), c->feature = calloc(parts, sizeof(int32_t *));
    if (c->size && c->capacity && c->value && c->feature) return c;
    NAME(collector_free)(c);
    return NULL;
}

int64_t NAME(collector_size)(const struct NAME(collector) *c) {
    int64_t total = 0;
    for (int64_t part = 0; part < c->parts; part++) total += c->size[part];
    return total;
}

/* Forget the entries, keep the memory. */
void NAME(collector_clear)(struct NAME(collector) *c) {
    c->blocks = 0, c->failed = 0;
    for (int64_t part = 0; part < c->parts; part++) c->size[part] = 0;
}

struct NAME(collect) {
    struct NAME(collector) *c;
    const REAL *pre, *bias, *floor;
    int64_t width, first;
    REAL bound;
    int32_t *count;
};

static int NAME(grow)(struct NAME(collector) *c, int64_t part, int64_t needed) {
    if (needed <= c->capacity[part]) return 1;
    int64_t capacity = needed + needed / 2;
    REAL *value = realloc(c->value[part], capacity * sizeof(REAL));
    if (value) c->value[part] = value;
    int32_t *feature = realloc(c->feature[part], capacity * sizeof(int32_t));
    if (feature) c->feature[part] = feature;
    if (!value || !feature) return 0;
    c->capacity[part] = capacity;
    return 1;
}

static void NAME(collect_rows)(void *job, int64_t part, int64_t parts) {
    struct NAME(collect) *s = job;
    struct NAME(collector) *c = s->c;
    int64_t stop = part_start(c->rows, part + 1, parts), size = c->size[part];
    for (int64_t row = part_start(c->rows, part, parts); row < stop; row++) {
        const REAL *pre = s->pre + row * s->width, *bias = s->bias, *floor = s->floor;
        if (!NAME(grow)(c, part, size + s->width)) {
            c->failed = 1;
            return;
        }
        REAL *value = c->value[part];
        int32_t *feature = c->feature[part];
        int64_t start = size;
        REAL bound = s->bound;
        for (int64_t i = 0; i < s->width; i += LANES) {
            int64_t lanes = s->width - i < LANES ? s->width - i : LANES;
            uint32_t mask = floor ? NAME(exceeding_own)(pre + i, bias + i, floor + i, lanes)
                                  : NAME(exceeding)(pre + i, bias + i, bound, lanes);
            for (; mask; mask &= mask - 1, size++) {
                int64_t at = i + __builtin_ctz(mask);
                value[size] = pre[at] + bias[at];
                feature[size] = (int32_t)(s->first + at);
            }
        }
        s->count[row] = (int32_t)(size - start);
    }
    c->size[part] = size;
}

/* Where the counts of one more block's rows go; NULL: out of memory. */
static int32_t *NAME(next_block)(struct NAME(collector) *c) {
    if (c->blocks == c->block_capacity) {
        int64_t capacity = 2 * c->blocks + 16;
        int32_t *count = realloc(c->count, (capacity * c->rows + 1) * sizeof(int32_t)); /* never 0 bytes */
        if (!count) return NULL;
        c->count = count, c->block_capacity = capacity;
    }
    return c->count + c->blocks++ * c->rows;
}

/* Take in one block of features: what exceeds the bound, or its feature's floor. Returns entries held, or -1: out of memory. */
int64_t NAME(collect_block)(struct NAME(collector) *c, const REAL *pre, const REAL *bias, const REAL *floor, REAL bound,
                            int64_t width, int64_t first, int threads) {
    int32_t *count = NAME(next_block)(c);
    if (!count) return -1;
    struct NAME(collect) s = {c, pre, bias, floor, width, first, bound, count};
    run_parts(NAME(collect_rows), &s, c->parts, threads);
    return c->failed ? -1 : NAME(collector_size)(c);
}

/* The wanted-th largest of all (positive) entries held, of which there are at least so many: counts over the bit pattern, a
 * thousandth of the range at a time. above = entries larger than it. */
static REAL NAME(batch_cut)(struct NAME(collector) *c, int64_t wanted, int64_t *above) {
    BITS low = 0, high = 0;
    for (int64_t part = 0; part < c->parts; part++)
        for (int64_t i = 0; i < c->size[part]; i++) {
            BITS bits = NAME(bits)(c->value[part][i]);
            high = bits > high ? bits : high;
        }
    high++;
    *above = 0;
    int64_t counts[1024];
    while (high - low > 1) { /* each round narrows [low, high) a thousandfold */
        BITS step = (high - low + 1023) / 1024;
        memset(counts, 0, sizeof counts);
        for (int64_t part = 0; part < c->parts; part++)
            for (int64_t i = 0; i < c->size[part]; i++) {
                BITS bits = NAME(bits)(c->value[part][i]);
                if (bits >= low && bits < high) counts[(bits - low) / step]++;
            }
        int64_t bin = 1023;
        while (*above + counts[bin] < wanted) *above += counts[bin--];
        high = low + (bin + 1) * step < high ? low + (bin + 1) * step : high;
        low += bin * step;
    }
    return NAME(value_of)(low);
}

/* Drop what is not among the `wanted` largest (equal ones stay). Returns the bound that later entries have to exceed. */
REAL NAME(collector_tighten)(struct NAME(collector) *c, int64_t wanted) {
    int64_t above;
    REAL floor = NAME(batch_cut)(c, wanted, &above);
    for (int64_t part = 0; part < c->parts; part++) {
        REAL *value = c->value[part];
        int32_t *feature = c->feature[part];
        int64_t kept = 0, at = 0;
        int64_t start = part_start(c->rows, part, c->parts), stop = part_start(c->rows, part + 1, c->parts);
        for (int64_t block = 0; block < c->blocks; block++)
            for (int64_t row = start; row < stop; row++) {
                int32_t *count = c->count + block * c->rows + row;
                int64_t end = at + *count, before = kept;
                for (; at < end; at++) {
                    value[kept] = value[at];
                    feature[kept] = feature[at];
                    kept += value[at] >= floor;
                }
                *count = (int32_t)(kept - before);
            }
        c->size[part] = kept;
    }
    return NAME(below)(floor);
}

struct NAME(pack) {
    struct NAME(collector) *c;
    const int64_t *offset;
    int32_t *row, *feature;
    REAL *value;
};

static void NAME(pack_rows)(void *job, int64_t part, int64_t parts) {
    struct NAME(pack) *s = job;
    struct NAME(collector) *c = s->c;
    int64_t start = part_start(c->rows, part, parts), stop = part_start(c->rows, part + 1, parts);
    int64_t from = 0;
    int64_t *to = malloc((stop - start + 1) * sizeof(int64_t));
    if (!to) {
        c->failed = 1;
        return;
    }
    memcpy(to, s->offset + start, (stop - start) * sizeof(int64_t));
    for (int64_t block = 0; block < c->blocks; block++)
        for (int64_t row = start; row < stop; row++) {
            int64_t n = c->count[block * c->rows + row], at = to[row - start];
            for (int64_t i = 0; i < n; i++, from++) {
                s->row[at + i] = (int32_t)row;
                s->feature[at + i] = c->feature[part][from];
                s->value[at + i] = c->value[part][from];
            }
            to[row - start] += n;
        }
    free(to);
}

/* Write offset[B + 1] from what is held; returns N. */
int64_t NAME(collector_offsets)(struct NAME(collector) *c, int64_t *offset) {
    memset(offset, 0, (c->rows + 1) * sizeof(int64_t));
    for (int64_t block = 0; block < c->blocks; block++)
        for (int64_t row = 0; row < c->rows; row++) offset[row + 1] += c->count[block * c->rows + row];
    for (int64_t row = 0; row < c->rows; row++) offset[row + 1] += offset[row];
    return offset[c->rows];
}

/* Write all entries in order of row, then feature. Returns 0, or -1: out of memory. */
int NAME(collector_pack)(struct NAME(collector) *c, const int64_t *offset, int32_t *row, int32_t *feature, REAL *value, int threads) {
    struct NAME(pack) s = {c, offset, row, feature, value};
    run_parts(NAME(pack_rows), &s, c->parts, threads);
    return c->failed ? -1 : 0;
}

/* Of a code in order of row and feature, keep the first entries that equal `floor` up to `ties`, and all above it. In place;
 * offset is rewritten. */
void NAME(drop_ties)(int64_t *offset, int32_t *row, int32_t *feature, REAL *value, int64_t rows, REAL floor, int64_t ties) {
    int64_t kept = 0, at = 0;
    for (int64_t r = 0; r < rows; r++) {
        int64_t end = offset[r + 1];
        for (; at < end; at++)
            if (value[at] > floor || (value[at] == floor && ties-- > 0)) {
                row[kept] = row[at], feature[kept] = feature[at], value[kept] = value[at];
                kept++;
            }
        offset[r + 1] = kept;
    }
}

/* Pre-activations of chosen features of a block, out[B, total] at columns to .. to + chosen. */
struct NAME(columns) {
    const REAL *pre, *bias;
    int64_t rows, width;
    const int64_t *column;
    int64_t chosen, total;
    REAL *out;
};

static void NAME(columns_rows)(void *job, int64_t part, int64_t parts) {
    struct NAME(columns) *s = job;
    int64_t stop = part_start(s->rows, part + 1, parts);
    for (int64_t row = part_start(s->rows, part, parts); row < stop; row++)
        for (int64_t i = 0; i < s->chosen; i++)
            s->out[row * s->total + i] = s->pre[row * s->width + s->column[i]] + s->bias[s->column[i]];
}

void NAME(take_columns)(const REAL *pre, const REAL *bias, int64_t rows, int64_t width, const int64_t *column, int64_t chosen,
                        REAL *out, int64_t total, int threads) {
    struct NAME(columns) s = {pre, bias, rows, width, column, chosen, total, out};
    run_parts(NAME(columns_rows), &s, threads, threads);
}

/* --- decode, errors, and the gradient at each entry ----------------------------------------------------------------- */

#define ACTIVE_AT_A_TIME 512 /* entries gathered before their rows are added */
#define LINE (64 / (int64_t)sizeof(REAL)) /* numbers in a cache line */

/* out += sum of weight[i] * row i of the table, four rows at a time so that `out` is read and written a quarter as often. The rows
 * lie anywhere in a table larger than the inner caches, so the next four are asked for while these are added. */
static inline void NAME(add_rows)(REAL *restrict out, const REAL *restrict table, const int32_t *index, const REAL *weight,
                                  int64_t n, int64_t width) {
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const REAL *restrict a = table + (int64_t)index[i] * width, *restrict b = table + (int64_t)index[i + 1] * width;
        const REAL *restrict c = table + (int64_t)index[i + 2] * width, *restrict d = table + (int64_t)index[i + 3] * width;
        REAL p = weight[i], q = weight[i + 1], r = weight[i + 2], s = weight[i + 3];
        int64_t j = 0;
        if (i + 8 <= n) {
            const REAL *e = table + (int64_t)index[i + 4] * width, *f = table + (int64_t)index[i + 5] * width;
            const REAL *g = table + (int64_t)index[i + 6] * width, *h = table + (int64_t)index[i + 7] * width;
            for (; j + LINE <= width; j += LINE) {
                __builtin_prefetch(e + j), __builtin_prefetch(f + j), __builtin_prefetch(g + j), __builtin_prefetch(h + j);
                for (int64_t m = j; m < j + LINE; m++) out[m] += (p * a[m] + q * b[m]) + (r * c[m] + s * d[m]);
            }
        }
        for (; j < width; j++) out[j] += (p * a[j] + q * b[j]) + (r * c[j] + s * d[j]);
    }
    for (; i < n; i++) {
        const REAL *restrict a = table + (int64_t)index[i] * width;
        REAL p = weight[i];
        for (int64_t j = 0; j < width; j++) out[j] += p * a[j];
    }
}

/* The same, leaving out rows whose weight is 0: jumprelu's entries in the window below a threshold have gradients, but no activation.
 * A multiple of four at a time, so that with no zeros the sum is add_rows'. */
static inline void NAME(add_active_rows)(REAL *restrict out, const REAL *restrict table, const int32_t *index, const REAL *weight,
                                         int64_t n, int64_t width) {
    int32_t active[ACTIVE_AT_A_TIME];
    REAL active_weight[ACTIVE_AT_A_TIME];
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) {
        active[kept] = index[i], active_weight[kept] = weight[i];
        kept += weight[i] != 0;
        if (kept < ACTIVE_AT_A_TIME) continue;
        NAME(add_rows)(out, table, active, active_weight, kept, width);
        kept = 0;
    }
    NAME(add_rows)(out, table, active, active_weight, kept, width);
}

static inline REAL NAME(dot)(const REAL *restrict a, const REAL *restrict b, int64_t width) {
    REAL sum = 0;
    for (int64_t j = 0; j < width; j++) sum += a[j] * b[j];
    return sum;
}

struct NAME(reconstruct) {
    const int64_t *offset;
    const int32_t *feature;
    const REAL *value, *W_dec, *centred;
    int64_t rows, width, levels;
    const int64_t *level_width;
    REAL scale;
    int detached;
    REAL *pulled, *squared, *gradient;
};

static void NAME(reconstruct_rows)(void *job, int64_t part, int64_t parts) {
    struct NAME(reconstruct) *s = job;
    int64_t D = s->width, stop = part_start(s->rows, part + 1, parts), plane = s->rows * D;
    for (int64_t row = part_start(s->rows, part, parts); row < stop; row++) {
        int64_t at = s->offset[row], end = s->offset[row + 1];
        const REAL *centred = s->centred + row * D;
        REAL *error = s->pulled + row * D;
        const REAL *last = error + (s->levels - 1) * plane;
        for (int64_t level = 0, i = at; level < s->levels; level++) { /* entries are in order of feature */
            if (level == 0)
                for (int64_t j = 0; j < D; j++) error[j] = -centred[j];
            else
                memcpy(error + plane, error, D * sizeof(REAL)), error += plane;
            int64_t from = i;
            while (i < end && s->feature[i] < s->level_width[level]) i++;
            NAME(add_active_rows)(error, s->W_dec, s->feature + from, s->value + from, i - from, D);
            s->squared[row * s->levels + level] = NAME(dot)(error, error, D);
        }
        for (int64_t level = s->levels - 1;; level--) {
            int64_t lowest = level ? s->level_width[level - 1] : 0;
            for (; end > at && s->feature[end - 1] >= lowest; end--)
                s->gradient[end - 1] = s->scale * NAME(dot)(error, s->W_dec + (int64_t)s->feature[end - 1] * D, D);
            if (level == 0) break;
            REAL *lower = error - plane;
            const REAL *later = s->detached ? last : error;
            for (int64_t j = 0; j < D; j++) lower[j] += later[j];
            error = lower;
        }
    }
}

/* pulled[L, B, D] gets the suffix sums of the levels' errors or, detached, the sums of each and the last (the last plane is the last
 * error either way), squared[B, L] their squared norms, gradient[N] the product of its level's plane with its decoder row. Within a row entries are in order of feature. */
void NAME(reconstruct)(const int64_t *offset, const int32_t *feature, const REAL *value, const REAL *W_dec, const REAL *centred,
                       int64_t rows, int64_t width, int64_t levels, const int64_t *level_width, REAL scale, int detached,
                       REAL *pulled, REAL *squared, REAL *gradient, int threads) {
    struct NAME(reconstruct) s = {offset, feature, value,    W_dec, centred, rows,    width,
                                  levels, level_width, scale, detached, pulled, squared, gradient};
    run_parts(NAME(reconstruct_rows), &s, threads * 8, threads);
}

/* --- weight gradients ----------------------------------------------------------------------------------------------- */

/* Counting sort of the entries by feature, rows in order: offset[F + 1], and row, scale * value and gradient in that order. */
void NAME(sort_by_feature)(const int32_t *row, const int32_t *feature, const REAL *value, const REAL *gradient, int64_t n,
                           int64_t features, REAL scale, int64_t *offset, int32_t *out_row, REAL *out_value, REAL *out_gradient) {
    memset(offset, 0, (features + 1) * sizeof(int64_t));
    for (int64_t i = 0; i < n; i++) offset[feature[i] + 1]++;
    for (int64_t j = 0; j < features; j++) offset[j + 1] += offset[j];
    for (int64_t i = 0; i < n; i++) {
        int64_t to = offset[feature[i]]++;
        out_row[to] = row[i];
        out_value[to] = scale * value[i];
        out_gradient[to] = gradient[i];
    }
    for (int64_t j = features; j > 0; j--) offset[j] = offset[j - 1]; /* the scatter moved each start to its end */
    offset[0] = 0;
}

struct NAME(gradients) {
    const int64_t *offset;
    const int32_t *row;
    const REAL *value, *gradient, *pulled, *centred;
    int64_t rows, width, features, levels;
    const int64_t *level_width;
    REAL *W_enc, *b_enc, *W_dec;
};

static void NAME(gradients_features)(void *job, int64_t part, int64_t parts) {
    struct NAME(gradients) *s = job;
    int64_t D = s->width, stop = part_start(s->features, part + 1, parts), level = 0;
    for (int64_t j = part_start(s->features, part, parts); j < stop; j++) {
        int64_t at = s->offset[j], n = s->offset[j + 1] - at;
        REAL *W_enc = s->W_enc + j * D, *W_dec = s->W_dec + j * D, sum = 0;
        while (j >= s->level_width[level]) level++;
        memset(W_dec, 0, D * sizeof(REAL));
        memset(W_enc, 0, D * sizeof(REAL));
        NAME(add_rows)(W_dec, s->pulled + level * s->rows * D, s->row + at, s->value + at, n, D);
        NAME(add_rows)(W_enc, s->centred, s->row + at, s->gradient + at, n, D);
        for (int64_t i = 0; i < n; i++) sum += s->gradient[at + i];
        s->b_enc[j] = sum;
    }
}

/* Gradients of W_enc and W_dec, both [F, D], and b_enc[F], from entries sorted by feature. */
void NAME(weight_gradients)(const int64_t *offset, const int32_t *row, const REAL *value, const REAL *gradient, const REAL *pulled,
                            const REAL *centred, int64_t rows, int64_t width, int64_t features, int64_t levels,
                            const int64_t *level_width, REAL *W_enc, REAL *b_enc, REAL *W_dec, int threads) {
    struct NAME(gradients) s = {offset, row, value, gradient, pulled, centred, rows, width, features, levels, level_width, W_enc, b_enc, W_dec};
    run_parts(NAME(gradients_features), &s, threads * 32, threads);
}

/* --- parameter step -------------------------------------------------------------------------------------------------- */

struct NAME(energy) {
    const REAL *W, *gradient;
    int64_t rows, width;
    double *out; /* [parts] */
};

static void NAME(energy_rows)(void *job, int64_t part, int64_t parts) {
    struct NAME(energy) *s = job;
    int64_t stop = part_start(s->rows, part + 1, parts);
    double total = 0;
    for (int64_t row = part_start(s->rows, part, parts); row < stop; row++) {
        const REAL *gradient = s->gradient + row * s->width, *W = s->W ? s->W + row * s->width : NULL;
        REAL square = NAME(dot)(gradient, gradient, s->width);
        if (W) {
            REAL along = NAME(dot)(gradient, W, s->width), norm = NAME(dot)(W, W, s->width);
            square += along * along * (norm - 2);
        }
        total += square > 0 ? square : (square <= 0 ? 0 : square); /* rounding may go below 0; NaN stays */
    }
    s->out[part] = total;
}

/* Sum of squares of gradient[rows, width], without the part along the rows of W (NULL: all of it). */
double NAME(energy)(const REAL *W, const REAL *gradient, int64_t rows, int64_t width, int threads) {
    double out[64], total = 0;
    struct NAME(energy) s = {W, gradient, rows, width, out};
    run_parts(NAME(energy_rows), &s, 64, threads); /* always 64 parts: the sum does not depend on the threads */
    for (int part = 0; part < 64; part++) total += out[part];
    return total;
}

struct NAME(adam) {
    REAL *W, *first, *second;
    const REAL *gradient;
    int64_t rows, width;
    REAL rate, take1, beta2, take2, epsilon, correction, scale; /* take = 1 - beta, which is not exact in float from beta */
    int unit_rows;
};

static void NAME(adam_rows)(void *job, int64_t part, int64_t parts) {
    struct NAME(adam) *s = job;
    int64_t D = s->width, stop = part_start(s->rows, part + 1, parts);
    REAL rate = s->rate, take1 = s->take1, beta2 = s->beta2, take2 = s->take2, epsilon = s->epsilon;
    REAL correction = s->correction, scale = s->scale;
    for (int64_t row = part_start(s->rows, part, parts); row < stop; row++) {
        REAL *restrict W = s->W + row * D, *restrict first = s->first + row * D, *restrict second = s->second + row * D;
        const REAL *restrict gradient = s->gradient + row * D;
        REAL along = s->unit_rows ? NAME(dot)(gradient, W, D) : 0, square = 0;
        for (int64_t j = 0; j < D; j++) {
            REAL g = scale * (gradient[j] - along * W[j]);
            REAL m = first[j] + take1 * (g - first[j]), v = beta2 * second[j] + take2 * g * g;
            REAL w = W[j] - rate * m / (SQRT(v) * correction + epsilon);
            first[j] = m, second[j] = v, W[j] = w;
            square += w * w;
        }
        if (s->unit_rows) {
            REAL norm = SQRT(square), inverse = 1 / (norm > (REAL)1e-12 ? norm : (REAL)1e-12);
            for (int64_t j = 0; j < D; j++) W[j] *= inverse;
        }
    }
}

/* One Adam update of W[rows, width] with scale * gradient; see protocol.py. The bias corrections come in: the rate is over
 * 1 - beta1^t, correction = 1 / sqrt(1 - beta2^t). */
void NAME(adam)(REAL *W, const REAL *gradient, REAL *first, REAL *second, int64_t rows, int64_t width, double rate, double beta1,
                double beta2, double epsilon, double correction, double scale, int unit_rows, int threads) {
    struct NAME(adam) s = {W, first, second, gradient, rows, width,
                           (REAL)rate, (REAL)(1 - beta1), (REAL)beta2, (REAL)(1 - beta2), (REAL)epsilon,
                           (REAL)correction, (REAL)scale, unit_rows};
    run_parts(NAME(adam_rows), &s, threads * 8, threads);
}
