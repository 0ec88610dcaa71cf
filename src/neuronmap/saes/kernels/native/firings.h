/* The firings of a block of rows, counted by feature: what the feature pass keeps (neuronmap/features/collect/layout.py says what, and why
 * any order gives the same bytes; collect/firings.py beside it does the same in numpy). Single precision only. Read by engine.c. */

#define FRACTION 1099511627776.0 /* 2**40: what the low limb of a sum counts in */
#define HALF_MAX 65504.0f
#define HISTOGRAM_BINS 64
#define RESERVOIR_BINS 32
#define POSITION_BINS 16
#define LOWEST_OCTAVE (-14)

struct sampled {
    uint32_t hash, sequence, position;
    float value;
};

/* A firing with its window; followed by W half-precision numbers, padded to item_bytes. */
struct example {
    uint64_t order;
    float value;
    uint32_t sequence, position;
    uint16_t window[];
};

struct firing_arrays {
    int64_t *firings, *sum, *square; /* [F], [F, 2], [F, 2] */
    float *max;                      /* [F] */
    uint32_t *histogram, *positions; /* [F, 64], [F, 16] */
    uint16_t *top_count;             /* [F] */
    char *top;                       /* [F, top_most] examples */
    uint8_t *bin_count;              /* [F, 32] */
    char *bins;                      /* [F, 32, bin_most] examples */
    uint16_t *sample_count;          /* [F] */
    struct sampled *sample;          /* [F, sample_most] */
    uint8_t *drawn_count;            /* [F] */
    char *drawn;                     /* [F, drawn_most] examples */
};

struct firing_block {
    struct firing_arrays to;
    int64_t features, top_most, bin_most, sample_most, drawn_most, before, after, item_bytes, context_length;
    uint64_t seed;
    float inverse_unit;
    int32_t quarter[3];       /* mantissa bits from which the quarters of an octave begin */
    const uint32_t *sequence; /* [B] */
    const uint16_t *position; /* [B] */
    const uint64_t *key;      /* [B] */
    const int64_t *start;     /* [F + 1] where each feature's firings begin in the two lists below */
    const int32_t *row;       /* [N] ascending for each feature */
    const float *value;       /* [N] */
};

/* To the nearest half-precision number, ties to even; w >= 0. */
static uint16_t half_of(float w) {
    if (w > HALF_MAX) w = HALF_MAX;
    int32_t bits = bits_f32(w), exponent = (bits >> 23) - 127 + 15, shift = 13;
    uint32_t mantissa = (uint32_t)(bits & 0x7fffff), half = 0;
    if (exponent > 0) {
        half = (uint32_t)exponent << 10;
    } else { /* below the normal numbers */
        shift = 14 - exponent;
        if (shift > 24) return 0;
        mantissa |= 0x800000;
    }
    half |= mantissa >> shift;
    uint32_t rest = mantissa & ((1u << shift) - 1), middle = 1u << (shift - 1);
    half += rest > middle || (rest == middle && (half & 1));
    return (uint16_t)half;
}

static inline uint32_t draw_at(uint64_t base, uint32_t sequence, uint32_t position) {
    uint64_t x = base + ((uint64_t)sequence << 16) + position;
    x ^= x >> 30;
    x *= 0xBF58476D1CE4E5B9u;
    x ^= x >> 27;
    x *= 0x94D049BB133111EBu;
    x ^= x >> 31;
    return (uint32_t)(x >> 32);
}

static inline int histogram_bin(const struct firing_block *s, float w) {
    int32_t bits = bits_f32(w), mantissa = bits & 0x7fffff;
    int32_t bin = 4 * ((bits >> 23) - 127 - LOWEST_OCTAVE) + (mantissa >= s->quarter[0]) + (mantissa >= s->quarter[1]) +
                  (mantissa >= s->quarter[2]);
    return bin < 0 ? 0 : bin > HISTOGRAM_BINS - 1 ? HISTOGRAM_BINS - 1 : bin;
}

/* Whether (a, sequence, position) comes before (b, ...) in ascending order. */
static inline int comes_before(uint64_t a, uint32_t a_sequence, uint32_t a_position, uint64_t b, uint32_t b_sequence,
                               uint32_t b_position) {
    if (a != b) return a < b;
    return a_sequence != b_sequence ? a_sequence < b_sequence : a_position < b_position;
}

static inline struct example *item_at(const struct firing_block *s, char *list, int64_t at) {
    return (struct example *)(list + at * s->item_bytes);
}

/* Fill an item for firing i of one feature, whose firings are lo .. hi. */
static void write_example(const struct firing_block *s, struct example *item, uint64_t order, int64_t i, int64_t lo, int64_t hi) {
    int32_t row = s->row[i];
    uint32_t sequence = s->sequence[row];
    int64_t position = s->position[row];
    memset(item, 0, s->item_bytes);
    item->order = order;
    item->value = s->value[i];
    item->sequence = sequence;
    item->position = (uint32_t)position;
    int64_t first = i;
    while (first > lo && s->sequence[s->row[first - 1]] == sequence && s->position[s->row[first - 1]] >= position - s->before) first--;
    for (; first < hi; first++) {
        int32_t other = s->row[first];
        if (s->sequence[other] != sequence || s->position[other] > position + s->after) break;
        item->window[s->position[other] - position + s->before] = half_of(s->value[first] * s->inverse_unit);
    }
}

/* Make room at `at` in a list of `count` items of which `most` are kept, over the item that falls out. */
static void open_place(char *list, int64_t at, int64_t count, int64_t most, int64_t bytes) {
    int64_t kept = count < most ? count : most - 1;
    memmove(list + (at + 1) * bytes, list + at * bytes, (kept - at) * bytes);
}

static void offer_sample(const struct firing_block *s, int64_t feature, uint32_t hash, uint32_t sequence, uint32_t position, float value) {
    struct sampled *list = s->to.sample + feature * s->sample_most;
    int64_t count = s->to.sample_count[feature], low = 0, high = count;
    if (count == s->sample_most) {
        struct sampled *last = list + count - 1;
        if (!comes_before(hash, sequence, position, last->hash, last->sequence, last->position)) return;
    }
    while (low < high) {
        int64_t middle = (low + high) / 2;
        struct sampled *other = list + middle;
        if (comes_before(hash, sequence, position, other->hash, other->sequence, other->position)) high = middle;
        else low = middle + 1;
    }
    open_place((char *)list, low, count, s->sample_most, sizeof *list);
    list[low] = (struct sampled){hash, sequence, position, value};
    if (count < s->sample_most) s->to.sample_count[feature]++;
}

/* Offer firing i to a list of items that keeps those with the smallest hashes. */
static void offer_drawn(const struct firing_block *s, char *list, uint8_t *kept, int64_t most, uint32_t hash, int64_t i, int64_t lo,
                        int64_t hi) {
    int64_t count = *kept, at = count;
    uint32_t sequence = s->sequence[s->row[i]], position = s->position[s->row[i]];
    while (at > 0) {
        struct example *other = item_at(s, list, at - 1);
        if (!comes_before(hash, sequence, position, other->order, other->sequence, other->position)) break;
        at--;
    }
    if (at == most) return;
    open_place(list, at, count, most, s->item_bytes);
    write_example(s, item_at(s, list, at), hash, i, lo, hi);
    if (count < most) (*kept)++;
}

/* Offer the peak of a context, firing i. Of items with the same key the first in order stays. */
static void offer_top(const struct firing_block *s, int64_t feature, int64_t i, int64_t lo, int64_t hi) {
    char *list = s->to.top + feature * s->top_most * s->item_bytes;
    int64_t count = s->to.top_count[feature];
    float value = s->value[i];
    if (count == s->top_most && value < item_at(s, list, count - 1)->value) return; /* nearly always, soon */
    int32_t row = s->row[i];
    uint32_t sequence = s->sequence[row], position = s->position[row];
    uint64_t key = s->key[row];
    int64_t at = count, same = -1;
    for (int64_t j = count - 1; j >= 0; j--) {
        struct example *other = item_at(s, list, j);
        if (other->order == key) same = j;
        int before = other->value != value ? value > other->value
                                           : comes_before(0, sequence, position, 0, other->sequence, other->position);
        if (before) at = j;
    }
    if (same >= 0 ? same < at : at == s->top_most) return;
    /* the item that falls out is the one of the same key, or else the last */
    if (same >= 0) open_place(list, at, same, same + 1, s->item_bytes);
    else open_place(list, at, count, s->top_most, s->item_bytes);
    write_example(s, item_at(s, list, at), key, i, lo, hi);
    if (same < 0 && count < s->top_most) s->to.top_count[feature]++;
}

/* Add a number to its two limbs. */
static inline void add_fixed(int64_t *limbs, double number) {
    double whole = floor(number);
    limbs[0] += (int64_t)whole;
    limbs[1] += (int64_t)rint((number - whole) * FRACTION);
}

static inline void carry_fixed(int64_t *limbs) {
    limbs[0] += limbs[1] >> 40;
    limbs[1] &= ((int64_t)1 << 40) - 1;
}

static void count_feature(const struct firing_block *s, int64_t feature) {
    const struct firing_arrays *to = &s->to;
    int64_t lo = s->start[feature], hi = s->start[feature + 1];
    uint64_t base = s->seed * 0x9E3779B97F4A7C15u + (uint64_t)(feature + 2) * 0xD1B54A32D192ED03u;
    uint32_t *histogram = to->histogram + feature * HISTOGRAM_BINS, *positions = to->positions + feature * POSITION_BINS;
    int64_t sum[2] = {0, 0}, square[2] = {0, 0};
    int64_t peak = lo;
    float max = to->max[feature];
    for (int64_t i = lo; i < hi; i++) {
        float value = s->value[i], w = value * s->inverse_unit;
        uint32_t sequence = s->sequence[s->row[i]], position = s->position[s->row[i]];
        add_fixed(sum, w);
        add_fixed(square, (double)w * w);
        max = value > max ? value : max;
        int bin = histogram_bin(s, w);
        histogram[bin]++;
        positions[(int64_t)position * POSITION_BINS / s->context_length]++;
        uint32_t hash = draw_at(base, sequence, position);
        offer_sample(s, feature, hash, sequence, position, value);
        int64_t owner = feature * RESERVOIR_BINS + bin / (HISTOGRAM_BINS / RESERVOIR_BINS);
        offer_drawn(s, to->bins + owner * s->bin_most * s->item_bytes, to->bin_count + owner, s->bin_most, hash, i, lo, hi);
        offer_drawn(s, to->drawn + feature * s->drawn_most * s->item_bytes, to->drawn_count + feature, s->drawn_most, hash, i, lo, hi);
        if (sequence != s->sequence[s->row[peak]]) {
            offer_top(s, feature, peak, lo, hi);
            peak = i;
        } else if (value > s->value[peak]) {
            peak = i;
        }
    }
    offer_top(s, feature, peak, lo, hi);
    to->firings[feature] += hi - lo;
    to->max[feature] = max;
    for (int limb = 0; limb < 2; limb++) {
        to->sum[2 * feature + limb] += sum[limb];
        to->square[2 * feature + limb] += square[limb];
    }
    carry_fixed(to->sum + 2 * feature);
    carry_fixed(to->square + 2 * feature);
}

static void count_features(void *job, int64_t part, int64_t parts) {
    const struct firing_block *s = job;
    int64_t stop = part_start(s->features, part + 1, parts);
    for (int64_t feature = part_start(s->features, part, parts); feature < stop; feature++)
        if (s->start[feature] < s->start[feature + 1]) count_feature(s, feature);
}

/* Count the firings of a block of whole contexts.
 *
 * sizes: features, top_most, bin_most, sample_most, drawn_most, before, after, item_bytes, context_length, seed.
 * arrays: those of struct firing_arrays, in its order. Of the N entries (row, feature, value), in row order, all are firings.
 * start[F + 1], sorted_row[N] and sorted_value[N] are scratch. */
void count_firings(const int64_t *sizes, float inverse_unit, const float *quarters, void *const *arrays, const int32_t *row,
                   const int32_t *feature, const float *value, int64_t entries, const uint32_t *sequence, const uint16_t *position,
                   const uint64_t *key, int64_t *start, int32_t *sorted_row, float *sorted_value, int threads) {
    struct firing_block s = {
        {arrays[0], arrays[1], arrays[2], arrays[3], arrays[4], arrays[5], arrays[6], arrays[7], arrays[8], arrays[9], arrays[10],
         arrays[11], arrays[12], arrays[13]},
        sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], sizes[7], sizes[8], (uint64_t)sizes[9], inverse_unit,
        {0}, sequence, position, key, start, sorted_row, sorted_value};
    for (int q = 0; q < 3; q++) s.quarter[q] = bits_f32(quarters[q]) & 0x7fffff;
    /* a stable sort by counting: the firings of a feature stay in row order */
    memset(start, 0, (s.features + 1) * sizeof *start);
    for (int64_t i = 0; i < entries; i++) start[feature[i] + 1]++;
    for (int64_t f = 0; f < s.features; f++) start[f + 1] += start[f];
    for (int64_t i = 0; i < entries; i++) {
        int64_t at = start[feature[i]]++;
        sorted_row[at] = row[i];
        sorted_value[at] = value[i];
    }
    memmove(start + 1, start, s.features * sizeof *start); /* each has moved on to the next one's begin */
    start[0] = 0;
    run_parts(count_features, &s, threads * 16, threads);
}
