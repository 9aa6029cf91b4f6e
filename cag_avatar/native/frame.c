/* One frame of a compiled avatar: posed mesh -> Gaussians -> picture, on all cores.
 *
 * Stages: the offset network (of a few Gaussians, from which the weights of the basis follow, or of
 * all), skin the mesh, frames of its triangles, carry and project every Gaussian, sort by depth,
 * bin into tiles, blend. Everything is single precision and laid out by component ([component][N]),
 * so that the loops over Gaussians vectorise; pixels are blended LANES at a time. The same picture
 * as cpu_kernels.py up to rounding, except that a pixel stops at a transmittance that 8 bits cannot
 * show.
 *
 * As there, the quadratic form of a Gaussian is u^2 + v^2 with u = a dx + b dy and v = c dy, and
 * opacity 2^(log2 opacity - u^2 - v^2).
 */
#include "lanes.h"

enum {
    TILE = 32,       /* pixels along each side of a tile */
    PATCH_WIDTH = 4, /* a patch is as many pixels as are blended together */
    PATCH_HEIGHT = LANES / PATCH_WIDTH,
    COLUMNS = TILE / PATCH_WIDTH,
    BANDS = TILE / PATCH_HEIGHT,
    BLOCK = 64,   /* Gaussians worked on together */
    OUTPUTS = 12, /* numbers of an offset: position, rotation, log-scale, colour */
    RADIX = 11,   /* bits of a sorting pass; two passes */
    ROWS = 8,     /* Gaussians that the network is run on together */
    OUTPUT_ROOM = 16,
};

static const float LOG2_MAX_ALPHA = -1.4434168696687186e-3f; /* of 0.999 */
static const float NEAR_PLANE = 0.01f, FAR_PLANE = 100.0f;
/* A colour that comes after this much was let through changes 8 bits by a quarter step at most. */
static const float SHOWN_TRANSMITTANCE = 1e-3f;
static const float WHITEN = 0.84932180028801904f; /* sqrt(log2(e) / 2) */
static const float LOG2_E = 1.4426950408889634f;
static const float LOG2_255 = 7.9943534368588577f;
/* 2^f on [0, 1] as a polynomial through Chebyshev nodes, relative error 4e-6. */
static const float E0 = 1.000003457f, E1 = 6.929728985e-1f, E2 = 2.416043580e-1f;
static const float E3 = 5.174499750e-2f, E4 = 1.367030945e-2f;
/* Supports are widened by this much in log2(alpha), to be safe from single precision. */
static const float SUPPORT_MARGIN = 2e-5f;

/* The offset network on M Gaussians (a multiple of ROWS). Widths and head_size are multiples of
 * LANES, matrices lie input by input: [inputs, outputs]. */
typedef struct {
    int32_t rows, context, heads, tokens, head_size, width, hidden, local;
    const float *gate;         /* [heads, M, tokens] attention weights; NULL: all share a context */
    const float *first;        /* [M, width] of the first layer, what does not change */
    const float *from_context; /* [context, width] */
    const float *hidden_weight; /* [hidden, width, width] */
    const float *hidden_bias;   /* [hidden, width] */
    const float *last_weight;   /* [width, OUTPUT_ROOM] */
    const float *last_bias;     /* [OUTPUT_ROOM] */
    const float *local_weight;  /* [M, local, OUTPUT_ROOM], times the gain */
    const float *limit;         /* [M, OUTPUT_ROOM] */
    const float *mean;          /* [M, OUTPUT_ROOM] taken off before solve; 0 beyond OUTPUTS */
    const float *solve;         /* [rank, M, OUTPUT_ROOM] */
} Network;

/* Constant for an avatar. N is a multiple of BLOCK; padding has opacity 0. */
typedef struct {
    int32_t gaussians, vertices, faces, triangles, joints, sh_degree, rank, expressions;
    const float *rest;           /* [V, 3] */
    const float *expression;     /* [E, V, 3] offsets; NULL: frame's canonical is complete */
    const float *skinning;       /* [V, J] */
    const int32_t *face;         /* [F, 3] triangles near a Gaussian */
    const int32_t *vertex_start; /* [V + 1] faces at each vertex ... */
    const int32_t *vertex_face;  /* ... */
    const int32_t *used;         /* [K] rows of face that carry Gaussians */
    const int32_t *edge;         /* [K, 2] vertices of the edge that gives the tangent */
    const float *rest_frame;     /* [K, 9] */
    const int32_t *corner;       /* [3, N] */
    const float *weight;         /* [3, N] */
    const int32_t *triangle;     /* [N] */
    const float *rotation;       /* [4, N] wxyz */
    const float *log_scale;      /* [3, N] */
    const float *log2_opacity;   /* [N]; -inf: never drawn */
    const float *color;          /* [3, N] */
    const float *sh;             /* [(degree + 1)^2 - 1, 3, N] */
    const float *mean_offset;    /* [12, N] */
    const float *limit;          /* [12, N] */
    const int8_t *basis;         /* [N / BLOCK, 12, rank, BLOCK] */
    const float *basis_step;     /* [N / BLOCK, 12, rank] */
} Scene;

/* Room that frames share. */
typedef struct {
    float *known;         /* [M, OUTPUT_ROOM] offsets that the network gave */
    float *basis_weight;  /* [rank] */
    float *canonical;     /* [V, 3] */
    float *offset;        /* [12, N], where there is no basis */
    float *posed;         /* [V, 3] */
    float *face_normal;   /* [F, 3] */
    float *vertex_normal; /* [V, 3] */
    float *turn;          /* [9, K] */
    float *record;        /* [N, 16] what blending reads of a Gaussian */
    int32_t *box;         /* [N, 4] first and last tile column, first and last tile row */
    uint32_t *key;        /* [N] */
    int32_t *order;       /* [2, N] */
    int32_t *start;       /* [tiles + 1] */
    int32_t *end;         /* [tiles] */
    int32_t *pair;        /* [room] Gaussian */
    int64_t room;
} Work;

typedef struct {
    int32_t width, height, threads, channels, bgr, visible;
    float fx, fy, cx, cy;
    float limits[4];     /* of x / z and y / z in the Jacobian */
    float head[9];       /* head pose's rotation, row by row */
    float background[3]; /* 0 .. 255, in the picture's order */
    float blur;          /* added to the variances, px^2 */
    const float *code;   /* [E]; used where there are expression offsets */
    const float *values; /* [heads, tokens, head_size], or [context] that all share */
    const float *joint;  /* [J, 3, 4] canonical to camera */
    uint8_t *image;      /* [H, W, channels] */
    double seconds[6];   /* out: network, mesh, gaussians, sort, bin, blend */
} Frame;

int64_t cag_scene_size(void) { return sizeof(Scene); }
int64_t cag_work_size(void) { return sizeof(Work); }
int64_t cag_frame_size(void) { return sizeof(Frame); }
int64_t cag_network_size(void) { return sizeof(Network); }
int32_t cag_rows(void) { return ROWS; }
int32_t cag_block(void) { return BLOCK; }
int32_t cag_tile(void) { return TILE; }

/* LANES bytes as floats. */
static inline vec widened(const int8_t *x) {
#if defined(__AVX512F__)
    return (vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)x)));
#elif defined(__AVX2__)
    return (vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)x)));
#else
    vec out;
    for (int l = 0; l < LANES; l++) out[l] = (float)x[l];
    return out;
#endif
}

/* 2^x, relative error below 4e-6; x below -126 counts as -126. */
static inline float exp2_fast(float x) {
    x = x < -126.0f ? -126.0f : (x > 126.0f ? 126.0f : x);
    float whole = floorf(x), f = x - whole;
    float p = (((E4 * f + E3) * f + E2) * f + E1) * f + E0;
    union {
        int32_t i;
        float f;
    } bits = {((int32_t)whole + 127) << 23};
    return p * bits.f;
}

/* ---- offset network -------------------------------------------------------------------------- */

static inline float tanh_fast(float x) {
    float e = exp2_fast(2 * LOG2_E * (x > 15.0f ? 15.0f : x));
    return 1.0f - 2.0f / (e + 1.0f);
}

/* out = (relu of) in times weight, added to what out holds; in [ROWS, inputs], out [ROWS, stride]
 * of which outputs, a multiple of LANES, are worked on. */
static void layer(
    const float *in, int inputs, const float *weight, float *out, int outputs, int stride, int relu
) {
    for (int o = 0; o < outputs; o += LANES) {
        vec sum[ROWS], zero = splat(0);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) memcpy(&sum[r], out + r * stride + o, sizeof(vec));
        for (int i = 0; i < inputs; i++) {
            vec w;
            memcpy(&w, weight + (size_t)i * outputs + o, sizeof(vec));
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) sum[r] += in[r * inputs + i] * w;
        }
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            vec value = relu ? (vec)((ivec)sum[r] & (sum[r] > zero)) : sum[r];
            memcpy(out + r * stride + o, &value, sizeof(vec));
        }
    }
}

/* Offsets of ROWS Gaussians, bounded, into known. room holds ROWS (2 width + context). */
static void network_rows(const Network *n, const Work *w, const Frame *f, int from, float *room) {
    int C = n->context, W = n->width, S = n->head_size;
    float *context = room, *a = context + ROWS * C, *b = a + ROWS * W;
    float *out = w->known + (size_t)from * OUTPUT_ROOM;
    memset(context, 0, ROWS * C * sizeof *context);
    for (int r = 0; !n->gate && r < ROWS; r++) memcpy(context + r * C, f->values, C * sizeof *a);
    for (int h = 0; n->gate && h < n->heads; h++) {
        const float *gate = n->gate + ((size_t)h * n->rows + from) * n->tokens;
        const float *value = f->values + (size_t)h * n->tokens * S;
        layer(gate, n->tokens, value, context + h * S, S, C, 0);
    }
    memcpy(a, n->first + (size_t)from * W, ROWS * W * sizeof *a);
    layer(context, C, n->from_context, a, W, W, 1);
    for (int k = 0; k < n->hidden; k++) {
        for (int r = 0; r < ROWS; r++) memcpy(b + r * W, n->hidden_bias + k * W, W * sizeof *b);
        layer(a, W, n->hidden_weight + (size_t)k * W * W, b, W, W, 1);
        float *swap = a;
        a = b, b = swap;
    }
    for (int r = 0; r < ROWS; r++)
        memcpy(out + r * OUTPUT_ROOM, n->last_bias, OUTPUT_ROOM * sizeof *out);
    layer(a, W, n->last_weight, out, OUTPUT_ROOM, OUTPUT_ROOM, 0);
    for (int r = 0; r < ROWS; r++) {
        size_t at = (size_t)(from + r) * OUTPUT_ROOM;
        const float *local = n->local_weight + at * n->local;
        for (int k = 0; k < n->local; k++)
            for (int o = 0; o < OUTPUT_ROOM; o++)
                out[r * OUTPUT_ROOM + o] += context[r * C + k] * local[k * OUTPUT_ROOM + o];
        for (int o = 0; o < OUTPUT_ROOM; o++)
            out[r * OUTPUT_ROOM + o] =
                tanh_fast(out[r * OUTPUT_ROOM + o]) * n->limit[at + o] - n->mean[at + o];
    }
}

static void run_network(const Network *n, const Work *w, const Frame *f, int32_t *counter) {
    float room[ROWS * (2 * n->width + n->context)];
    int count = n->rows / ROWS;
    for (int k = take(counter); k < count; k = take(counter)) network_rows(n, w, f, k * ROWS, room);
}

/* Weights of the basis; or, without one, the offsets output by output. */
static void use_known(const Scene *s, const Network *n, const Work *w) {
    int first, end, count = n->rows * OUTPUT_ROOM;
    const float *known = w->known;
    if (s->rank) {
        range(s->rank, &first, &end);
        for (int k = first; k < end; k++) {
            const float *solve = n->solve + (size_t)k * count;
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int i = 0; i < count; i++) sum += solve[i] * known[i];
            w->basis_weight[k] = sum;
        }
        return;
    }
    range(s->gaussians, &first, &end);
    for (int o = 0; o < OUTPUTS; o++)
        for (int g = first; g < end; g++)
            w->offset[(size_t)o * s->gaussians + g] = known[(size_t)g * OUTPUT_ROOM + o];
}

/* ---- mesh ------------------------------------------------------------------------------------ */

/* Canonical vertices of the code, then linear blend skinning. */
static void skin(const Scene *s, const Work *w, const Frame *f) {
    int first, end, J = s->joints;
    range(s->vertices, &first, &end);
    if (s->expression) {
        memcpy(w->canonical + 3 * first, s->rest + 3 * first, sizeof(float) * 3 * (end - first));
        for (int e = 0; e < s->expressions; e++) {
            float amount = f->code[e], *to = w->canonical;
            const float *offset = s->expression + (size_t)e * 3 * s->vertices;
            if (amount == 0) continue;
#pragma omp simd
            for (int k = 3 * first; k < 3 * end; k++) to[k] += amount * offset[k];
        }
    }
    for (int v = first; v < end; v++) {
        float m[12] = {0};
        const float *weight = s->skinning + (size_t)v * J, *joint = f->joint;
        for (int j = 0; j < J; j++) {
            if (weight[j] == 0) continue;
            for (int k = 0; k < 12; k++) m[k] += weight[j] * joint[j * 12 + k];
        }
        const float *p = w->canonical + 3 * v;
        for (int k = 0; k < 3; k++)
            w->posed[3 * v + k] =
                m[4 * k] * p[0] + m[4 * k + 1] * p[1] + m[4 * k + 2] * p[2] + m[4 * k + 3];
    }
}

static void face_normals(const Scene *s, const Work *w) {
    int first, end;
    range(s->faces, &first, &end);
    for (int i = first; i < end; i++) {
        const float *p = w->posed + 3 * s->face[3 * i], *q = w->posed + 3 * s->face[3 * i + 1];
        const float *r = w->posed + 3 * s->face[3 * i + 2];
        float ax = q[0] - p[0], ay = q[1] - p[1], az = q[2] - p[2];
        float bx = r[0] - p[0], by = r[1] - p[1], bz = r[2] - p[2];
        w->face_normal[3 * i] = ay * bz - az * by;
        w->face_normal[3 * i + 1] = az * bx - ax * bz;
        w->face_normal[3 * i + 2] = ax * by - ay * bx;
    }
}

static void vertex_normals(const Scene *s, const Work *w) {
    int first, end;
    range(s->vertices, &first, &end);
    for (int v = first; v < end; v++) {
        float x = 0, y = 0, z = 0;
        for (int k = s->vertex_start[v]; k < s->vertex_start[v + 1]; k++) {
            const float *n = w->face_normal + 3 * s->vertex_face[k];
            x += n[0], y += n[1], z += n[2];
        }
        w->vertex_normal[3 * v] = x;
        w->vertex_normal[3 * v + 1] = y;
        w->vertex_normal[3 * v + 2] = z;
    }
}

/* turn = frame (tangent, bitangent, normal) times the rest frame transposed. */
static void triangle_turns(const Scene *s, const Work *w) {
    int first, end, K = s->triangles;
    range(K, &first, &end);
    for (int i = first; i < end; i++) {
        const int32_t *corner = s->face + 3 * s->used[i];
        float n[3], e[3], t[3], b[3], square = 1e-24f, along = 0;
        for (int k = 0; k < 3; k++) {
            n[k] = w->vertex_normal[3 * corner[0] + k] + w->vertex_normal[3 * corner[1] + k] +
                   w->vertex_normal[3 * corner[2] + k];
            square += n[k] * n[k];
        }
        float inverse = 1.0f / sqrtf(square);
        for (int k = 0; k < 3; k++) {
            n[k] *= inverse;
            e[k] = w->posed[3 * s->edge[2 * i + 1] + k] - w->posed[3 * s->edge[2 * i] + k];
            along += e[k] * n[k];
        }
        square = 1e-24f;
        for (int k = 0; k < 3; k++) {
            t[k] = e[k] - along * n[k];
            square += t[k] * t[k];
        }
        inverse = 1.0f / sqrtf(square);
        for (int k = 0; k < 3; k++) t[k] *= inverse;
        b[0] = n[1] * t[2] - n[2] * t[1];
        b[1] = n[2] * t[0] - n[0] * t[2];
        b[2] = n[0] * t[1] - n[1] * t[0];
        const float *r = s->rest_frame + 9 * i;
        for (int row = 0; row < 3; row++)
            for (int c = 0; c < 3; c++)
                w->turn[(size_t)(3 * row + c) * K + i] =
                    t[row] * r[3 * c] + b[row] * r[3 * c + 1] + n[row] * r[3 * c + 2];
    }
}

/* ---- Gaussians ------------------------------------------------------------------------------- */

/* Offsets of a block from the basis, clamped to their limits. */
static void block_offsets(const Scene *s, const Work *w, int block, float out[OUTPUTS][BLOCK]) {
    int N = s->gaussians, from = block * BLOCK;
    if (!s->rank) {
        for (int o = 0; o < OUTPUTS; o++)
            memcpy(out[o], w->offset + (size_t)o * N + from, sizeof out[o]);
        return;
    }
    for (int o = 0; o < OUTPUTS; o++) {
        vec sum[BLOCK / LANES];
        memcpy(sum, s->mean_offset + (size_t)o * N + from, sizeof sum);
        size_t at = ((size_t)block * OUTPUTS + o) * s->rank;
        const int8_t *row = s->basis + at * BLOCK;
        for (int k = 0; k < s->rank; k++, row += BLOCK) {
            vec scale = splat(w->basis_weight[k] * s->basis_step[at + k]);
#pragma GCC unroll 16
            for (int l = 0; l < BLOCK / LANES; l++) {
                sum[l] += scale * widened(row + l * LANES);
            }
        }
        memcpy(out[o], sum, sizeof sum);
        const float *limit = s->limit + (size_t)o * N + from;
#pragma omp simd
        for (int l = 0; l < BLOCK; l++) out[o][l] = clamp(out[o][l], -limit[l], limit[l]);
    }
}

static void block_colors(
    const Scene *s, const Frame *f, int from, float point[3][BLOCK], float offset[OUTPUTS][BLOCK],
    float color[3][BLOCK]
) {
    int N = s->gaussians;
    for (int c = 0; c < 3; c++)
        for (int l = 0; l < BLOCK; l++)
            color[c][l] = s->color[(size_t)c * N + from + l] + offset[9 + c][l];
    if (s->sh_degree > 0) {
        float x[BLOCK], y[BLOCK], z[BLOCK];
        const float *h = f->head;
#pragma omp simd
        for (int l = 0; l < BLOCK; l++) { /* the direction in the head's frame */
            float px = point[0][l], py = point[1][l], pz = point[2][l];
            float inverse = 1.0f / sqrtf(px * px + py * py + pz * pz + 1e-24f);
            x[l] = (h[0] * px + h[3] * py + h[6] * pz) * inverse;
            y[l] = (h[1] * px + h[4] * py + h[7] * pz) * inverse;
            z[l] = (h[2] * px + h[5] * py + h[8] * pz) * inverse;
        }
        for (int c = 0; c < 3; c++) {
            const float *sh = s->sh + (size_t)c * N + from;
            size_t next = (size_t)3 * N;
#pragma omp simd
            for (int l = 0; l < BLOCK; l++)
                color[c][l] += 0.4886025119029199f *
                               (-y[l] * sh[l] + z[l] * sh[next + l] - x[l] * sh[2 * next + l]);
            if (s->sh_degree > 1) {
                sh += 3 * next;
#pragma omp simd
                for (int l = 0; l < BLOCK; l++) {
                    float xx = x[l] * x[l], yy = y[l] * y[l], zz = z[l] * z[l];
                    color[c][l] +=
                        1.0925484305920792f * (x[l] * y[l] * sh[l] - y[l] * z[l] * sh[next + l] -
                                               x[l] * z[l] * sh[3 * next + l]) +
                        0.31539156525252005f * (2 * zz - xx - yy) * sh[2 * next + l] +
                        0.5462742152960396f * (xx - yy) * sh[4 * next + l];
                }
            }
        }
    }
    for (int c = 0; c < 3; c++)
        for (int l = 0; l < BLOCK; l++) color[c][l] = color[c][l] > 0 ? color[c][l] : 0;
}

static void gaussian_block(const Scene *s, const Work *w, const Frame *f, int block) {
    int N = s->gaussians, K = s->triangles, from = block * BLOCK;
    float offset[OUTPUTS][BLOCK], point[3][BLOCK], color[3][BLOCK];
    float turn[9][BLOCK], scale[3][BLOCK];
    float mx[BLOCK], my[BLOCK], ga[BLOCK], gb[BLOCK], gc[BLOCK], depth[BLOCK];
    float half_x[BLOCK], half_y[BLOCK], good[BLOCK];
    block_offsets(s, w, block, offset);

    for (int c = 0; c < 3; c++) {
        memset(point[c], 0, sizeof point[c]);
        for (int l = 0; l < BLOCK; l++) scale[c][l] = s->log_scale[(size_t)c * N + from + l];
    }
    for (int k = 0; k < 3; k++) {
        const int32_t *corner = s->corner + (size_t)k * N + from;
        const float *weight = s->weight + (size_t)k * N + from;
        for (int l = 0; l < BLOCK; l++) {
            const float *p = w->posed + 3 * corner[l];
            point[0][l] += weight[l] * p[0];
            point[1][l] += weight[l] * p[1];
            point[2][l] += weight[l] * p[2];
        }
    }
    for (int k = 0; k < 9; k++) {
        const float *source = w->turn + (size_t)k * K;
        for (int l = 0; l < BLOCK; l++) turn[k][l] = source[s->triangle[from + l]];
    }
    block_colors(s, f, from, point, offset, color);

    const float *rw = s->rotation + from, *rx = rw + N, *ry = rx + N, *rz = ry + N;
    const float *opacity = s->log2_opacity + from;
    float fx = f->fx, fy = f->fy, cx = f->cx, cy = f->cy, blur = f->blur;
    float low_x = f->limits[0], high_x = f->limits[1], low_y = f->limits[2], high_y = f->limits[3];
#pragma omp simd
    for (int l = 0; l < BLOCK; l++) {
        /* The Gaussian's own rotation, then the offset (1, t), then the surface's. */
        float tx = offset[3][l], ty = offset[4][l], tz = offset[5][l];
        float qw = rw[l] - tx * rx[l] - ty * ry[l] - tz * rz[l];
        float qx = rx[l] + tx * rw[l] + ty * rz[l] - tz * ry[l];
        float qy = ry[l] + ty * rw[l] + tz * rx[l] - tx * rz[l];
        float qz = rz[l] + tz * rw[l] + tx * ry[l] - ty * rx[l];
        float two = 2.0f / (qw * qw + qx * qx + qy * qy + qz * qz + 1e-24f);
        float r00 = 1 - two * (qy * qy + qz * qz), r01 = two * (qx * qy - qw * qz);
        float r02 = two * (qx * qz + qw * qy), r10 = two * (qx * qy + qw * qz);
        float r11 = 1 - two * (qx * qx + qz * qz), r12 = two * (qy * qz - qw * qx);
        float r20 = two * (qx * qz - qw * qy), r21 = two * (qy * qz + qw * qx);
        float r22 = 1 - two * (qx * qx + qy * qy);
        float s0 = exp2_fast((scale[0][l] + offset[6][l]) * LOG2_E);
        float s1 = exp2_fast((scale[1][l] + offset[7][l]) * LOG2_E);
        float s2 = exp2_fast((scale[2][l] + offset[8][l]) * LOG2_E);
        float m00 = turn[0][l], m01 = turn[1][l], m02 = turn[2][l];
        float m10 = turn[3][l], m11 = turn[4][l], m12 = turn[5][l];
        float m20 = turn[6][l], m21 = turn[7][l], m22 = turn[8][l];
        float ox = offset[0][l], oy = offset[1][l], oz = offset[2][l];
        float x = point[0][l] + m00 * ox + m01 * oy + m02 * oz;
        float y = point[1][l] + m10 * ox + m11 * oy + m12 * oz;
        float z = point[2][l] + m20 * ox + m21 * oy + m22 * oz;
        int ahead = z >= NEAR_PLANE && z <= FAR_PLANE;
        float iz = 1.0f / (ahead ? z : 1.0f);
        float sx = x * iz, sy = y * iz;
        float j00 = fx * iz, j11 = fy * iz;
        float bx = sx < low_x ? low_x : sx, by = sy < low_y ? low_y : sy;
        float j02 = -j00 * (bx > high_x ? high_x : bx), j12 = -j11 * (by > high_y ? high_y : by);
        float t00 = j00 * m00 + j02 * m20, t01 = j00 * m01 + j02 * m21, t02 = j00 * m02 + j02 * m22;
        float t10 = j11 * m10 + j12 * m20, t11 = j11 * m11 + j12 * m21, t12 = j11 * m12 + j12 * m22;
        float n00 = s0 * (t00 * r00 + t01 * r10 + t02 * r20);
        float n01 = s1 * (t00 * r01 + t01 * r11 + t02 * r21);
        float n02 = s2 * (t00 * r02 + t01 * r12 + t02 * r22);
        float n10 = s0 * (t10 * r00 + t11 * r10 + t12 * r20);
        float n11 = s1 * (t10 * r01 + t11 * r11 + t12 * r21);
        float n12 = s2 * (t10 * r02 + t11 * r12 + t12 * r22);
        float sxx = n00 * n00 + n01 * n01 + n02 * n02, syy = n10 * n10 + n11 * n11 + n12 * n12;
        float xy = n00 * n10 + n01 * n11 + n02 * n12;
        float xx = sxx + blur, yy = syy + blur;
        float d0 = n01 * n12 - n02 * n11, d1 = n02 * n10 - n00 * n12, d2 = n00 * n11 - n01 * n10;
        float determinant = d0 * d0 + d1 * d1 + d2 * d2 + blur * (sxx + syy + blur);
        float root = sqrtf(yy / determinant);
        float reach =
            opacity[l] + LOG2_255 + SUPPORT_MARGIN; /* log2 of how far it is above 1 / 255 */
        float radius = sqrtf(reach > 0 ? reach : 0) / WHITEN;
        mx[l] = fx * sx + cx;
        my[l] = fy * sy + cy;
        ga[l] = WHITEN * root;
        gb[l] = -WHITEN * xy / (determinant * root);
        gc[l] = WHITEN / sqrtf(yy);
        half_x[l] = radius * sqrtf(xx);
        half_y[l] = radius * sqrtf(yy);
        depth[l] = z;
        float check = mx[l] + my[l] + ga[l] + gb[l] + gc[l] + half_x[l] + half_y[l];
        check += color[0][l] + color[1][l] + color[2][l];
        /* A comparison with NaN is false: nothing that is not finite is drawn. */
        good[l] = (ahead && reach >= 0 && fabsf(check) < 1e30f) ? 1.0f : 0.0f;
    }

    float right_edge = (float)f->width - 0.5f, bottom_edge = (float)f->height - 0.5f;
    for (int l = 0; l < BLOCK; l++) {
        int g = from + l;
        w->key[g] = UINT32_MAX;
        if (good[l] == 0) continue;
        float x0 = mx[l] - half_x[l], x1 = mx[l] + half_x[l];
        float y0 = my[l] - half_y[l], y1 = my[l] + half_y[l];
        if (!(x1 >= 0.5f && x0 <= right_edge && y1 >= 0.5f && y0 <= bottom_edge)) continue;
        int left = x0 <= 0.5f ? 0 : (int)ceilf(x0 - 0.5f);
        int right = x1 >= right_edge ? f->width - 1 : (int)floorf(x1 - 0.5f);
        int top = y0 <= 0.5f ? 0 : (int)ceilf(y0 - 0.5f);
        int bottom = y1 >= bottom_edge ? f->height - 1 : (int)floorf(y1 - 0.5f);
        if (right < left || bottom < top) continue;
        float *record = w->record + (size_t)g * 16;
        record[0] = mx[l], record[1] = my[l];
        record[2] = ga[l], record[3] = gb[l], record[4] = gc[l];
        record[5] = opacity[l] < LOG2_MAX_ALPHA ? opacity[l] : LOG2_MAX_ALPHA;
        record[6] = color[0][l], record[7] = color[1][l], record[8] = color[2][l];
        record[9] = opacity[l] + LOG2_255 + SUPPORT_MARGIN;
        int32_t *box = w->box + (size_t)g * 4;
        box[0] = left / TILE, box[1] = right / TILE;
        box[2] = top / TILE, box[3] = bottom / TILE;
        union {
            float f;
            uint32_t i;
        } bits = {depth[l]};
        w->key[g] = bits.i; /* positive floats order like their bits */
    }
}

/* ---- order ----------------------------------------------------------------------------------- */

/* Visible Gaussians front to back. Depths are cut into 4 million steps between nearest and
 * farthest. */
static int sort_by_depth(const Scene *s, const Work *w) {
    static const int buckets = 1 << RADIX;
    int32_t *order = w->order, *other = w->order + s->gaussians, count = 0;
    uint32_t low = UINT32_MAX, high = 0;
    for (int g = 0; g < s->gaussians; g++) {
        uint32_t key = w->key[g];
        if (key == UINT32_MAX) continue;
        order[count++] = g;
        low = key < low ? key : low;
        high = key > high ? key : high;
    }
    if (!count) return 0;
    union {
        uint32_t i;
        float f;
    } near = {low}, far = {high};
    float scale = far.f > near.f ? ((float)(1 << (2 * RADIX)) - 512.0f) / (far.f - near.f) : 0.0f;
    uint32_t histogram[2][1 << RADIX];
    memset(histogram, 0, sizeof histogram);
    for (int k = 0; k < count; k++) {
        union {
            uint32_t i;
            float f;
        } depth = {w->key[order[k]]};
        uint32_t step = (uint32_t)((depth.f - near.f) * scale);
        w->key[order[k]] = step;
        histogram[0][step & (buckets - 1)]++;
        histogram[1][step >> RADIX]++;
    }
    for (int pass = 0; pass < 2; pass++) {
        uint32_t total = 0;
        for (int b = 0; b < buckets; b++) {
            uint32_t own = histogram[pass][b];
            histogram[pass][b] = total;
            total += own;
        }
        for (int k = 0; k < count; k++) {
            uint32_t digit = (w->key[order[k]] >> (pass * RADIX)) & (buckets - 1);
            other[histogram[pass][digit]++] = order[k];
        }
        int32_t *swap = order;
        order = other, other = swap;
    }
    return count; /* two passes: the result is back in w->order */
}

/* Room for each tile's list, from the boxes; tiles run down the columns. Returns the pairs. */
static int64_t count_pairs(const Work *w, int count, int rows, int tiles) {
    memset(w->start, 0, sizeof(int32_t) * (tiles + 1));
    int64_t pairs = 0;
    for (int k = 0; k < count; k++) {
        const int32_t *box = w->box + (size_t)w->order[k] * 4;
        pairs += (int64_t)(box[1] - box[0] + 1) * (box[3] - box[2] + 1);
        for (int column = box[0]; column <= box[1]; column++)
            for (int row = box[2]; row <= box[3]; row++) w->start[column * rows + row + 1]++;
    }
    for (int t = 0; t < tiles; t++) w->start[t + 1] += w->start[t];
    return pairs;
}

/* Columns of tiles with about an equal share of the pairs. */
static void column_share(const Work *w, int columns, int rows, int *first, int *end) {
    int t = my_share(), n = shares();
    int64_t total = w->start[columns * rows];
    int bound[2];
    for (int side = 0; side < 2; side++) {
        int64_t goal = total * (t + side) / n;
        int column = 0;
        while (column < columns && w->start[column * rows] < goal) column++;
        bound[side] = column;
    }
    *first = t == 0 ? 0 : bound[0];
    *end = t == n - 1 ? columns : bound[1];
}

/* List the Gaussians of each tile front to back. */
static void bin_pairs(const Work *w, int count, int columns, int rows) {
    int first, end;
    column_share(w, columns, rows, &first, &end);
    for (int t = first * rows; t < end * rows; t++) w->end[t] = w->start[t];
    for (int k = 0; k < count; k++) {
        int g = w->order[k];
        const int32_t *box = w->box + (size_t)g * 4;
        int left = box[0] > first ? box[0] : first, right = box[1] < end - 1 ? box[1] : end - 1;
        for (int column = left; column <= right; column++)
            for (int row = box[2]; row <= box[3]; row++) w->pair[w->end[column * rows + row]++] = g;
    }
}

/* ---- blending -------------------------------------------------------------------------------- */

/* 2^x where x is at least log2(1 / 255), else 0; x is at most 0. */
static inline vec alpha_of(vec x) {
#if defined(__AVX512F__)
    __mmask16 drawn = _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(-LOG2_255), _CMP_GE_OQ);
    vec whole = (vec)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    vec f = x - whole;
    vec p = (((E4 * f + E3) * f + E2) * f + E1) * f + E0;
    return (vec)_mm512_maskz_scalef_ps(drawn, (__m512)p, (__m512)whole);
#else
    ivec drawn = x >= splat(-LOG2_255);
    x = (vec)((ivec)x & drawn);
    ivec truncated = __builtin_convertvector(x, ivec);
    vec whole = __builtin_convertvector(truncated, vec);
    ivec above = whole > x; /* true is -1 */
    vec f = x - whole - __builtin_convertvector(above, vec);
    vec p = (((E4 * f + E3) * f + E2) * f + E1) * f + E0;
    return (vec)((ivec)(p * (vec)((truncated + above + 127) << 23)) & drawn);
#endif
}

static inline int any_above(vec x, float limit) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(limit), _CMP_GT_OQ) != 0;
#elif defined(__AVX__)
    return _mm256_movemask_ps(_mm256_cmp_ps((__m256)x, _mm256_set1_ps(limit), _CMP_GT_OQ)) != 0;
#else
    for (int l = 0; l < LANES; l++)
        if (x[l] > limit) return 1;
    return 0;
#endif
}

/* Pixels of a tile, patch by patch. */
typedef struct {
    vec t, red, green, blue;
} Patch;

typedef struct {
    Patch patch[BANDS][COLUMNS];
    uint8_t done[BANDS][COLUMNS];
} Tile;

static inline uint8_t to_byte(float x) {
    x = x + 0.5f;
    x = x < 0 ? 0 : (x > 255.0f ? 255.0f : x);
    return (uint8_t)x;
}

static void store_tile(const Frame *f, const Tile *tile, int left, int top) {
    int rows = f->height - top < TILE ? f->height - top : TILE;
    int width = f->width - left < TILE ? f->width - left : TILE, n = f->channels;
    int red = f->bgr ? 2 : 0, blue = 2 - red;
    for (int r = 0; r < rows; r++) {
        float t[TILE], color[3][TILE];
        for (int c = 0; c < COLUMNS; c++) {
            const Patch *p = &tile->patch[r / PATCH_HEIGHT][c];
            size_t from = r % PATCH_HEIGHT * PATCH_WIDTH, to = c * PATCH_WIDTH;
            memcpy(t + to, (const float *)&p->t + from, PATCH_WIDTH * sizeof *t);
            memcpy(color[red] + to, (const float *)&p->red + from, PATCH_WIDTH * sizeof *t);
            memcpy(color[1] + to, (const float *)&p->green + from, PATCH_WIDTH * sizeof *t);
            memcpy(color[blue] + to, (const float *)&p->blue + from, PATCH_WIDTH * sizeof *t);
        }
        size_t at = (size_t)(top + r) * f->width + left;
        uint8_t *out = f->image + at * n, value[3][TILE];
        if (n == 3) {
            for (int c = 0; c < 3; c++)
                for (int x = 0; x < TILE; x++)
                    value[c][x] = to_byte(255.0f * color[c][x] + t[x] * f->background[c]);
            for (int x = 0; x < width; x++)
                out[3 * x] = value[0][x], out[3 * x + 1] = value[1][x],
                        out[3 * x + 2] = value[2][x];
        } else { /* the colour of what is there, not premultiplied, and how much of it is */
            for (int x = 0; x < width; x++) {
                float alpha = 1.0f - t[x], inverse = alpha > 1e-3f ? 255.0f / alpha : 0.0f;
                for (int c = 0; c < 3; c++) out[4 * x + c] = to_byte(color[c][x] * inverse);
                out[4 * x + 3] = to_byte(255.0f * alpha);
            }
        }
    }
}

static void blend_tile(const Work *w, const Frame *f, int index, int rows, Tile *tile) {
    int left = index / rows * TILE, top = index % rows * TILE, open = BANDS * COLUMNS;
    vec lane_x, lane_y;
    for (int l = 0; l < LANES; l++) {
        lane_x[l] = (float)(l % PATCH_WIDTH);
        lane_y[l] = (float)(l / PATCH_WIDTH);
    }
    for (int band = 0; band < BANDS; band++)
        for (int column = 0; column < COLUMNS; column++)
            tile->patch[band][column] = (Patch){splat(1), splat(0), splat(0), splat(0)};
    memset(tile->done, 0, sizeof tile->done);
    for (int k = w->start[index]; k < w->end[index] && open; k++) {
        __builtin_prefetch(w->record + (size_t)w->pair[k + 8] * 16);
        const float *g = w->record + (size_t)w->pair[k] * 16;
        float x = (float)left + 0.5f - g[0], y = (float)top + 0.5f - g[1]; /* from the mean */
        float a = g[2], b = g[3], c = g[4], log_opacity = g[5], reach = g[9];
        float inverse = 1.0f / a, square = c * c, tip_y = sqrtf(reach) / c;
        /* The ellipse is widest to the right at y = wide, to the left at y = -wide. */
        float wide = -b * tip_y / sqrtf(b * b + square);
        int32_t begin[BANDS], end[BANDS]; /* patches that it touches in each band */
#pragma omp simd
        for (int i = 0; i < BANDS; i++) {
            float low = y + (float)(i * PATCH_HEIGHT), high = low + (PATCH_HEIGHT - 1);
            float at = clamp(wide, low, high), under = reach - square * at * at;
            float right = (sqrtf(under > 0 ? under : 0) - b * at) * inverse - x;
            at = clamp(-wide, low, high), under = reach - square * at * at;
            float first = (-sqrtf(under > 0 ? under : 0) - b * at) * inverse - x;
            /* A thousandth of a pixel is what single precision may lose. */
            first = clamp(ceilf(first - 1e-3f), 0, TILE);
            right = clamp(floorf(right + 1e-3f), -1, TILE - 1);
            begin[i] = (int32_t)first / PATCH_WIDTH;
            end[i] = ((int32_t)right + PATCH_WIDTH) / PATCH_WIDTH;
        }
        int band = (int)clamp(ceilf(-tip_y - y - 1e-3f), 0, TILE) / PATCH_HEIGHT;
        int last =
            ((int)clamp(floorf(tip_y - y + 1e-3f), -1, TILE - 1) + PATCH_HEIGHT) / PATCH_HEIGHT;
        vec red = splat(g[6]), green = splat(g[7]), blue = splat(g[8]);
        vec across = a * lane_x + b * lane_y + (a * x + b * y), step = splat(a * PATCH_WIDTH);
        for (; band < last; band++) {
            float down = (float)(band * PATCH_HEIGHT), along = (float)(begin[band] * PATCH_WIDTH);
            vec v = c * (y + down + lane_y), base = log_opacity - v * v;
            vec u = across + (a * along + b * down);
            Patch *patch = &tile->patch[band][begin[band]];
            for (int column = begin[band]; column < end[band]; column++, patch++, u += step) {
                if (tile->done[band][column]) continue;
                vec t = patch->t, weight = t * alpha_of(base - u * u);
                patch->red += weight * red;
                patch->green += weight * green;
                patch->blue += weight * blue;
                t -= weight;
                patch->t = t;
                if (!any_above(t, SHOWN_TRANSMITTANCE)) {
                    tile->done[band][column] = 1;
                    open--;
                }
            }
        }
    }
    store_tile(f, tile, left, top);
}

/* Render one frame. Returns the number of (Gaussian, tile) pairs; where that is more than work's
 * room, nothing was drawn: call again with at least so much. */
int64_t cag_render(const Scene *s, const Network *n, const Work *w, Frame *f) {
    int columns = (f->width + TILE - 1) / TILE;
    int rows = (f->height + TILE - 1) / TILE, tiles = columns * rows;
    int32_t next[3] = {0};
    int count = 0, blocks = s->gaussians / BLOCK;
    int64_t pairs = 0;
    double time[7];
    time[0] = time[5] = now();
#pragma omp parallel num_threads(f->threads)
    {
        run_network(n, w, f, &next[0]);
#pragma omp barrier
        use_known(s, n, w);
#pragma omp master
        time[1] = now();
        skin(s, w, f);
#pragma omp barrier
        face_normals(s, w);
#pragma omp barrier
        vertex_normals(s, w);
#pragma omp barrier
        triangle_turns(s, w);
#pragma omp barrier
#pragma omp master
        time[2] = now();
        for (int block = take(&next[1]); block < blocks; block = take(&next[1]))
            gaussian_block(s, w, f, block);
#pragma omp barrier
#pragma omp master
        {
            time[3] = now();
            count = sort_by_depth(s, w);
            pairs = count_pairs(w, count, rows, tiles);
            time[4] = now();
        }
#pragma omp barrier
        if (pairs <= w->room) {
            Tile tile;
            bin_pairs(w, count, columns, rows);
#pragma omp barrier
#pragma omp master
            time[5] = now();
            for (int own = take(&next[2]); own < tiles; own = take(&next[2]))
                blend_tile(w, f, own, rows, &tile);
        }
    }
    time[6] = now();
    f->visible = count;
    for (int k = 0; k < 6; k++) f->seconds[k] = time[k + 1] - time[k];
    return pairs;
}
