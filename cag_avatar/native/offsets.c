/* The offset network and the Gaussians' own matrices in training: outputs, and gradients by hand.
 *
 * What OffsetNetwork, LocalOffsets and the weighted sum of CrossAttentionFusion do, BLOCK Gaussians
 * at a time, so that what a layer leaves is still in the cache when the next one reads it. Weights
 * come and their gradients go as torch keeps them, [outputs, inputs]. Gradients of weights are
 * summed in SHARES parts that do not depend on the number of threads, so that the result does not
 * either.
 */
#include "lanes.h"

enum {
    OUTPUTS = 12,
    ROOM = 16,  /* OUTPUTS rounded up to any LANES */
    BLOCK = 32, /* rows worked on together */
    TALL = 8,   /* rows of the innermost loop */
    SHARES = 8,
    MOST_LAYERS = 18,
};

typedef struct {
    int32_t gaussians, rows, heads, tokens, head_size, context, encoding, width, hidden, local,
        threads;
    int32_t reserved;
    const int64_t *row;               /* [rows] Gaussians meant; NULL: all */
    const float *gate;                /* [heads, gaussians, tokens]; NULL: all share one context */
    const float *values;              /* [heads, tokens, head_size], or [context] */
    const float *encoded;             /* [gaussians, encoding] */
    const float *weight[MOST_LAYERS]; /* of the first, hidden and last layers, [outputs, inputs];
                                first: encoding, context */
    const float *bias[MOST_LAYERS];
    const float *own;  /* [gaussians, local, OUTPUTS] */
    const float *gain; /* [gaussians, OUTPUTS] */
    float *out;        /* [rows, OUTPUTS] */
    const float
        *grad; /* [rows, OUTPUTS] of out; what follows is only for gradients, and added to */
    float *grad_weight[MOST_LAYERS], *grad_bias[MOST_LAYERS];
    float *grad_own; /* [gaussians, local, OUTPUTS]; set in the rows meant */
    float *grad_values;
    float *grad_gate; /* [heads, rows, tokens]; NULL: not wanted */
} Offsets;

int64_t cag_offsets_size(void) { return sizeof(Offsets); }

static inline int up(int x, int step) { return (x + step - 1) / step * step; }

/* C[m, n] = start[m * start_step + n] + sum over k of A[m * across + k * along] B[k, n], without
 * what is below 0 if so wanted; m counts in TALL, n in LANES. */
static inline __attribute__((always_inline)) void strip(
    int k_count, const float *a, int across, int along, const float *b, int b_step, float *c,
    int c_step, const float *start, int start_step, int rectify, int wide
) {
    vec sum[TALL][2];
#pragma GCC unroll 8
    for (int m = 0; m < TALL; m++)
        for (int v = 0; v < wide; v++) sum[m][v] = load(start + m * start_step + v * LANES);
    for (int k = 0; k < k_count; k++) {
        vec row[2];
        for (int v = 0; v < wide; v++) row[v] = load(b + (size_t)k * b_step + v * LANES);
#pragma GCC unroll 8
        for (int m = 0; m < TALL; m++) {
            vec factor = splat(a[m * across + k * along]);
            for (int v = 0; v < wide; v++) sum[m][v] += factor * row[v];
        }
    }
    if (rectify)
#pragma GCC unroll 8
        for (int m = 0; m < TALL; m++)
            for (int v = 0; v < wide; v++) sum[m][v] = most(sum[m][v], splat(0));
#pragma GCC unroll 8
    for (int m = 0; m < TALL; m++)
        for (int v = 0; v < wide; v++) store(c + m * c_step + v * LANES, sum[m][v]);
}

static void affine(
    int m_count, int n_count, int k_count, const float *a, int across, int along, const float *b,
    int b_step, float *c, int c_step, const float *start, int start_step, int rectify
) {
    for (int n = 0; n < n_count;) {
        int wide = n + 2 * LANES <= n_count ? 2 : 1;
        for (int m = 0; m < m_count; m += TALL) {
            const float *from = a + (size_t)m * across, *first = start + m * start_step + n;
            float *to = c + (size_t)m * c_step + n;
            if (wide == 2)
                strip(
                    k_count, from, across, along, b + n, b_step, to, c_step, first, start_step,
                    rectify, 2
                );
            else
                strip(
                    k_count, from, across, along, b + n, b_step, to, c_step, first, start_step,
                    rectify, 1
                );
        }
        n += wide * LANES;
    }
}

/* C[m, n] += sum over k of A[m * across + k * along] B[k, n]; m counts in TALL, n in LANES. */
static void product(
    int m_count, int n_count, int k_count, const float *a, int across, int along, const float *b,
    int b_step, float *c, int c_step
) {
    affine(m_count, n_count, k_count, a, across, along, b, b_step, c, c_step, c, c_step, 0);
}

/* Sizes rounded up, and the weights input by input ([inputs, outputs], zeros beyond). The context
 * comes first in the rows of the first layer's weights, padded, then the encoding. */
typedef struct {
    int context, inputs, width, tokens, layers;
    float *forward[MOST_LAYERS], *bias[MOST_LAYERS]; /* [inputs, outputs] */
    float *back[MOST_LAYERS]; /* [outputs, inputs], padded; of the first layer the context alone */
    float *values, *values_back; /* [heads, tokens, head_size], [heads, head_size, padded tokens] */
    float *zeros;                /* [head_size] */
    size_t sums;                 /* floats of a share's sums of gradients */
    size_t at_weight[MOST_LAYERS], at_bias[MOST_LAYERS], at_values;
} Packed;

static int inputs_of(const Packed *p, int layer) { return layer ? p->width : p->inputs; }

static int outputs_of(const Packed *p, int layer) {
    return layer == p->layers - 1 ? ROOM : p->width;
}

static float *carve(float **room, size_t count) {
    float *own = *room;
    *room += (count + 15) / 16 * 16;
    return own;
}

/* Where torch keeps what lies at row i of a packed layer; -1 for padding. */
static inline int torch_input(const Offsets *o, const Packed *p, int layer, int i) {
    if (layer) return i < o->width ? i : -1;
    if (i < p->context) return i < o->context ? o->encoding + i : -1;
    return i - p->context < o->encoding ? i - p->context : -1;
}

static int torch_inputs(const Offsets *o, int layer) {
    return layer ? o->width : o->encoding + o->context;
}

static int torch_outputs(const Offsets *o, const Packed *p, int layer) {
    return layer == p->layers - 1 ? OUTPUTS : o->width;
}

static float *pack(const Offsets *o, Packed *p) {
    p->layers = o->hidden + 2;
    p->context = up(o->context, LANES > TALL ? LANES : TALL);
    p->width = up(o->width, LANES > TALL ? LANES : TALL);
    p->inputs = p->context + up(o->encoding, TALL);
    p->tokens = up(o->tokens, LANES > TALL ? LANES : TALL);
    size_t largest = (size_t)(p->inputs > p->width ? p->inputs : p->width) + 16;
    size_t own = 2 * largest * (p->width + 16) + p->width + 32;
    size_t values = (size_t)o->heads * p->tokens * o->head_size + o->context + o->head_size;
    size_t all = p->layers * own + 2 * values + 96;
    float *block = aligned_alloc(64, up(all * sizeof(float), 64)), *room = block;
    if (!block) return NULL;
    memset(block, 0, all * sizeof(float));
    p->sums = 0;
    for (int layer = 0; layer < p->layers; layer++) {
        int in = inputs_of(p, layer), out = outputs_of(p, layer);
        int have = torch_outputs(o, p, layer), stride = torch_inputs(o, layer);
        int back = layer ? in : p->context;
        p->forward[layer] = carve(&room, (size_t)in * out);
        p->back[layer] = carve(&room, (size_t)out * back);
        p->bias[layer] = carve(&room, out);
        for (int i = 0; i < in; i++) {
            int from = torch_input(o, p, layer, i);
            if (from < 0) continue;
            for (int k = 0; k < have; k++) {
                float w = o->weight[layer][(size_t)k * stride + from];
                p->forward[layer][(size_t)i * out + k] = w;
                if (i < back) p->back[layer][(size_t)k * back + i] = w;
            }
        }
        memcpy(p->bias[layer], o->bias[layer], have * sizeof(float));
        p->at_weight[layer] = p->sums, p->sums += (size_t)in * out;
        p->at_bias[layer] = p->sums, p->sums += out;
    }
    p->values = carve(&room, (size_t)o->heads * o->tokens * o->head_size + o->context);
    p->values_back = carve(&room, (size_t)o->heads * o->head_size * p->tokens);
    p->zeros = carve(&room, o->head_size);
    p->at_values = p->sums;
    if (o->gate) {
        int T = o->tokens, S = o->head_size;
        memcpy(p->values, o->values, sizeof(float) * o->heads * T * S);
        for (int h = 0; h < o->heads; h++)
            for (int t = 0; t < T; t++)
                for (int s = 0; s < S; s++)
                    p->values_back[((size_t)h * S + s) * p->tokens + t] =
                        o->values[((size_t)h * T + t) * S + s];
        p->sums += (size_t)o->heads * p->tokens * S;
    } else {
        p->sums += p->context;
    }
    return block;
}

/* A thread's room for one block of rows. */
typedef struct {
    float *gate;                        /* [heads, BLOCK, tokens] */
    float *in;                          /* [BLOCK, inputs] */
    float *after[MOST_LAYERS - 1];      /* [BLOCK, width] of the first and hidden layers */
    float *out;                         /* [BLOCK, ROOM] */
    float *grad, *other, *grad_context; /* [BLOCK, width], [BLOCK, width], [BLOCK, context] */
    float *grad_gate;                   /* [BLOCK, padded tokens] */
} Rows;

static float *make_rows(const Offsets *o, const Packed *p, Rows *r) {
    size_t all =
        (size_t)BLOCK * ((size_t)o->heads * p->tokens + p->inputs +
                         (size_t)p->width * (p->layers + 1) + 2 * ROOM + p->context + p->tokens) +
        64 * (p->layers + 8);
    float *block = aligned_alloc(64, up(all * sizeof(float), 64)), *room = block;
    if (!block) return NULL;
    memset(block, 0, all * sizeof(float));
    r->gate = carve(&room, (size_t)o->heads * BLOCK * p->tokens);
    r->in = carve(&room, (size_t)BLOCK * p->inputs);
    for (int k = 0; k < p->layers - 1; k++) r->after[k] = carve(&room, (size_t)BLOCK * p->width);
    r->out = carve(&room, BLOCK * ROOM);
    r->grad = carve(&room, (size_t)BLOCK * p->width + BLOCK * ROOM);
    r->other = carve(&room, (size_t)BLOCK * p->width);
    r->grad_context = carve(&room, (size_t)BLOCK * p->context);
    r->grad_gate = carve(&room, (size_t)BLOCK * p->tokens);
    return block;
}

static inline size_t gaussian_of(const Offsets *o, int row) {
    return o->row ? (size_t)o->row[row] : (size_t)row;
}

/* Rows first .. first + count through the network; rows beyond count repeat what lay there. */
static void forward_rows(const Offsets *o, const Packed *p, const Rows *r, int first, int count) {
    int T = o->tokens, S = o->head_size, tall = up(count, TALL);
    /* Gates of Gaussians that follow each other are read where they lie. */
    int in_place = !o->row && !o->grad && tall == count, gate_step = in_place ? T : p->tokens;
    for (int i = 0; i < count; i++) {
        size_t g = gaussian_of(o, first + i);
        float *in = r->in + (size_t)i * p->inputs;
        memcpy(in + p->context, o->encoded + g * o->encoding, o->encoding * sizeof(float));
        if (!o->gate) memcpy(in, o->values, o->context * sizeof(float));
        for (int h = 0; o->gate && !in_place && h < o->heads; h++)
            memcpy(
                r->gate + ((size_t)h * BLOCK + i) * p->tokens,
                o->gate + ((size_t)h * o->gaussians + g) * T, T * sizeof(float)
            );
    }
    for (int h = 0; o->gate && h < o->heads; h++) {
        const float *gate = in_place ? o->gate + ((size_t)h * o->gaussians + first) * T
                                     : r->gate + (size_t)h * BLOCK * p->tokens;
        affine(
            tall, S, T, gate, gate_step, 1, p->values + (size_t)h * T * S, S, r->in + h * S,
            p->inputs, p->zeros, 0, 0
        );
    }
    const float *in = r->in;
    for (int layer = 0; layer < p->layers; layer++) {
        int last = layer == p->layers - 1, outputs = outputs_of(p, layer),
            inputs = inputs_of(p, layer);
        float *out = last ? r->out : r->after[layer];
        affine(
            tall, outputs, inputs, in, inputs, 1, p->forward[layer], outputs, out, outputs,
            p->bias[layer], 0, !last
        );
        in = out;
    }
    for (int i = 0; o->local && i < count; i++) {
        size_t g = gaussian_of(o, first + i);
        const float *own = o->own + g * o->local * OUTPUTS,
                    *context = r->in + (size_t)i * p->inputs;
        float sum[OUTPUTS] = {0};
        for (int k = 0; k < o->local; k++)
            for (int c = 0; c < OUTPUTS; c++) sum[c] += context[k] * own[k * OUTPUTS + c];
        for (int c = 0; c < OUTPUTS; c++) r->out[i * ROOM + c] += sum[c] * o->gain[g * OUTPUTS + c];
    }
}

/* Outputs of all rows. Returns 0, or -1 without memory. */
int32_t cag_offsets(const Offsets *o) {
    Packed p;
    float *packed = pack(o, &p);
    int blocks = up(o->rows, BLOCK) / BLOCK;
    int32_t counter = 0, failed = packed == NULL;
#pragma omp parallel num_threads(o->threads)
    {
        Rows r;
        float *room = failed ? NULL : make_rows(o, &p, &r);
        if (!room) failed = 1;
        for (int own = take(&counter); room && own < blocks; own = take(&counter)) {
            int first = own * BLOCK, count = o->rows - first < BLOCK ? o->rows - first : BLOCK;
            forward_rows(o, &p, &r, first, count);
            for (int i = 0; i < count; i++)
                memcpy(
                    o->out + (size_t)(first + i) * OUTPUTS, r.out + i * ROOM,
                    OUTPUTS * sizeof(float)
                );
        }
        free(room);
    }
    free(packed);
    return failed ? -1 : 0;
}

static void local_backward(const Offsets *o, const Packed *p, const Rows *r, int row, int i) {
    size_t g = gaussian_of(o, row);
    const float *own = o->own + g * o->local * OUTPUTS, *context = r->in + (size_t)i * p->inputs;
    float *grad_own = o->grad_own + g * o->local * OUTPUTS,
          *to = r->grad_context + (size_t)i * p->context;
    float scaled[OUTPUTS];
    for (int c = 0; c < OUTPUTS; c++)
        scaled[c] = o->grad[(size_t)row * OUTPUTS + c] * o->gain[g * OUTPUTS + c];
    for (int k = 0; k < o->local; k++) {
        float sum = 0;
        for (int c = 0; c < OUTPUTS; c++) {
            grad_own[k * OUTPUTS + c] = context[k] * scaled[c];
            sum += own[k * OUTPUTS + c] * scaled[c];
        }
        to[k] += sum;
    }
}

/* Gradients of a block of rows, weights' into sums. */
static void
backward_rows(const Offsets *o, const Packed *p, Rows *r, int first, int count, float *sums) {
    int T = o->tokens, S = o->head_size, tall = up(count, TALL);
    forward_rows(o, p, r, first, count);
    float *grad = r->grad, *other = r->other;
    memset(grad, 0, sizeof(float) * tall * ROOM);
    for (int i = 0; i < count; i++)
        memcpy(grad + i * ROOM, o->grad + (size_t)(first + i) * OUTPUTS, OUTPUTS * sizeof(float));
    memset(r->grad_context, 0, sizeof(float) * tall * p->context);
    for (int layer = p->layers - 1; layer >= 0; layer--) {
        int outputs = outputs_of(p, layer), inputs = inputs_of(p, layer),
            back = layer ? inputs : p->context;
        const float *in = layer ? r->after[layer - 1] : r->in;
        float *bias = sums + p->at_bias[layer], *to = layer ? other : r->grad_context;
        product(
            inputs, outputs, tall, in, 1, inputs, grad, outputs, sums + p->at_weight[layer], outputs
        );
        for (int i = 0; i < count; i++)
            for (int k = 0; k < outputs; k++) bias[k] += grad[(size_t)i * outputs + k];
        if (layer) memset(to, 0, sizeof(float) * tall * back);
        product(tall, back, outputs, grad, outputs, 1, p->back[layer], back, to, back);
        if (!layer) break;
        for (int i = 0; i < tall * back; i++) to[i] = in[i] > 0 ? to[i] : 0;
        float *swap = grad;
        grad = other, other = swap;
    }
    for (int i = 0; o->local && i < count; i++) local_backward(o, p, r, first + i, i);
    float *values = sums + p->at_values;
    if (!o->gate) {
        for (int i = 0; i < count; i++)
            for (int k = 0; k < o->context; k++)
                values[k] += r->grad_context[(size_t)i * p->context + k];
        return;
    }
    for (int h = 0; h < o->heads; h++) {
        const float *gate = r->gate + (size_t)h * BLOCK * p->tokens;
        product(
            p->tokens, S, count, gate, 1, p->tokens, r->grad_context + h * S, p->context,
            values + (size_t)h * p->tokens * S, S
        );
        if (!o->grad_gate) continue;
        memset(r->grad_gate, 0, sizeof(float) * tall * p->tokens);
        product(
            tall, p->tokens, S, r->grad_context + h * S, p->context, 1,
            p->values_back + (size_t)h * S * p->tokens, p->tokens, r->grad_gate, p->tokens
        );
        for (int i = 0; i < count; i++)
            memcpy(
                o->grad_gate + ((size_t)h * o->rows + first + i) * T,
                r->grad_gate + (size_t)i * p->tokens, T * sizeof(float)
            );
    }
}

/* Add a share's sums to the gradients as torch keeps them. */
static void add_sums(const Offsets *o, const Packed *p, const float *sums) {
    for (int layer = 0; layer < p->layers; layer++) {
        int in = inputs_of(p, layer), out = outputs_of(p, layer);
        int have = torch_outputs(o, p, layer), stride = torch_inputs(o, layer);
        const float *weight = sums + p->at_weight[layer], *bias = sums + p->at_bias[layer];
        for (int i = 0; i < in; i++) {
            int to = torch_input(o, p, layer, i);
            for (int k = 0; to >= 0 && k < have; k++)
                o->grad_weight[layer][(size_t)k * stride + to] += weight[(size_t)i * out + k];
        }
        for (int k = 0; k < have; k++) o->grad_bias[layer][k] += bias[k];
    }
    const float *values = sums + p->at_values;
    for (int k = 0; !o->gate && k < o->context; k++) o->grad_values[k] += values[k];
    for (int h = 0; o->gate && h < o->heads; h++)
        for (int k = 0; k < o->tokens * o->head_size; k++)
            o->grad_values[(size_t)h * o->tokens * o->head_size + k] +=
                values[(size_t)h * p->tokens * o->head_size + k];
}

/* Gradients of everything from those of the outputs. Returns 0, or -1 without memory. */
int32_t cag_offsets_backward(const Offsets *o) {
    Packed p;
    float *packed = pack(o, &p);
    float *sums = packed ? calloc(SHARES * p.sums, sizeof(float)) : NULL;
    int blocks = up(o->rows, BLOCK) / BLOCK;
    int32_t counter = 0, failed = sums == NULL;
#pragma omp parallel num_threads(o->threads)
    {
        Rows r;
        float *room = failed ? NULL : make_rows(o, &p, &r);
        if (!room) failed = 1;
        for (int share = take(&counter); room && share < SHARES; share = take(&counter)) {
            int from = (int)((int64_t)blocks * share / SHARES),
                to = (int)((int64_t)blocks * (share + 1) / SHARES);
            for (int own = from; own < to; own++) {
                int first = own * BLOCK, count = o->rows - first < BLOCK ? o->rows - first : BLOCK;
                backward_rows(o, &p, &r, first, count, sums + share * p.sums);
            }
        }
        free(room);
    }
    for (int share = 0; !failed && share < SHARES; share++) add_sums(o, &p, sums + share * p.sums);
    free(sums);
    free(packed);
    return failed ? -1 : 0;
}
