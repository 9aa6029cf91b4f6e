/* Vectors of LANES floats, as wide as the processor has them, for the code beside it. */
#ifndef CAG_LANES_H
#define CAG_LANES_H
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__AVX512F__) || defined(__AVX__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));
/* The same, wherever it lies. */
typedef float loose_vec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

int32_t cag_lanes(void) { return LANES; }

#ifdef _OPENMP
static inline double now(void) { return omp_get_wtime(); }
static inline int my_share(void) { return omp_get_thread_num(); }
static inline int shares(void) { return omp_get_num_threads(); }
#else
static inline double now(void) { return 0; }
static inline int my_share(void) { return 0; }
static inline int shares(void) { return 1; }
#endif

/* This thread's part of 0 .. count. */
static inline void range(int count, int *first, int *end) {
    int t = my_share(), n = shares();
    *first = (int)((int64_t)count * t / n);
    *end = (int)((int64_t)count * (t + 1) / n);
}

/* Hands out the next of some work. Cores that other programs keep busy then take less of it. */
static inline int take(int32_t *counter) {
    int own;
#pragma omp atomic capture
    own = (*counter)++;
    return own;
}

static inline vec splat(float x) { return x - (vec){0}; }
static inline vec load(const float *x) { return *(const loose_vec *)x; }
static inline void store(float *x, vec value) { *(loose_vec *)x = value; }

static inline float clamp(float x, float low, float high) {
    x = x < low ? low : x;
    return x > high ? high : x;
}

/* Masks: which lanes. */
#if defined(__AVX512F__)
typedef __mmask16 mask;
static inline mask above(vec a, vec b) {
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ);
}
static inline mask not_below(vec a, vec b) {
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GE_OQ);
}
static inline mask both(mask a, mask b) { return a & b; }
static inline int any(mask m) { return m != 0; }
static inline vec only(mask m, vec x) { return (vec)_mm512_maskz_mov_ps(m, (__m512)x); }
static inline vec choose(mask m, vec yes, vec no) {
    return (vec)_mm512_mask_blend_ps(m, (__m512)no, (__m512)yes);
}
static inline vec least(vec a, vec b) { return (vec)_mm512_min_ps((__m512)a, (__m512)b); }
static inline vec most(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
static inline float total(vec x) { return _mm512_reduce_add_ps((__m512)x); }
/* 1 / x to single precision. */
static inline vec inverse_of(vec x) {
    vec first = (vec)_mm512_rcp14_ps((__m512)x);
    return first * (2.0f - x * first);
}
#else
typedef ivec mask;
static inline mask above(vec a, vec b) { return a > b; }
static inline mask not_below(vec a, vec b) { return a >= b; }
static inline mask both(mask a, mask b) { return a & b; }
static inline vec only(mask m, vec x) { return (vec)((ivec)x & m); }
static inline vec choose(mask m, vec yes, vec no) {
    return (vec)(((ivec)yes & m) | ((ivec)no & ~m));
}
static inline vec least(vec a, vec b) { return choose(a < b, a, b); }
static inline vec most(vec a, vec b) { return choose(a > b, a, b); }
static inline vec inverse_of(vec x) { return 1.0f / x; }
static inline int any(mask m) {
#if defined(__AVX__)
    return _mm256_movemask_ps((__m256)m) != 0;
#else
    int found = 0;
    for (int l = 0; l < LANES; l++) found |= m[l];
    return found != 0;
#endif
}
static inline float total(vec x) {
    float sum = 0;
    for (int l = 0; l < LANES; l++) sum += x[l];
    return sum;
}
#endif
#endif
