/* Blending of projected Gaussians and its gradients, for training.
 *
 * The definition of rasterizer.py to single precision; what goes in and comes out is that of the
 * numba kernels (cpu_kernels.py), but that tiles are TILE pixels wide and high. Within a tile LANES
 * pixels, a patch of PATCH_WIDTH x PATCH_HEIGHT, are blended together, and a Gaussian visits only
 * the patches that its ellipse touches. Every (Gaussian, tile) pair has one slot for its gradients,
 * so that results do not depend on the number of threads.
 */
#include "lanes.h"

enum {
    TILE = 32,
    PATCH_WIDTH = 4,
    PATCH_HEIGHT = LANES / PATCH_WIDTH,
    COLUMNS = TILE / PATCH_WIDTH,
    BANDS = TILE / PATCH_HEIGHT,
    PIXELS = TILE * TILE,
    GEOMETRY = 6,  /* columns: mean x, mean y, a, b, c, log2 opacity */
    GRADIENTS = 9, /* sums of a pair: g, gu, gv, guu, guv, gvv, red, green, blue */
};

static const float LOG2_255 = 7.9943534368588577f;
static const float MAX_ALPHA = 0.999f, MIN_TRANSMITTANCE = 1e-4f, THRESHOLD = 1.0f / 255.0f;
/* Supports are widened by this much in log2(alpha), to be safe from single precision. */
static const float SUPPORT_MARGIN = 2e-5f;
/* 2^f on [0, 1] as a polynomial through Chebyshev nodes, relative error 1e-7. */
static const float E0 = 9.999998808e-1f, E1 = 6.931545138e-1f, E2 = 2.401418239e-1f;
static const float E3 = 5.586033687e-2f, E4 = 8.949590847e-3f, E5 = 1.893754001e-3f;

int32_t cag_splat_tile(void) { return TILE; }

typedef struct {
    int32_t width, height, columns, rows, threads, count; /* tiles in a row, in a column; visible */
    const double *geometry;                               /* [N, GEOMETRY] */
    const float *color;                                   /* [N, 3] */
    const float *background;                              /* [3] */
    const int32_t *box;   /* [N, 4] first and last tile column, first and last tile row */
    const int32_t *order; /* [count] visible Gaussians front to back */
    const int64_t *slot;  /* [N] first slot of each */
    const int64_t
        *start;    /* [tiles + 1] first place of each tile's list; tiles run down the columns */
    int32_t *pair; /* [pairs] Gaussian */
    int32_t *pair_slot;   /* [pairs] */
    float *image, *alpha; /* [H, W, 3], [H, W] */
    float *final, *stop;  /* [tiles, PIXELS] patch by patch; NULL where no gradients are wanted */
    int32_t *used;        /* [tiles] how much of the list was visited */
    const float *grad_image, *grad_alpha;
    float *grad_pair;       /* [pairs, GRADIENTS], zeros on entry */
    float *grad_background; /* [tiles, 3] */
} Splatting;

int64_t cag_splatting_size(void) { return sizeof(Splatting); }

/* What a pair needs in a tile. */
typedef struct {
    float a, b, c, log_opacity, u, v; /* u and v at the tile's first pixel */
    int band, last;                   /* bands of patches that the ellipse touches */
    int32_t begin[BANDS], end[BANDS]; /* and the patches in each */
} Reach;

static inline void find_reach(const Splatting *s, int gaussian, int left, int top, Reach *r) {
    const double *g = s->geometry + (size_t)gaussian * GEOMETRY;
    double dx = left + 0.5 - g[0], dy = top + 0.5 - g[1];
    float a = (float)g[2], b = (float)g[3], c = (float)g[4], log_opacity = (float)g[5];
    float x = (float)dx, y = (float)dy, reach = log_opacity + LOG2_255 + SUPPORT_MARGIN;
    r->a = a, r->b = b, r->c = c, r->log_opacity = log_opacity;
    r->u = (float)(g[2] * dx + g[3] * dy), r->v = (float)(g[4] * dy);
    float inverse = 1.0f / a, square = c * c, tip_y = sqrtf(reach) / c;
    /* The ellipse is widest to the right at y = wide, to the left at y = -wide. */
    float wide = -b * tip_y / sqrtf(b * b + square);
#pragma omp simd
    for (int i = 0; i < BANDS; i++) {
        float low = y + (float)(i * PATCH_HEIGHT), high = low + (PATCH_HEIGHT - 1);
        float at = clamp(wide, low, high), under = reach - square * at * at;
        float right = (sqrtf(under > 0 ? under : 0) - b * at) * inverse - x;
        at = clamp(-wide, low, high), under = reach - square * at * at;
        float first = (-sqrtf(under > 0 ? under : 0) - b * at) * inverse - x;
        /* A thousandth of a pixel is more than single precision loses. */
        first = clamp(ceilf(first - 1e-3f), 0, TILE);
        right = clamp(floorf(right + 1e-3f), -1, TILE - 1);
        r->begin[i] = (int32_t)first / PATCH_WIDTH;
        r->end[i] = ((int32_t)right + PATCH_WIDTH) / PATCH_WIDTH;
    }
    r->band = (int)clamp(ceilf(-tip_y - y - 1e-3f), 0, TILE) / PATCH_HEIGHT;
    r->last = ((int)clamp(floorf(tip_y - y + 1e-3f), -1, TILE - 1) + PATCH_HEIGHT) / PATCH_HEIGHT;
}

/* 2^x where that is at least 1 / 255, else 0; x is at most 0. */
static inline vec alpha_of(vec x) {
    x = most(x, splat(-20.0f));
#if defined(__AVX512F__)
    vec whole = (vec)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    vec f = x - whole;
    vec p = ((((E5 * f + E4) * f + E3) * f + E2) * f + E1) * f + E0;
    p = (vec)_mm512_scalef_ps((__m512)p, (__m512)whole);
#else
    ivec truncated = __builtin_convertvector(x, ivec);
    vec rounded = __builtin_convertvector(truncated, vec);
    ivec over = rounded > x; /* true is -1 */
    vec f = x - rounded - __builtin_convertvector(over, vec);
    vec p = ((((E5 * f + E4) * f + E3) * f + E2) * f + E1) * f + E0;
    p *= (vec)((truncated + over + 127) << 23);
#endif
    return only(not_below(p, splat(THRESHOLD)), p);
}

/* Where the lanes of a patch lie. */
static inline void lane_places(vec *x, vec *y) {
    for (int l = 0; l < LANES; l++)
        (*x)[l] = (float)(l % PATCH_WIDTH), (*y)[l] = (float)(l / PATCH_WIDTH);
}

/* Place of a pixel of a tile among its patches. */
static inline int place(int row, int column) {
    int patch = row / PATCH_HEIGHT * COLUMNS + column / PATCH_WIDTH;
    return patch * LANES + row % PATCH_HEIGHT * PATCH_WIDTH + column % PATCH_WIDTH;
}

/* ---- lists ----------------------------------------------------------------------------------- */

/* Columns of tiles with about an equal share of the pairs. */
static void column_share(const Splatting *s, int *first, int *end) {
    int t = my_share(), n = shares(), bound[2];
    int64_t all = s->start[s->columns * s->rows];
    for (int side = 0; side < 2; side++) {
        int64_t goal = all * (t + side) / n;
        int column = 0;
        while (column < s->columns && s->start[column * s->rows] < goal) column++;
        bound[side] = column;
    }
    *first = t == 0 ? 0 : bound[0];
    *end = t == n - 1 ? s->columns : bound[1];
}

/* The Gaussians of each tile front to back; next [tiles] is room to work in. */
static void fill_lists(const Splatting *s, int64_t *next) {
    int first, end;
    column_share(s, &first, &end);
    for (int t = first * s->rows; t < end * s->rows; t++) next[t] = s->start[t];
    for (int k = 0; k < s->count; k++) {
        int g = s->order[k];
        const int32_t *box = s->box + (size_t)g * 4;
        int left = box[0] > first ? box[0] : first, right = box[1] < end - 1 ? box[1] : end - 1;
        for (int column = left; column <= right; column++) {
            int32_t slot = (int32_t)s->slot[g] + (column - box[0]) * (box[3] - box[2] + 1);
            for (int row = box[2]; row <= box[3]; row++) {
                int64_t at = next[column * s->rows + row]++;
                s->pair[at] = g;
                s->pair_slot[at] = slot++;
            }
        }
    }
}

/* ---- forward --------------------------------------------------------------------------------- */

typedef struct {
    vec t; /* transmittance, negative once the pixel has stopped */
    vec red, green, blue, stop;
} Pixels;

static inline __attribute__((always_inline)) void
blend_tile(const Splatting *s, int index, Pixels *tile, int keep) {
    int left = index / s->rows * TILE, top = index % s->rows * TILE, open = BANDS * COLUMNS;
    int64_t first = s->start[index], n = s->start[index + 1] - first, k = 0;
    uint8_t done[BANDS * COLUMNS] = {0};
    vec lane_x, lane_y;
    Reach r;
    lane_places(&lane_x, &lane_y);
    for (int p = 0; p < BANDS * COLUMNS; p++)
        tile[p] = (Pixels){splat(1), splat(0), splat(0), splat(0), splat(0)};
    for (; k < n && open; k++) {
        int g = s->pair[first + k];
        find_reach(s, g, left, top, &r);
        const float *color = s->color + (size_t)g * 3;
        vec red = splat(color[0]), green = splat(color[1]), blue = splat(color[2]);
        vec following = splat((float)(k + 1));
        vec across = r.u + r.a * lane_x + r.b * lane_y, step = splat(r.a * PATCH_WIDTH);
        for (int band = r.band; band < r.last; band++) {
            float down = (float)(band * PATCH_HEIGHT);
            vec v = r.v + r.c * (down + lane_y), base = r.log_opacity - v * v;
            vec u = across + (r.a * (float)(r.begin[band] * PATCH_WIDTH) + r.b * down);
            for (int column = r.begin[band]; column < r.end[band]; column++, u += step) {
                int at = band * COLUMNS + column;
                if (done[at]) continue;
                Pixels *p = tile + at;
                vec value = least(alpha_of(base - u * u), splat(MAX_ALPHA)), t = p->t;
                vec weight = most(t, splat(0)) * value, after = t - weight;
                mask going = above(after, splat(MIN_TRANSMITTANCE));
                weight = only(going, weight);
                p->t = choose(going, after, least(t, -t));
                if (keep) p->stop = choose(going, following, p->stop);
                p->red += weight * red;
                p->green += weight * green;
                p->blue += weight * blue;
                if (!any(going)) done[at] = 1, open--;
            }
        }
    }
    int rows = s->height - top < TILE ? s->height - top : TILE;
    int columns = s->width - left < TILE ? s->width - left : TILE;
    for (int row = 0; row < rows; row++) {
        size_t to = (size_t)(top + row) * s->width + left;
        for (int column = 0; column < columns; column++) {
            int where = place(row, column), l = where % LANES;
            const Pixels *p = tile + where / LANES;
            float t = fabsf(p->t[l]);
            s->alpha[to + column] = 1.0f - t;
            float *out = s->image + 3 * (to + column);
            out[0] = p->red[l] + t * s->background[0];
            out[1] = p->green[l] + t * s->background[1];
            out[2] = p->blue[l] + t * s->background[2];
        }
    }
    if (!keep) return;
    s->used[index] = (int32_t)k;
    for (int p = 0; p < BANDS * COLUMNS; p++) {
        size_t to = (size_t)index * PIXELS + p * LANES;
        store(s->final + to, most(tile[p].t, -tile[p].t));
        store(s->stop + to, tile[p].stop);
    }
}

/* List the pairs and blend all tiles. */
void cag_splat(const Splatting *s) {
    int tiles = s->columns * s->rows;
    int64_t next[tiles];
    int32_t counter = 0;
#pragma omp parallel num_threads(s->threads)
    {
        Pixels tile[BANDS * COLUMNS];
        fill_lists(s, next);
#pragma omp barrier
        for (int own = take(&counter); own < tiles; own = take(&counter)) {
            if (s->final) blend_tile(s, own, tile, 1);
            else blend_tile(s, own, tile, 0);
        }
    }
}

/* ---- backward -------------------------------------------------------------------------------- */

/* t: transmittance behind the current Gaussian. behind: S, the part of the image's gradient that
 * lies behind it, sum of w_j (colour_j . G) + T_final (background . G - gradient of alpha): then
 * dL/dalpha_i = T_i (colour_i . G) - S_i / (1 - alpha_i). */
typedef struct {
    vec t, behind, red, green, blue, stop;
} Gradients;

static void open_gradients(const Splatting *s, int index, int left, int top, Gradients *tile) {
    int rows = s->height - top < TILE ? s->height - top : TILE;
    int columns = s->width - left < TILE ? s->width - left : TILE;
    float sum[3] = {0};
    for (int p = 0; p < BANDS * COLUMNS; p++) {
        size_t from = (size_t)index * PIXELS + p * LANES;
        tile[p] = (Gradients){.t = load(s->final + from), .stop = load(s->stop + from)};
    }
    for (int row = 0; row < rows; row++) {
        size_t from = (size_t)(top + row) * s->width + left;
        for (int column = 0; column < columns; column++) {
            int where = place(row, column), l = where % LANES;
            Gradients *p = tile + where / LANES;
            const float *g = s->grad_image + 3 * (from + column);
            float t = p->t[l], behind = -s->grad_alpha[from + column];
            p->red[l] = g[0], p->green[l] = g[1], p->blue[l] = g[2];
            for (int c = 0; c < 3; c++) behind += s->background[c] * g[c], sum[c] += t * g[c];
            p->behind[l] = t * behind;
        }
    }
    for (int c = 0; c < 3; c++) s->grad_background[index * 3 + c] = sum[c];
}

static void blend_tile_backward(const Splatting *s, int index, Gradients *tile) {
    int left = index / s->rows * TILE, top = index % s->rows * TILE;
    int64_t first = s->start[index];
    vec lane_x, lane_y, zero = splat(0);
    Reach r;
    lane_places(&lane_x, &lane_y);
    open_gradients(s, index, left, top, tile);
    for (int k = s->used[index] - 1; k >= 0; k--) {
        int g = s->pair[first + k];
        find_reach(s, g, left, top, &r);
        const float *color = s->color + (size_t)g * 3;
        float red = color[0], green = color[1], blue = color[2];
        vec number = splat((float)k), sum[GRADIENTS];
        for (int i = 0; i < GRADIENTS; i++) sum[i] = zero;
        vec across = r.u + r.a * lane_x + r.b * lane_y, step = splat(r.a * PATCH_WIDTH);
        int touched = 0;
        for (int band = r.band; band < r.last; band++) {
            float down = (float)(band * PATCH_HEIGHT);
            vec v = r.v + r.c * (down + lane_y), base = r.log_opacity - v * v;
            vec u = across + (r.a * (float)(r.begin[band] * PATCH_WIDTH) + r.b * down);
            Gradients *p = tile + band * COLUMNS + r.begin[band];
            for (int column = r.begin[band]; column < r.end[band]; column++, p++, u += step) {
                mask drawn = above(p->stop, number);
                if (!any(drawn)) continue;
                vec raw = only(drawn, alpha_of(base - u * u));
                vec value = least(raw, splat(MAX_ALPHA)), inverse = inverse_of(1.0f - value);
                vec before = p->t * inverse, weight = value * before;
                vec along = red * p->red + green * p->green + blue * p->blue;
                /* Gradient of log(alpha); a clamped alpha has none. */
                vec slope = (before * along - p->behind * inverse) * raw;
                slope = only(not_below(splat(MAX_ALPHA), raw), slope);
                p->t = before;
                p->behind += weight * along;
                vec slope_u = slope * u, slope_v = slope * v;
                sum[0] += slope;
                sum[1] += slope_u;
                sum[2] += slope_v;
                sum[3] += slope_u * u;
                sum[4] += slope_u * v;
                sum[5] += slope_v * v;
                sum[6] += weight * p->red;
                sum[7] += weight * p->green;
                sum[8] += weight * p->blue;
                touched = 1;
            }
        }
        if (!touched) continue;
        float *out = s->grad_pair + (size_t)s->pair_slot[first + k] * GRADIENTS;
        for (int i = 0; i < GRADIENTS; i++) out[i] = total(sum[i]);
    }
}

/* Gradients of all pairs and of the background, from those of image and alpha. */
void cag_splat_backward(const Splatting *s) {
    int tiles = s->columns * s->rows;
    int32_t counter = 0;
#pragma omp parallel num_threads(s->threads)
    {
        Gradients tile[BANDS * COLUMNS];
        for (int own = take(&counter); own < tiles; own = take(&counter))
            blend_tile_backward(s, own, tile);
    }
}
