/* Pose and code of one frame by damped Gauss-Newton on its landmarks: live_fit.py's _step() in
 * double precision, one thread. Variables: rotation vector applied on the left, translation in
 * decimetres, code.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    int32_t landmarks, coefficients, iterations, held; /* held near ``before`` */
    int32_t skin;                                      /* of the landmarks, the first ones */
    const double *rest;                                /* [N, 3] metres */
    const double *basis;                               /* [N, 3, E] */
    const double *weight;                              /* [N] */
    const double *normal;                              /* [N, 3] */
    const int32_t *eye;                                /* [N]: 0, 1, or -1 */
    int32_t look[2][4]; /* coefficients of each eye that look in, out, up, down */
    double eye_centre[2][3];
    double gaze_yaw, gaze_pitch;                               /* radians at a coefficient of 1 */
    double noise, robust, smooth_rotation, smooth_translation; /* FitConfig's; the last in dm */
    double focal, centre[2], unit;                             /* pixels */
    const double *seen;                                        /* [N, 2] pixels */
    const double *mean, *deviation, *smooth, *low, *high;      /* [E] of the prior */
    double before_rotation[9], before_translation[3];
    const double *before_code;
    double rotation[9], translation[3]; /* in and out */
    double *code;                       /* [E] in and out */
    double error;                       /* out: root mean square, in units */
    double *work;                       /* [cag_landmark_fit_work(E)] */
} LandmarkFit;

int64_t cag_landmarkfit_size(void) { return sizeof(LandmarkFit); }

/* Columns of a row of equations, a multiple of eight. */
static int stride_of(int coefficients) { return (6 + coefficients + 7) / 8 * 8; }

int64_t cag_landmark_fit_work(int32_t coefficients) {
    int64_t s = stride_of(coefficients);
    return 2 * s * s + 8 * s;
}

static void times(const double *a, const double *b, double *out) {
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            out[3 * i + j] = a[3 * i] * b[j] + a[3 * i + 1] * b[3 + j] + a[3 * i + 2] * b[6 + j];
}

/* Rotation matrix of a rotation vector (Rodrigues). */
static void rotation_of(const double *v, double *out) {
    double angle = sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
    double a = angle < 1e-8 ? 1.0 : sin(angle) / angle;
    double b = angle < 1e-8 ? 0.5 : (1.0 - cos(angle)) / (angle * angle);
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) out[3 * i + j] = b * v[i] * v[j];
    double c = 1.0 - b * angle * angle;
    out[0] += c, out[4] += c, out[8] += c;
    out[1] -= a * v[2], out[2] += a * v[1], out[3] += a * v[2];
    out[5] -= a * v[0], out[6] -= a * v[1], out[7] += a * v[0];
}

/* Takes off what rounding made of a product of rotations: one step to the nearest rotation. */
static void orthonormalise(double *r) {
    double out[9];
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) {
            double sum = 0.0;
            for (int k = 0; k < 3; k++) {
                double inner = 0.0;
                for (int l = 0; l < 3; l++) inner += r[3 * l + k] * r[3 * l + j];
                sum += r[3 * i + k] * ((k == j ? 3.0 : 0.0) - inner);
            }
            out[3 * i + j] = 0.5 * sum;
        }
    memcpy(r, out, sizeof out);
}

/* What the present code makes of an eye. */
typedef struct {
    double turn[9], sign;
} Eye;

static Eye eye_of(const LandmarkFit *f, int side) {
    const int32_t *look = f->look[side];
    Eye eye = {.sign = side == 0 ? 1.0 : -1.0};
    double vector[3] = {
        (f->code[look[3]] - f->code[look[2]]) * f->gaze_pitch,
        eye.sign * (f->code[look[1]] - f->code[look[0]]) * f->gaze_yaw,
        0.0,
    };
    rotation_of(vector, eye.turn);
    return eye;
}

/* A landmark's canonical position; on an eyeball also from the eye's centre, ``arm``. */
static void place(const LandmarkFit *f, const Eye *eyes, int i, double *local, double *arm) {
    const double *rest = f->rest + 3 * i;
    int side = f->eye[i], e = f->coefficients;
    if (side < 0) {
        for (int c = 0; c < 3; c++) {
            const double *row = f->basis + (size_t)(3 * i + c) * e;
            double sum = 0.0;
#pragma omp simd reduction(+ : sum)
            for (int k = 0; k < e; k++) sum += row[k] * f->code[k];
            local[c] = rest[c] + sum;
        }
        return;
    }
    const double *centre = f->eye_centre[side], *turn = eyes[side].turn;
    for (int c = 0; c < 3; c++) {
        arm[c] = 0.0;
        for (int k = 0; k < 3; k++) arm[c] += turn[3 * c + k] * (rest[k] - centre[k]);
        local[c] = centre[c] + arm[c];
    }
}

static double
project(const LandmarkFit *f, const double *rotated, double *camera, int i, double *residual) {
    for (int c = 0; c < 3; c++) camera[c] = rotated[c] + f->translation[c];
    double inverse = f->focal / f->unit / camera[2];
    for (int c = 0; c < 2; c++)
        residual[c] = camera[c] * inverse + (f->centre[c] - f->seen[2 * i + c]) / f->unit;
    return inverse;
}

/* One coordinate's row of equations: its derivative ``by`` position, in camera axes. */
static void fill_row(
    const LandmarkFit *f, const Eye *eyes, int i, const double *rotated, const double *arm,
    const double *by, double *row
) {
    const double *r = f->rotation;
    int side = f->eye[i], e = f->coefficients;
    row[0] = rotated[1] * by[2] - rotated[2] * by[1];
    row[1] = rotated[2] * by[0] - rotated[0] * by[2];
    row[2] = rotated[0] * by[1] - rotated[1] * by[0];
    for (int c = 0; c < 3; c++) row[3 + c] = 0.1 * by[c];
    double turned[3];
    for (int c = 0; c < 3; c++) turned[c] = by[0] * r[c] + by[1] * r[3 + c] + by[2] * r[6 + c];
    double *own = row + 6;
    if (side < 0) {
        const double *x = f->basis + (size_t)(3 * i) * e, *y = x + e, *z = y + e;
#pragma omp simd
        for (int k = 0; k < e; k++) own[k] = turned[0] * x[k] + turned[1] * y[k] + turned[2] * z[k];
        return;
    }
    memset(own, 0, sizeof(double) * e);
    const int32_t *look = f->look[side];
    double by_pitch = f->gaze_pitch * (turned[2] * arm[1] - turned[1] * arm[2]);
    double by_yaw = f->gaze_yaw * eyes[side].sign * (turned[0] * arm[2] - turned[2] * arm[0]);
    own[look[1]] = by_yaw, own[look[0]] = -by_yaw;
    own[look[3]] = by_pitch, own[look[2]] = -by_pitch;
}

/* Lower triangle of the landmarks' normal equations, and their right side. */
static void gather(const LandmarkFit *f, double *matrix, double *right, double *rows) {
    int n = f->landmarks, size = 6 + f->coefficients, s = stride_of(f->coefficients);
    Eye eyes[2] = {eye_of(f, 0), eye_of(f, 1)};
    double most = 0.0;
    for (int i = 0; i < f->skin; i++) most = fmax(most, f->weight[i]);
    memset(matrix, 0, sizeof(double) * s * s);
    memset(right, 0, sizeof(double) * s);
    memset(rows, 0, sizeof(double) * 2 * s);
    const double *r = f->rotation;
    for (int i = 0; i < n; i++) {
        double local[3], arm[3], rotated[3], camera[3], residual[2];
        place(f, eyes, i, local, arm);
        for (int c = 0; c < 3; c++)
            rotated[c] = r[3 * c] * local[0] + r[3 * c + 1] * local[1] + r[3 * c + 2] * local[2];
        double inverse = project(f, rotated, camera, i, residual);
        const double *normal = f->normal + 3 * i;
        double towards = -(r[6] * normal[0] + r[7] * normal[1] + r[8] * normal[2]);
        double squared = residual[0] * residual[0] + residual[1] * residual[1];
        squared *= f->weight[i] / most / (f->noise * f->noise);
        double robust = 1.0 + squared / (f->robust * f->robust);
        double weight = f->weight[i] * fmin(fmax((towards + 0.1) / 0.5, 0.05), 1.0);
        weight /= robust * robust;
        double by[2][3] = {
            {inverse, 0.0, -camera[0] * inverse / camera[2]},
            {0.0, inverse, -camera[1] * inverse / camera[2]},
        };
        for (int c = 0; c < 2; c++) fill_row(f, eyes, i, rotated, arm, by[c], rows + c * s);
        const double *u = rows, *v = rows + s;
        for (int a = 0; a < size; a++) {
            double wu = weight * u[a], wv = weight * v[a];
            right[a] -= wu * residual[0] + wv * residual[1];
            double *line = matrix + (size_t)a * s;
            int to = (a + 8) / 8 * 8; /* whole vectors; what lies beyond a is not used */
#pragma omp simd
            for (int b = 0; b < to; b++) line[b] += wu * u[b] + wv * v[b];
        }
    }
}

/* Adds what is known before the landmarks are looked at. */
static void add_priors(const LandmarkFit *f, double *matrix, double *right) {
    int s = stride_of(f->coefficients);
    double diagonal[6] = {1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3};
    if (f->held) {
        double turn[9], transposed[9], stiff = 1.0 / (f->smooth_rotation * f->smooth_rotation);
        for (int i = 0; i < 9; i++) transposed[i] = f->rotation[i % 3 * 3 + i / 3];
        times(f->before_rotation, transposed, turn);
        double vector[3] = {turn[7] - turn[5], turn[2] - turn[6], turn[3] - turn[1]};
        double stiff_dm = 1.0 / (f->smooth_translation * f->smooth_translation);
        for (int c = 0; c < 3; c++) {
            diagonal[c] += stiff, diagonal[3 + c] += stiff_dm;
            right[c] += 0.5 * vector[c] * stiff;
            right[3 + c] += (f->before_translation[c] - f->translation[c]) * 10.0 * stiff_dm;
        }
    }
    for (int c = 0; c < 6; c++) matrix[c * s + c] += diagonal[c];
    for (int k = 0; k < f->coefficients; k++) {
        double precision = 1.0 / (f->deviation[k] * f->deviation[k]);
        double own = 1e-3 + precision, *to = right + 6 + k;
        *to += (f->mean[k] - f->code[k]) * precision;
        if (f->held) {
            double stiff = 1.0 / (f->smooth[k] * f->smooth[k]);
            own += stiff, *to += (f->before_code[k] - f->code[k]) * stiff;
        }
        matrix[(6 + k) * s + 6 + k] += own;
    }
}

/* Solves matrix x = right for the variables that are not fixed: Cholesky, of the lower triangle in
 * ``factor``. The fixed ones' values stand in x. */
static void solve(
    const double *matrix, const double *right, const uint8_t *fixed, double *factor, double *x,
    int size, int s
) {
    for (int i = 0; i < size; i++) {
        double *row = factor + (size_t)i * s, held = 0.0;
        for (int j = 0; j <= i; j++)
            row[j] = fixed[i] || fixed[j] ? (i == j ? 1.0 : 0.0) : matrix[(size_t)i * s + j];
        for (int j = 0; j < size; j++)
            if (fixed[j]) held += matrix[(size_t)(i > j ? i : j) * s + (i > j ? j : i)] * x[j];
        if (!fixed[i]) x[i] = right[i] - held;
    }
    for (int i = 0; i < size; i++) {
        double *row = factor + (size_t)i * s;
        for (int j = 0; j <= i; j++) {
            const double *other = factor + (size_t)j * s;
            double sum = row[j];
#pragma omp simd reduction(- : sum)
            for (int k = 0; k < j; k++) sum -= row[k] * other[k];
            row[j] = i == j ? sqrt(sum) : sum / other[j];
        }
    }
    for (int i = 0; i < size; i++) {
        const double *row = factor + (size_t)i * s;
        if (fixed[i]) continue;
        double sum = x[i];
        for (int k = 0; k < i; k++) sum -= fixed[k] ? 0.0 : row[k] * x[k];
        x[i] = sum / row[i];
    }
    for (int i = size - 1; i >= 0; i--) {
        if (fixed[i]) continue;
        x[i] /= factor[(size_t)i * s + i];
        for (int k = 0; k < i; k++)
            if (!fixed[k]) x[k] -= factor[(size_t)i * s + k] * x[i];
    }
}

/* A step with the code in its bounds: variables that leave are fixed at the bound, twice. */
static void solve_bounded(
    const LandmarkFit *f, const double *matrix, const double *right, double *factor, double *x
) {
    int e = f->coefficients, size = 6 + e, s = stride_of(e);
    uint8_t fixed[size];
    memset(fixed, 0, size);
    for (int round = 0; round < 4; round++) {
        solve(matrix, right, fixed, factor, x, size, s);
        int outside = 0;
        for (int k = 0; k < e; k++) {
            double low = f->low[k] - f->code[k], high = f->high[k] - f->code[k];
            double bounded = fmin(fmax(x[6 + k], low), high);
            int leaves = bounded != x[6 + k] && !fixed[6 + k];
            outside |= leaves;
            if (leaves && round < 3) fixed[6 + k] = 1;
            x[6 + k] = bounded;
        }
        if (!outside) return;
    }
}

static double error_of(const LandmarkFit *f) {
    Eye eyes[2] = {eye_of(f, 0), eye_of(f, 1)};
    const double *r = f->rotation;
    double sum = 0.0;
    for (int i = 0; i < f->landmarks; i++) {
        double local[3], arm[3], rotated[3], camera[3], residual[2];
        place(f, eyes, i, local, arm);
        for (int c = 0; c < 3; c++)
            rotated[c] = r[3 * c] * local[0] + r[3 * c + 1] * local[1] + r[3 * c + 2] * local[2];
        project(f, rotated, camera, i, residual);
        sum += residual[0] * residual[0] + residual[1] * residual[1];
    }
    return sqrt(sum / (2.0 * f->landmarks));
}

void cag_landmark_fit(LandmarkFit *f) {
    int e = f->coefficients, s = stride_of(e);
    double *matrix = f->work, *factor = matrix + (size_t)s * s, *right = factor + (size_t)s * s;
    double *step = right + s, *rows = step + s;
    for (int iteration = 0; iteration < f->iterations; iteration++) {
        gather(f, matrix, right, rows);
        add_priors(f, matrix, right);
        solve_bounded(f, matrix, right, factor, step);
        double vector[3], turn[9], turned[9];
        for (int c = 0; c < 3; c++) vector[c] = fmin(fmax(step[c], -0.5), 0.5);
        rotation_of(vector, turn);
        times(turn, f->rotation, turned);
        orthonormalise(turned);
        memcpy(f->rotation, turned, sizeof turned);
        for (int c = 0; c < 3; c++) f->translation[c] += 0.1 * step[3 + c];
        for (int k = 0; k < e; k++)
            f->code[k] = fmin(fmax(f->code[k] + step[6 + k], f->low[k]), f->high[k]);
    }
    f->error = error_of(f);
}
