// Symmetric eigen-decomposition by Jacobi's method: S = Q diag(values) Q'.
//
// In each round all rows are paired, no row twice, and one rotation for each adapter zeroes its entry.
// The rotations commute, and the two by two squares that they meet in are disjoint: a thread rotations
// a whole square from both sides. A sweep of rounds meets every adapter once; convergence is quadratic.
#pragma once
#include "matrix.cuh"

constexpr int SWEEPS = 40;

// The p-th adapter of round k of a tournament of `count` rows (even): row 0 stays, the others go round.
struct RowPair {
    int p, q;
};

DEVICE RowPair row_pair_of(int count, int round, int k) {
    int around = count - 1;
    int a = k == 0 ? 0 : (round + k - 1) % around + 1;
    int b = (round + around - k - 1) % around + 1;
    return a < b ? RowPair{a, b} : RowPair{b, a};
}

// Cosine and sine of the rotation that zeroes s_pq; (1, 0) where it is zero already, up to
// rounding of the two entries that it stands between.
DEVICE double2 rotation(double pp, double qq, double pq) {
    const double EPS = 1.1102230246251565e-16;
    if (fabs(pq) <= EPS * sqrt(fabs(pp)) * sqrt(fabs(qq)) || fabs(pq) < 1e-300)
        return make_double2(1.0, 0.0);
    double theta = (qq - pp) / (2.0 * pq);
    double t = (theta >= 0.0 ? 1.0 : -1.0) / (fabs(theta) + sqrt(fma(theta, theta, 1.0)));
    double c = 1.0 / sqrt(fma(t, t, 1.0));
    return make_double2(c, t * c);
}

// (x, y) rotated.
DEVICE void rotate(double2 by, double& x, double& y) {
    double old = x;
    x = by.x * old - by.y * y;
    y = by.y * old + by.x * y;
}

// Turns the square of rows (p, q) and columns (u, v). A bystander, the row that makes a count even,
// has number r and no entries.
DEVICE void rotate_square(double* s, int r, RowPair rows, RowPair columns, double2 left, double2 right) {
    bool has_q = rows.q < r, has_v = columns.q < r;
    double a = s[rows.p * r + columns.p];
    double b = has_v ? s[rows.p * r + columns.q] : 0.0;
    double c = has_q ? s[rows.q * r + columns.p] : 0.0;
    double d = has_q && has_v ? s[rows.q * r + columns.q] : 0.0;
    rotate(left, a, c);
    rotate(left, b, d);
    rotate(right, a, b);
    rotate(right, c, d);
    if (rows.p == columns.p && left.y != 0.0) b = c = 0.0;
    s[rows.p * r + columns.p] = a;
    if (has_v) s[rows.p * r + columns.q] = b;
    if (has_q) s[rows.q * r + columns.p] = c;
    if (has_q && has_v) s[rows.q * r + columns.q] = d;
}

// From the symmetric matrix s to its eigenvectors, one in each column of q, and its eigenvalues.
// s is used up. `rotations` is room for one rotation for each adapter. Begins in a barrier, but for r = 1;
// what it leaves is there after the next one.
DEVICE_LARGE void decompose(double* s, double* q, double* values, double2* rotations, int r) {
    for (int at = threadIdx.x; at < r * r; at += BLOCK) q[at] = at / r == at % r ? 1.0 : 0.0;
    int count = r + r % 2, half = count / 2;
    bool done = r == 1;
    for (int sweep = 0; sweep < SWEEPS && !done; ++sweep) {
        bool turned = false;
        for (int round = 0; round < count - 1; ++round) {
            __syncthreads();
            for (int k = threadIdx.x; k < half; k += BLOCK) {
                RowPair m = row_pair_of(count, round, k);
                rotations[k] = m.q < r ? rotation(s[m.p * r + m.p], s[m.q * r + m.q], s[m.p * r + m.q])
                                   : make_double2(1.0, 0.0);
                turned = turned || rotations[k].y != 0.0;
            }
            __syncthreads();
            for (int at = threadIdx.x; at < half * half; at += BLOCK) {
                int k = at / half, l = at % half;
                rotate_square(s, r, row_pair_of(count, round, k), row_pair_of(count, round, l), rotations[k],
                            rotations[l]);
            }
            for (int at = threadIdx.x; at < half * r; at += BLOCK) {
                int k = at % half, i = at / half;
                RowPair m = row_pair_of(count, round, k);
                if (m.q < r) rotate(rotations[k], q[i * r + m.p], q[i * r + m.q]);
            }
        }
        done = !__syncthreads_or(turned);
    }
    for (int i = threadIdx.x; i < r; i += BLOCK) values[i] = s[i * r + i];
}
