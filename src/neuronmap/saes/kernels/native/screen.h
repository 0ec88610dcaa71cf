/* Screening, for float alone: a product of bfloat16 factors says where to look, float dot products say what is there.
 *
 * With ~x and ~w the rounded factors, pre = x . w lies within |x - ~x| |~w| + |x| |w - ~w| of ~x . ~w; the product adds its own rounding, at
 * most |product| / 256, and that of its sums (screening.py has the figures). An entry that may exceed what it has to is a candidate; its pre-activation is then a dot product of its own, always
 * summed in the same order. What is found is therefore what a float product would find, and no row's result depends on which rows are
 * beside it. pre[B, width] holds the products of a block of features, bias, up, down and reach the block's part of their vectors. */

#define WORDS 16 /* floats of a vector register, at most */

typedef float words __attribute__((vector_size(WORDS * sizeof(float)), aligned(sizeof(float))));

static inline float wide(uint16_t half) { return value_of_f32((int32_t)((uint32_t)half << 16)); }

static const float ROUNDED = 1.01f / 256; /* of a bfloat16 result, with what the estimate's own sums may lose */

/* --- factors ---------------------------------------------------------------------------------------------------------- */

struct halving {
    const float *in;
    int64_t rows, width;
    uint16_t *out;
    float *norm, *error;
};

static void halve_rows(void *job, int64_t part, int64_t parts) {
    struct halving *s = job;
    int64_t stop = part_start(s->rows, part + 1, parts);
    for (int64_t row = part_start(s->rows, part, parts); row < stop; row++) {
        const float *in = s->in + row * s->width;
        uint16_t *out = s->out + row * s->width;
        double square = 0, lost = 0; /* squares of small numbers must not vanish */
        for (int64_t j = 0; j < s->width; j++) {
            uint32_t bits;
            memcpy(&bits, in + j, sizeof bits);
            out[j] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16); /* to nearest, ties to even */
            if (!(out[j] & 0x7f80)) out[j] &= 0x8000; /* the units take numbers below 2^-126 for 0 */
            double value = in[j], off = value - wide(out[j]);
            square += value * value, lost += off * off;
        }
        s->norm[row] = (float)sqrt(square), s->error[row] = (float)sqrt(lost);
    }
}

/* bfloat16 copies of rows [rows, width], the rows' norms, and those of what the copies are off by. */
void halve(const float *in, int64_t rows, int64_t width, uint16_t *out, float *norm, float *error, int threads) {
    struct halving s = {in, rows, width, out, norm, error};
    run_parts(halve_rows, &s, threads * 8, threads);
}

/* --- candidates and their values -------------------------------------------------------------------------------------- */

struct screen {
    const uint16_t *pre;
    const float *x, *W; /* [B, depth]; rows of W_enc of this block's features */
    const float *norm, *error;                     /* [B] |x|, |x - ~x| */
    const float *length, *reach, *bias, *up, *down; /* of the features: |w|, |w - ~w| with the sums' share, bias, bias rounded up and down */
    int64_t rows, width, depth, first;
};

/* Which of a group of LANES features (fewer at the end of a block) may exceed a bound, or each its own floor. What is no number may. */
static inline uint32_t promising(const struct screen *s, const uint16_t *pre, int64_t i, int64_t row, const float *floor, float bound) {
    const float *length = s->length + i, *reach = s->reach + i, *up = s->up + i, norm = s->norm[row], error = s->error[row];
    int64_t lanes = s->width - i < LANES ? s->width - i : LANES;
    float most[LANES];
    uint32_t mask = 0;
    pre += i;
    if (lanes < LANES)
        for (int j = 0; j < lanes; j++) most[j] = wide(pre[j]) + fabsf(wide(pre[j])) * ROUNDED + (error * length[j] + norm * reach[j]) + up[j];
    else /* a known length is what makes vectors of it */
        for (int j = 0; j < LANES; j++) most[j] = wide(pre[j]) + fabsf(wide(pre[j])) * ROUNDED + (error * length[j] + norm * reach[j]) + up[j];
    if (lanes < LANES)
        for (int j = 0; j < lanes; j++) mask |= (uint32_t)!(most[j] <= (floor ? floor[i + j] : bound)) << j;
    else if (floor)
        for (int j = 0; j < LANES; j++) mask |= (uint32_t)!(most[j] <= floor[i + j]) << j;
    else
        for (int j = 0; j < LANES; j++) mask |= (uint32_t)!(most[j] <= bound) << j;
    return mask;
}

static inline float summed(words sum) {
    for (int half = WORDS / 2; half; half /= 2)
        for (int j = 0; j < half; j++) sum[j] += sum[j + half];
    return sum[0];
}

/* Products of a row with four of W, while the next four are fetched. */
static inline void four_dots(const float *x, const float *const *w, const float *const *next, int64_t depth, float *out) {
    const float *a = w[0], *b = w[1], *c = w[2], *d = w[3];
    words p = {0}, q = {0}, r = {0}, t = {0};
    int64_t j = 0;
    for (; j + WORDS <= depth; j += WORDS) {
        const words at = *(const words *)(x + j);
        __builtin_prefetch(next[0] + j), __builtin_prefetch(next[1] + j), __builtin_prefetch(next[2] + j), __builtin_prefetch(next[3] + j);
        p += at * *(const words *)(a + j), q += at * *(const words *)(b + j);
        r += at * *(const words *)(c + j), t += at * *(const words *)(d + j);
    }
    out[0] = summed(p), out[1] = summed(q), out[2] = summed(r), out[3] = summed(t);
    for (; j < depth; j++) out[0] += x[j] * a[j], out[1] += x[j] * b[j], out[2] += x[j] * c[j], out[3] += x[j] * d[j];
}

/* Pre-activations of a row at some of the block's features. */
static void values_at(const struct screen *s, int64_t row, const int32_t *at, int64_t n, float *value) {
    const float *x = s->x + row * s->depth;
    for (int64_t i = 0; i < n; i += 4) {
        const float *w[4], *next[4];
        float out[4];
        for (int64_t m = 0; m < 4; m++) { /* the last one stands in for those that are missing */
            w[m] = s->W + at[i + m < n ? i + m : n - 1] * s->depth;
            next[m] = s->W + at[i + 4 + m < n ? i + 4 + m : n - 1] * s->depth;
        }
        four_dots(x, w, next, s->depth, out);
        for (int64_t m = 0; m < 4 && i + m < n; m++) value[i + m] = out[m] + s->bias[at[i + m]];
    }
}

/* --- everything above a floor, or a bound ----------------------------------------------------------------------------- */

struct collect_screened {
    struct screen screen;
    struct collector_f32 *c;
    const float *floor;
    float bound;
    int32_t *count;
};

static void collect_screened_rows(void *job, int64_t part, int64_t parts) {
    struct collect_screened *s = job;
    struct collector_f32 *c = s->c;
    const struct screen *b = &s->screen;
    int64_t stop = part_start(c->rows, part + 1, parts), size = c->size[part];
    for (int64_t row = part_start(c->rows, part, parts); row < stop; row++) {
        const uint16_t *pre = b->pre + row * b->width;
        if (!grow_f32(c, part, size + b->width)) {
            c->failed = 1;
            return;
        }
        float *value = c->value[part] + size;
        int32_t *feature = c->feature[part] + size;
        int64_t n = 0, kept = 0;
        for (int64_t i = 0; i < b->width; i += LANES)
            for (uint32_t mask = promising(b, pre, i, row, s->floor, s->bound); mask; mask &= mask - 1)
                feature[n++] = (int32_t)(i + __builtin_ctz(mask));
        values_at(b, row, feature, n, value);
        for (int64_t i = 0; i < n; i++) {
            int32_t at = feature[i];
            float found = value[i];
            value[kept] = found;
            feature[kept] = (int32_t)(b->first + at);
            kept += found > (s->floor ? s->floor[at] : s->bound);
        }
        s->count[row] = (int32_t)kept;
        size += kept;
    }
    c->size[part] = size;
}

/* collect_block of a screened block. */
int64_t collect_screened(struct collector_f32 *c, const uint16_t *pre, const float *x, const float *W, const float *norm, const float *error,
                         const float *length, const float *reach, const float *bias, const float *up, const float *floor, float bound, int64_t width, int64_t depth, int64_t first,
                         int threads) {
    int32_t *count = next_block_f32(c);
    if (!count) return -1;
    struct collect_screened s = {{pre, x, W, norm, error, length, reach, bias, up, NULL, c->rows, width, depth, first}, c, floor, bound, count};
    run_parts(collect_screened_rows, &s, c->parts, threads);
    return c->failed ? -1 : collector_size_f32(c);
}

/* --- the k largest of each row ---------------------------------------------------------------------------------------- */

struct top_k_screened {
    struct screen screen;
    struct top_k_f32 search;
};

/* A bound that at least k of a row's values exceed: first_bound of the least that they can be. */
static float first_bound_screened(const struct screen *s, const uint16_t *pre, int64_t row, int64_t k, int64_t groups, float *maximum) {
    float norm = s->norm[row], error = s->error[row];
    for (int64_t j = 0; j < groups; j++) maximum[j] = 0;
    for (int64_t i = 0; i + groups <= s->width; i += groups)
        for (int64_t j = 0; j < groups; j++) {
            float p = wide(pre[i + j]), off = fabsf(p) * ROUNDED + (error * s->length[i + j] + norm * s->reach[i + j]);
            float least = p - off + s->down[i + j];
            maximum[j] = least > maximum[j] ? least : maximum[j];
        }
    int64_t tied;
    return below_f32(cut_f32(maximum, groups, k, &tied));
}

/* Add those of the pending features that exceed the row's bound to its candidates. */
static void add_pending(struct top_k_screened *s, int64_t row, const int32_t *pending, int64_t n) {
    struct top_k_f32 *t = &s->search;
    float value[2 * LANES];
    if (t->count[row] + n > t->capacity) tighten_row_f32(t, row);
    int64_t count = t->count[row];
    float *to = t->value + row * t->capacity, bound = t->bound[row];
    int32_t *feature = t->feature + row * t->capacity;
    values_at(&s->screen, row, pending, n, value);
    for (int64_t i = 0; i < n; i++) {
        if (!(value[i] > bound)) continue;
        to[count] = value[i];
        feature[count++] = (int32_t)(s->screen.first + pending[i]);
    }
    t->count[row] = (int32_t)count;
}

static void top_k_screened_rows(void *job, int64_t part, int64_t parts) {
    struct top_k_screened *s = job;
    struct top_k_f32 *t = &s->search;
    const struct screen *b = &s->screen;
    int64_t stop = part_start(t->rows, part + 1, parts);
    int64_t groups = (2 * t->k + LANES - 1) / LANES * LANES;
    float maximum[1024];
    int32_t pending[2 * LANES];
    for (int64_t row = part_start(t->rows, part, parts); row < stop; row++) {
        const uint16_t *pre = b->pre + row * b->width;
        if (b->first == 0) {
            t->count[row] = 0;
            t->bound[row] = 0;
            if (groups <= 1024 && 2 * groups <= b->width)
                t->bound[row] = first_bound_screened(b, pre, row, t->k, groups, maximum);
        }
        int64_t n = 0;
        for (int64_t i = 0; i < b->width; i += LANES) {
            for (uint32_t mask = promising(b, pre, i, row, NULL, t->bound[row]); mask; mask &= mask - 1)
                pending[n++] = (int32_t)(i + __builtin_ctz(mask));
            if (n < LANES) continue;
            add_pending(s, row, pending, n);
            n = 0;
        }
        add_pending(s, row, pending, n);
        if (t->last || t->count[row] > t->k + t->k / 2) tighten_row_f32(t, row);
    }
}

/* top_k_block of a screened block. */
void top_k_screened(const uint16_t *pre, const float *x, const float *W, const float *norm, const float *error, const float *length,
                    const float *reach, const float *bias, const float *up, const float *down, int64_t rows, int64_t width, int64_t depth, int64_t first, int64_t k,
                    int64_t capacity, int last, float *value, int32_t *feature, int32_t *count, float *bound, int threads) {
    struct top_k_screened s = {{pre, x, W, norm, error, length, reach, bias, up, down, rows, width, depth, first},
                               {NULL, bias, rows, width, first, k, capacity, last, value, feature, count, bound}};
    run_parts(top_k_screened_rows, &s, threads * 4, threads);
}
