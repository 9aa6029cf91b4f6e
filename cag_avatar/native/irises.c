/* How well the pixels of an eye agree with an iris's template, and what they make of a new one: the
 * same as iris_kernels.py does in numpy. A template has a colour for each of ``count`` + 1 rings,
 * ``density`` of them in an iris radius, and one for all beyond.
 */
#include <math.h>
#include <stdint.h>

typedef struct {
    const float *colors; /* [P, 3] */
    const float *at;     /* [P, 2] */
    int64_t pixels;
    const float *rings; /* [count + 2, 3] */
    int32_t count;
    float density;
} IrisLook;

int64_t cag_irislook_size(void) { return sizeof(IrisLook); }

/* How far pixel p is from the template's colour there; which ring, and the next one's share. */
static inline float
difference(const IrisLook *look, int64_t p, float x, float y, int32_t *ring, float *share) {
    float right = look->at[2 * p] - x, down = look->at[2 * p + 1] - y;
    float place = fminf(sqrtf(right * right + down * down) * look->density, (float)look->count);
    *ring = (int32_t)place;
    *share = place - (float)*ring;
    const float *inner = look->rings + 3 * *ring, *outer = inner + 3;
    float sum = 0.0f;
    for (int c = 0; c < 3; c++)
        sum += fabsf(look->colors[3 * p + c] - inner[c] - *share * (outer[c] - inner[c]));
    return sum;
}

/* Mean difference, each at most ``most``, of centres x [X], y [Y]: costs [X, Y]. */
void cag_iris_costs(
    const IrisLook *look, const double *x, int64_t columns, const double *y, int64_t rows,
    double most, double *costs
) {
    for (int64_t i = 0; i < columns; i++)
        for (int64_t j = 0; j < rows; j++) {
            float total = 0.0f, share, limit = (float)most;
            int32_t ring;
            for (int64_t p = 0; p < look->pixels; p++)
                total += fminf(
                    difference(look, p, (float)x[i], (float)y[j], &ring, &share), limit
                );
            costs[i * rows + j] = total / (double)look->pixels;
        }
}

/* Adds the pixels, seen from ``centre``, to the rings' sums [count + 2, 3] and weights [count + 2];
 * those that differ by ``half`` count half (of no template, half = 0, all count fully). */
void cag_iris_gather(
    const IrisLook *look, const double *centre, double half, double *sums, double *weights
) {
    for (int64_t p = 0; p < look->pixels; p++) {
        int32_t ring;
        float share;
        double off = difference(look, p, (float)centre[0], (float)centre[1], &ring, &share);
        double trust = half > 0.0 ? 1.0 / (1.0 + off / half * (off / half)) : 1.0;
        for (int k = 0; k < 2; k++) {
            double part = trust * (k ? share : 1.0f - share);
            weights[ring + k] += part;
            for (int c = 0; c < 3; c++) sums[3 * (ring + k) + c] += part * look->colors[3 * p + c];
        }
    }
}
