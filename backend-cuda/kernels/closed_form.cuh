// The closed form, as the r x r matrices that the thin passes apply. With `gamma` everything that
// multiplies the raw gradients (sign, loss scale, clip):
//
//     P0 = gamma SB^+ / s^2        dA  = P0 gA  + X A
//     P1 = gamma SA^+ / s^2        dB' = P1 gB' - (Q + X)' B'
//     Q  = gamma SB^+ (B'gB) SA^+ / s^2                    (B Q is the part of V inside B's columns)
//     X:   SB X + X SA = -U A'  or  -Q / 2  or  0
//
// Inverses enter as roots, S^+ = R R', with R' first and R last: products with S^+ itself would
// lose the square of the condition number.
#pragma once
#include "matrix.cuh"

// f(lambda) of the damped inverse Q diag(f) Q'. Entries of the Gram matrix are sums of `count`
// products: without damping, an eigenvalue with less than two digits after their rounding is 0.
DEVICE double damped_inverse(const Hyper& hyper, double lambda, double largest, int count) {
    const double EPS = 2.220446049250313e-16;
    switch (hyper.damping_kind) {
    case NONE: return lambda <= double(NULL_EIGENVALUE) * count * EPS * largest ? 0.0 : 1.0 / lambda;
    case CUTOFF: return lambda <= hyper.damping * largest ? 0.0 : 1.0 / lambda;
    default: {
        double shift = hyper.damping_kind == ABSOLUTE ? hyper.damping : hyper.damping * largest;
        return lambda + shift <= 0.0 ? 0.0 : 1.0 / (lambda + shift);
    }
    }
}

DEVICE double largest_of(const double* values, int r) {
    double largest = values[0];
    for (int i = 1; i < r; ++i) largest = fmax(largest, values[i]);
    return largest;
}

// The damped inverse of a side's decomposed Gram matrix: its root, and itself.
DEVICE_LARGE void invert(const Adapter& adapter, int side) {
    RankMatrices m(adapter);
    const double* values = m.values(side);
    double largest = fmax(0.0, largest_of(values, m.r));
    for (int at = threadIdx.x; at < m.r * m.r; at += BLOCK) {
        double inverse = damped_inverse(adapter.hyper, values[at % m.r], largest, adapter.side[side].len);
        m(ROOT + side)[at] = m(VECTORS + side)[at] * sqrt(inverse);
    }
    __syncthreads();
    multiply(m, PINV + side, 1.0, of(ROOT + side), transposed(ROOT + side));
}

// out = factor SA^+ y (side 0) or SB^+ y (side 1).
DEVICE void solve(RankMatrices m, int side, int out, double factor, Operand y) {
    multiply(m, TEMPORARY + 4, 1.0, transposed(ROOT + side), y);
    multiply(m, out, factor, of(ROOT + side), of(TEMPORARY + 4));
}

// Projects (gA, gB) through the roots: RB_GA_AT = Rb' (gA A'), RB_BTGB_RA = Rb' (B'gB) Ra.
DEVICE void project_gradients(RankMatrices m, Operand ga_a, Operand b_gb) {
    multiply(m, RB_GA_AT, 1.0, transposed(ROOT + 1), ga_a);
    multiply(m, TEMPORARY, 1.0, transposed(ROOT + 1), b_gb);
    multiply(m, RB_BTGB_RA, 1.0, of(TEMPORARY), of(ROOT));
}

// The same of a matrix N in the place of g, of which B'N A' is the sum of two products b a. Each is
// much larger than the sum where B is ill-conditioned; through the roots it is not.
DEVICE void project_products(RankMatrices m, Operand b0, Operand a0, Operand b1, Operand a1) {
    for (int k = 0; k < 2; ++k) {
        Operand b = k == 0 ? b0 : b1, a = k == 0 ? a0 : a1;
        multiply(m, TEMPORARY, 1.0, transposed(ROOT + 1), b);
        multiply(m, TEMPORARY + 1, 1.0, a, of(ROOT));
        multiply(m, RB_GA_AT, 1.0, of(TEMPORARY), a, k == 1);
        multiply(m, RB_BTGB_RA, 1.0, of(TEMPORARY), of(TEMPORARY + 1), k == 1);
    }
}

// out = factor SB^+ B'N A' SA^+ of what was projected.
DEVICE void solve_both_sides(RankMatrices m, int out, double factor) {
    multiply(m, TEMPORARY, 1.0, of(ROOT + 1), of(RB_BTGB_RA));
    multiply(m, out, factor, of(TEMPORARY), transposed(ROOT));
}

// Solves SB X + X SA = C, from C to X in place: X = Qb [(Qb' C Qa)_ij / (b_i + a_j)] Qa', 0 where the
// sum is 0 up to rounding.
DEVICE void sylvester(RankMatrices m, int c) {
    const double *a = m.values(0), *b = m.values(1);
    double largest = largest_of(a, m.r) + largest_of(b, m.r);
    double rounding = double(NULL_EIGENVALUE) * m.r * 2.220446049250313e-16 * largest;
    multiply(m, TEMPORARY, 1.0, transposed(VECTORS + 1), of(c));
    multiply(m, TEMPORARY + 1, 1.0, of(TEMPORARY), of(VECTORS));
#pragma unroll 1
    for (int at = threadIdx.x; at < m.r * m.r; at += BLOCK) {
        double sum = b[at / m.r] + a[at % m.r];
        m(TEMPORARY + 1)[at] = sum <= rounding ? 0.0 : m(TEMPORARY + 1)[at] / sum;
    }
    __syncthreads();
    multiply(m, TEMPORARY, 1.0, of(VECTORS + 1), of(TEMPORARY + 1));
    multiply(m, c, 1.0, of(TEMPORARY), transposed(VECTORS));
}

// Q and X of what was projected, which `gamma` multiplies.
DEVICE_LARGE void solve_x(const Adapter& adapter, RankMatrices m, double gamma) {
    double factor = gamma / (adapter.s * adapter.s);
    solve_both_sides(m, Q, factor);
    if (adapter.hyper.x == SYLVESTER) {
        multiply(m, X, -factor, of(ROOT + 1), of(RB_GA_AT));
        sylvester(m, X);
    } else {
        assign(m, X, adapter.hyper.x == SYMMETRIC ? -0.5 : 0.0, of(Q));
    }
}

// H H' and F H' of a side from C C' and F C', with H = R C.
DEVICE void apply_root(RankMatrices m, int side, int root) {
    multiply(m, TEMPORARY, 1.0, of(root), of(CC + side));
    multiply(m, HH + side, 1.0, of(TEMPORARY), transposed(root));
    multiply(m, FH + side, 1.0, of(FC + side), transposed(root));
}

// Products of both sides for the parts H = (sU, sV') of E, H = R C with the root of the other side's
// inverse. C is not as large as H where the other side is ill-conditioned.
//
//     sU  = Rb C   C = (gamma / s) Rb'gA         C C' = (gamma/s)^2 Rb' gA gA' Rb
//     sV' = Ra C   C = (gamma / s) (yo' - q'B')  with yo = gB Ra, w = B'gB Ra = B'yo, q = SB^+ w
//                                                C C' = (gamma/s)^2 (yo'yo - w'q - q'w + q'SB q)
DEVICE_LARGE void part_products(const Adapter& adapter, RankMatrices m, double gamma) {
    double scale = gamma / adapter.s;
    constexpr int ONE = TEMPORARY, TWO = TEMPORARY + 1, THREE = TEMPORARY + 2, INNER = CC + 1;
    constexpr int RA = ROOT, RB = ROOT + 1;
    multiply(m, ONE, scale * scale, transposed(RB), of(GG));
    multiply(m, CC, 1.0, of(ONE), of(RB));
    multiply(m, FC, scale, of(FG), of(RB));
    apply_root(m, 0, RB);

    constexpr int W = ONE, SMALL_Q = TWO;
    multiply(m, W, 1.0, of(FG + 1), of(RA));
    multiply(m, THREE, 1.0, transposed(RB), of(W));
    multiply(m, SMALL_Q, 1.0, of(RB), of(THREE));
    // C C' (s / gamma)^2 = yo'yo - w'q - (w'q)' + q'SB q
    multiply(m, THREE, 1.0, transposed(RA), of(GG + 1));
    multiply(m, INNER, 1.0, of(THREE), of(RA));
    multiply(m, THREE, 1.0, transposed(W), of(SMALL_Q));
    combine(m, INNER, 1.0, of(INNER), -1.0, of(THREE));
    combine(m, INNER, 1.0, of(INNER), -1.0, transposed(THREE));
    // w - SB q, for F C'; and SB q = w - (w - SB q) for the last term.
    multiply(m, THREE, -1.0, of(FF + 1), of(SMALL_Q));
    combine(m, THREE, 1.0, of(THREE), 1.0, of(W));
    assign(m, FC + 1, scale, of(THREE));
    combine(m, W, 1.0, of(W), -1.0, of(THREE));
    multiply(m, INNER, 1.0, transposed(SMALL_Q), of(W), true);
    assign(m, INNER, scale * scale, of(INNER));
    apply_root(m, 1, RA);
}

// For plain LoRA, whose E is s (B gA + gB A): H = (s gA, s gB').
DEVICE_LARGE void raw_products(const Adapter& adapter, RankMatrices m, double gamma) {
    double factor = adapter.s * gamma;
#pragma unroll 1
    for (int side = 0; side < 2; ++side) {
        assign(m, HH + side, factor * factor, of(GG + side));
        assign(m, FH + side, factor, of(FG + side));
    }
}
