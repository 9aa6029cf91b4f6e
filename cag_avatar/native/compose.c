/* From the offset network's outputs and the learned attributes to the Gaussians that are drawn, and
 * back, for training: tanh and limits, carrying with the surface, scales, opacities and colours.
 * Same numbers as Avatar.gaussians up to single precision's rounding.
 *
 * Of the posed mesh's gradient it gives what each Gaussian asks of its surface: a force on its
 * point and a torque on its triangle's frame, see carry_kernels.py.
 */
#include "lanes.h"

enum { BLOCK = 64, OUTPUTS = 12, MOST_SH = 8 };

static const float LOG2_E = 1.4426950408889634f, SH_0 = 0.28209479177387814f;
/* 2^f on [0, 1] as a polynomial through Chebyshev nodes, relative error 1e-7. */
static const float E0 = 9.999998808e-1f, E1 = 6.931545138e-1f, E2 = 2.401418239e-1f;
static const float E3 = 5.586033687e-2f, E4 = 8.949590847e-3f, E5 = 1.893754001e-3f;

typedef struct {
    int32_t gaussians, sh_degree, threads, reserved;
    const float *raw, *limit; /* [N, OUTPUTS] */
    const float *rotation;    /* [N, 4] wxyz, not normalised */
    const float *log_scale;   /* [N, 3] */
    const float *logit;       /* [N] */
    const float *base, *rest; /* [N, 3], [N, (degree + 1)^2 - 1, 3] */
    const float *vertices;    /* [V, 3] */
    const int32_t *corner;    /* [N, 3] */
    const float *weight;      /* [N, 3] */
    const int32_t *triangle;  /* [N] */
    const double *turn;       /* [K, 2, 3, 3]; the second is used */
    const double *quaternion; /* [K, 4] */
    float head[9];            /* the head pose's rotation, row by row */
    float unused;
    float *means, *quaternions, *scales, *opacities, *colors;
    const float *grad_means, *grad_quaternions, *grad_scales, *grad_opacities, *grad_colors;
    float *grad_raw, *grad_rotation, *grad_log_scale, *grad_logit, *grad_base, *grad_rest;
    float *grad_points; /* [N, 3] of the colours alone; NULL: the mesh's gradient is not wanted */
    double *torque;     /* [N, 3] */
    double *grad_head;  /* [blocks, 9] of head */
} Compose;

int64_t cag_compose_size(void) { return sizeof(Compose); }

static inline float exp_fast(float x) {
    x *= LOG2_E;
    x = x < -126.0f ? -126.0f : (x > 126.0f ? 126.0f : x);
    float whole = floorf(x), f = x - whole;
    float p = ((((E5 * f + E4) * f + E3) * f + E2) * f + E1) * f + E0;
    union {
        int32_t i;
        float f;
    } bits = {((int32_t)whole + 127) << 23};
    return p * bits.f;
}

static inline float tanh_of(float x) {
    float e = exp_fast(2 * (x > 15.0f ? 15.0f : x));
    return 1.0f - 2.0f / (e + 1.0f);
}

/* What forward and backward share of a block, component by component. */
typedef struct {
    float squashed[OUTPUTS][BLOCK], limit[OUTPUTS][BLOCK], rotation[4][BLOCK];
    float turn[9][BLOCK], surface[4][BLOCK]; /* of the triangle: matrix and quaternion */
    float local[4][BLOCK], norm[BLOCK];      /* own rotation with its offset, unit; length before */
    float scale[3][BLOCK], opacity[BLOCK], point[3][BLOCK], basis[MOST_SH][BLOCK], color[3][BLOCK];
} Block;

static void gather(float *to, const float *from, int stride, int count) {
    for (int l = 0; l < count; l++) to[l] = from[(size_t)l * stride];
}

static void scatter(float *to, const float *from, int stride, int count) {
    for (int l = 0; l < count; l++) to[(size_t)l * stride] = from[l];
}

static void prepare(const Compose *c, Block *b, int from, int count) {
    int sh = (c->sh_degree + 1) * (c->sh_degree + 1) - 1;
    for (int o = 0; o < OUTPUTS; o++) {
        gather(b->squashed[o], c->raw + (size_t)from * OUTPUTS + o, OUTPUTS, count);
        gather(b->limit[o], c->limit + (size_t)from * OUTPUTS + o, OUTPUTS, count);
#pragma omp simd
        for (int l = 0; l < BLOCK; l++) b->squashed[o][l] = tanh_of(b->squashed[o][l]);
    }
    for (int k = 0; k < 4; k++)
        gather(b->rotation[k], c->rotation + (size_t)from * 4 + k, 4, count);
    for (int k = 0; k < 3; k++) gather(b->scale[k], c->log_scale + (size_t)from * 3 + k, 3, count);
    memcpy(b->opacity, c->logit + from, count * sizeof(float));
    for (int l = 0; l < count; l++) {
        int g = from + l;
        const double *turn = c->turn + (size_t)c->triangle[g] * 18 + 9,
                     *q = c->quaternion + (size_t)c->triangle[g] * 4;
        for (int k = 0; k < 9; k++) b->turn[k][l] = (float)turn[k];
        for (int k = 0; k < 4; k++) b->surface[k][l] = (float)q[k];
        const float *w = c->weight + (size_t)g * 3;
        const int32_t *corner = c->corner + (size_t)g * 3;
        for (int k = 0; k < 3; k++)
            b->point[k][l] = w[0] * c->vertices[3 * corner[0] + k] +
                             w[1] * c->vertices[3 * corner[1] + k] +
                             w[2] * c->vertices[3 * corner[2] + k];
    }
#pragma omp simd
    for (int l = 0; l < BLOCK; l++) {
        float tx = b->squashed[3][l] * b->limit[3][l], ty = b->squashed[4][l] * b->limit[4][l];
        float tz = b->squashed[5][l] * b->limit[5][l];
        float rw = b->rotation[0][l], rx = b->rotation[1][l], ry = b->rotation[2][l],
              rz = b->rotation[3][l];
        float qw = rw - tx * rx - ty * ry - tz * rz, qx = rx + tx * rw + ty * rz - tz * ry;
        float qy = ry + ty * rw + tz * rx - tx * rz, qz = rz + tz * rw + tx * ry - ty * rx;
        float norm = sqrtf(qw * qw + qx * qx + qy * qy + qz * qz);
        norm = norm > 1e-12f ? norm : 1e-12f;
        b->norm[l] = norm;
        float inverse = 1.0f / norm;
        b->local[0][l] = qw * inverse, b->local[1][l] = qx * inverse;
        b->local[2][l] = qy * inverse, b->local[3][l] = qz * inverse;
        for (int k = 0; k < 3; k++)
            b->scale[k][l] = exp_fast(b->scale[k][l] + b->squashed[6 + k][l] * b->limit[6 + k][l]);
        b->opacity[l] = 1.0f / (1.0f + exp_fast(-b->opacity[l]));
        const float *h = c->head;
        float px = b->point[0][l], py = b->point[1][l], pz = b->point[2][l];
        float length = 1.0f / sqrtf(px * px + py * py + pz * pz + 1e-24f);
        float x = (h[0] * px + h[3] * py + h[6] * pz) * length;
        float y = (h[1] * px + h[4] * py + h[7] * pz) * length;
        float z = (h[2] * px + h[5] * py + h[8] * pz) * length;
        b->basis[0][l] = -0.4886025119029199f * y;
        b->basis[1][l] = 0.4886025119029199f * z;
        b->basis[2][l] = -0.4886025119029199f * x;
        b->basis[3][l] = 1.0925484305920792f * x * y;
        b->basis[4][l] = -1.0925484305920792f * y * z;
        b->basis[5][l] = 0.31539156525252005f * (3 * z * z - 1);
        b->basis[6][l] = -1.0925484305920792f * x * z;
        b->basis[7][l] = 0.5462742152960396f * (x * x - y * y);
    }
    for (int k = 0; k < 3; k++) {
        float own[BLOCK];
        gather(own, c->base + (size_t)from * 3 + k, 3, count);
        for (int l = 0; l < BLOCK; l++)
            b->color[k][l] = 0.5f + SH_0 * own[l] + b->squashed[9 + k][l] * b->limit[9 + k][l];
        for (int j = 0; j < sh; j++) {
            gather(own, c->rest + ((size_t)from * sh + j) * 3 + k, 3 * sh, count);
            for (int l = 0; l < BLOCK; l++) b->color[k][l] += b->basis[j][l] * own[l];
        }
    }
}

static void forward_block(const Compose *c, Block *b, int from, int count) {
    float mean[3][BLOCK], q[4][BLOCK];
    prepare(c, b, from, count);
#pragma omp simd
    for (int l = 0; l < BLOCK; l++) {
        float ox = b->squashed[0][l] * b->limit[0][l], oy = b->squashed[1][l] * b->limit[1][l];
        float oz = b->squashed[2][l] * b->limit[2][l];
        for (int k = 0; k < 3; k++)
            mean[k][l] = b->point[k][l] + b->turn[3 * k][l] * ox + b->turn[3 * k + 1][l] * oy +
                         b->turn[3 * k + 2][l] * oz;
        float sw = b->surface[0][l], sx = b->surface[1][l], sy = b->surface[2][l],
              sz = b->surface[3][l];
        float w = b->local[0][l], x = b->local[1][l], y = b->local[2][l], z = b->local[3][l];
        q[0][l] = sw * w - sx * x - sy * y - sz * z;
        q[1][l] = sw * x + sx * w + sy * z - sz * y;
        q[2][l] = sw * y + sy * w + sz * x - sx * z;
        q[3][l] = sw * z + sz * w + sx * y - sy * x;
        for (int k = 0; k < 3; k++) b->color[k][l] = b->color[k][l] > 0 ? b->color[k][l] : 0;
    }
    for (int k = 0; k < 3; k++) {
        scatter(c->means + (size_t)from * 3 + k, mean[k], 3, count);
        scatter(c->scales + (size_t)from * 3 + k, b->scale[k], 3, count);
        scatter(c->colors + (size_t)from * 3 + k, b->color[k], 3, count);
    }
    for (int k = 0; k < 4; k++) scatter(c->quaternions + (size_t)from * 4 + k, q[k], 4, count);
    memcpy(c->opacities + from, b->opacity, count * sizeof(float));
}

/* The colours' gradient with respect to the points, through the directions that they are seen from,
 * and to the head's rotation; the torque on the surface. */
static void surface_gradients(
    const Compose *c, const Block *b, float mean[3][BLOCK], float q[4][BLOCK],
    float color[3][BLOCK], int from, int count
) {
    static const float C1 = 0.4886025119029199f, C2 = 1.0925484305920792f,
                       C3 = 0.31539156525252005f;
    static const float C4 = 0.5462742152960396f;
    int sh = (c->sh_degree + 1) * (c->sh_degree + 1) - 1;
    double head[9] = {0};
    for (int l = 0; l < count; l++) {
        size_t g = (size_t)from + l;
        float s[MOST_SH] = {0}, p[3], d[3], along = 0, turned[3], square = 1e-24f;
        for (int j = 0; j < sh; j++)
            for (int k = 0; k < 3; k++) s[j] += color[k][l] * c->rest[(g * sh + j) * 3 + k];
        for (int k = 0; k < 3; k++) p[k] = b->point[k][l], square += p[k] * p[k];
        float inverse = 1.0f / sqrtf(square);
        for (int k = 0; k < 3; k++)
            d[k] = (c->head[k] * p[0] + c->head[3 + k] * p[1] + c->head[6 + k] * p[2]) * inverse;
        float x = d[0], y = d[1], z = d[2];
        turned[0] = -C1 * s[2] + C2 * (y * s[3] - z * s[6]) + 2 * C4 * x * s[7];
        turned[1] = -C1 * s[0] + C2 * (x * s[3] - z * s[4]) - 2 * C4 * y * s[7];
        turned[2] = C1 * s[1] - C2 * (y * s[4] + x * s[6]) + 6 * C3 * z * s[5];
        for (int k = 0; k < 3; k++) along += turned[k] * d[k];
        for (int k = 0; k < 3; k++) turned[k] = (turned[k] - along * d[k]) * inverse;
        for (int k = 0; k < 3; k++) {
            const float *row = c->head + 3 * k;
            c->grad_points[g * 3 + k] =
                row[0] * turned[0] + row[1] * turned[1] + row[2] * turned[2];
            for (int m = 0; m < 3; m++) head[3 * k + m] += p[k] * turned[m];
        }
        float o[3], w[3];
        for (int k = 0; k < 3; k++) o[k] = b->squashed[k][l] * b->limit[k][l];
        for (int k = 0; k < 3; k++)
            w[k] = b->turn[3 * k][l] * o[0] + b->turn[3 * k + 1][l] * o[1] +
                   b->turn[3 * k + 2][l] * o[2];
        float sw = b->surface[0][l], sx = b->surface[1][l], sy = b->surface[2][l],
              sz = b->surface[3][l];
        float lw = b->local[0][l], lx = b->local[1][l], ly = b->local[2][l], lz = b->local[3][l];
        float fw = sw * lw - sx * lx - sy * ly - sz * lz,
              fx = sw * lx + sx * lw + sy * lz - sz * ly;
        float fy = sw * ly + sy * lw + sz * lx - sx * lz,
              fz = sw * lz + sz * lw + sx * ly - sy * lx;
        float gx = mean[0][l], gy = mean[1][l], gz = mean[2][l];
        float qw = q[0][l], qx = q[1][l], qy = q[2][l], qz = q[3][l];
        /* A small rotation r of the surface moves the mean by r x w and the quaternion f by (0, r)
         * f / 2. */
        c->torque[g * 3] = w[1] * gz - w[2] * gy + 0.5f * (-qw * fx + qx * fw - qy * fz + qz * fy);
        c->torque[g * 3 + 1] =
            w[2] * gx - w[0] * gz + 0.5f * (-qw * fy + qx * fz + qy * fw - qz * fx);
        c->torque[g * 3 + 2] =
            w[0] * gy - w[1] * gx + 0.5f * (-qw * fz - qx * fy + qy * fx + qz * fw);
    }
    memcpy(c->grad_head + (size_t)(from / BLOCK) * 9, head, sizeof head);
}

static void backward_block(const Compose *c, Block *b, int from, int count) {
    int sh = (c->sh_degree + 1) * (c->sh_degree + 1) - 1;
    float mean[3][BLOCK] = {{0}}, q[4][BLOCK] = {{0}}, color[3][BLOCK] = {{0}},
          scale[3][BLOCK] = {{0}};
    float opacity[BLOCK] = {0}, raw[OUTPUTS][BLOCK], rotation[4][BLOCK];
    prepare(c, b, from, count);
    for (int k = 0; k < 3; k++) {
        gather(mean[k], c->grad_means + (size_t)from * 3 + k, 3, count);
        gather(scale[k], c->grad_scales + (size_t)from * 3 + k, 3, count);
        gather(color[k], c->grad_colors + (size_t)from * 3 + k, 3, count);
    }
    for (int k = 0; k < 4; k++) gather(q[k], c->grad_quaternions + (size_t)from * 4 + k, 4, count);
    memcpy(opacity, c->grad_opacities + from, count * sizeof(float));
    for (int k = 0; k < 3; k++) /* torch's clamp_min lets the gradient of 0 through */
        for (int l = 0; l < BLOCK; l++) color[k][l] = b->color[k][l] >= 0 ? color[k][l] : 0;
    if (c->grad_points) surface_gradients(c, b, mean, q, color, from, count);
#pragma omp simd
    for (int l = 0; l < BLOCK; l++) {
        for (int k = 0; k < 3; k++) {
            raw[k][l] = b->turn[k][l] * mean[0][l] + b->turn[3 + k][l] * mean[1][l] +
                        b->turn[6 + k][l] * mean[2][l];
            scale[k][l] *= b->scale[k][l];
            raw[6 + k][l] = scale[k][l];
            raw[9 + k][l] = color[k][l];
        }
        opacity[l] *= b->opacity[l] * (1 - b->opacity[l]);
        /* Multiplication by a unit quaternion is orthogonal: its transpose is its conjugate. */
        float sw = b->surface[0][l], sx = -b->surface[1][l], sy = -b->surface[2][l],
              sz = -b->surface[3][l];
        float gw = sw * q[0][l] - sx * q[1][l] - sy * q[2][l] - sz * q[3][l];
        float gx = sw * q[1][l] + sx * q[0][l] + sy * q[3][l] - sz * q[2][l];
        float gy = sw * q[2][l] + sy * q[0][l] + sz * q[1][l] - sx * q[3][l];
        float gz = sw * q[3][l] + sz * q[0][l] + sx * q[2][l] - sy * q[1][l];
        float along =
            gw * b->local[0][l] + gx * b->local[1][l] + gy * b->local[2][l] + gz * b->local[3][l];
        float inverse = 1.0f / b->norm[l];
        gw = (gw - along * b->local[0][l]) * inverse, gx = (gx - along * b->local[1][l]) * inverse;
        gy = (gy - along * b->local[2][l]) * inverse, gz = (gz - along * b->local[3][l]) * inverse;
        float rw = b->rotation[0][l], rx = -b->rotation[1][l], ry = -b->rotation[2][l],
              rz = -b->rotation[3][l];
        raw[3][l] = gw * rx + gx * rw + gy * rz - gz * ry;
        raw[4][l] = gw * ry + gy * rw + gz * rx - gx * rz;
        raw[5][l] = gw * rz + gz * rw + gx * ry - gy * rx;
        float tx = -b->squashed[3][l] * b->limit[3][l], ty = -b->squashed[4][l] * b->limit[4][l];
        float tz = -b->squashed[5][l] * b->limit[5][l];
        rotation[0][l] = gw - tx * gx - ty * gy - tz * gz;
        rotation[1][l] = gx + tx * gw + ty * gz - tz * gy;
        rotation[2][l] = gy + ty * gw + tz * gx - tx * gz;
        rotation[3][l] = gz + tz * gw + tx * gy - ty * gx;
        for (int o = 0; o < OUTPUTS; o++)
            raw[o][l] *= b->limit[o][l] * (1 - b->squashed[o][l] * b->squashed[o][l]);
    }
    for (int o = 0; o < OUTPUTS; o++)
        scatter(c->grad_raw + (size_t)from * OUTPUTS + o, raw[o], OUTPUTS, count);
    for (int k = 0; k < 4; k++)
        scatter(c->grad_rotation + (size_t)from * 4 + k, rotation[k], 4, count);
    memcpy(c->grad_logit + from, opacity, count * sizeof(float));
    for (int k = 0; k < 3; k++) {
        float own[BLOCK];
        scatter(c->grad_log_scale + (size_t)from * 3 + k, scale[k], 3, count);
        for (int l = 0; l < BLOCK; l++) own[l] = SH_0 * color[k][l];
        scatter(c->grad_base + (size_t)from * 3 + k, own, 3, count);
        for (int j = 0; j < sh; j++) {
            for (int l = 0; l < BLOCK; l++) own[l] = b->basis[j][l] * color[k][l];
            scatter(c->grad_rest + ((size_t)from * sh + j) * 3 + k, own, 3 * sh, count);
        }
    }
}

static void run(const Compose *c, int backward) {
    int blocks = (c->gaussians + BLOCK - 1) / BLOCK;
#pragma omp parallel num_threads(c->threads)
    {
        Block b;
        int first, end;
        memset(&b, 0, sizeof b);
        range(blocks, &first, &end);
        for (int block = first; block < end; block++) {
            int from = block * BLOCK, left = c->gaussians - from,
                count = left < BLOCK ? left : BLOCK;
            if (backward) backward_block(c, &b, from, count);
            else forward_block(c, &b, from, count);
        }
    }
}

void cag_compose(const Compose *c) { run(c, 0); }
void cag_compose_backward(const Compose *c) { run(c, 1); }
