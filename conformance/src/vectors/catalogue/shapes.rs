//! Shapes at the edge.

use super::{ADJUSTED, PLAIN, Vector, each};
use crate::sample::CaseSpec;

/// From 151.
pub fn vectors() -> Vec<Vector> {
    let shapes = [
        Shape(
            151,
            [7, 4, 1],
            "rank-1",
            "r = 1: Gram matrices are numbers",
            &["RankOne"],
        ),
        Shape(
            155,
            [5, 4, 4],
            "rank-n",
            "r = n: PA = I, the adapter follows every gradient",
            &["LargestRank"],
        ),
        Shape(
            159,
            [4, 6, 4],
            "rank-m",
            "r = m: PB = I, the adapter follows every gradient",
            &["LargestRank"],
        ),
        Shape(163, [1, 5, 1], "one-row", "m = 1: W is a row", &["Thin"]),
        Shape(
            167,
            [6, 1, 1],
            "one-column",
            "n = 1: W is a column",
            &["Thin"],
        ),
        Shape(
            171,
            [1, 1, 1],
            "one-entry",
            "m = n = 1: W is a number",
            &["Thin"],
        ),
    ];
    shapes.into_iter().flat_map(Shape::vectors).collect()
}

/// First number, m, n and r, name, comment and flags.
struct Shape(
    u32,
    [usize; 3],
    &'static str,
    &'static str,
    &'static [&'static str],
);

impl Shape {
    fn vectors(self) -> Vec<Vector> {
        let Shape(first, [m, n, r], name, comment, flags) = self;
        let adapter = CaseSpec {
            m,
            n,
            r,
            rank_a: r,
            rank_b: r,
            steps: 3,
            ..PLAIN
        };
        let plain = each(first, &ADJUSTED, name, comment, flags);
        let set = |vector| Vector { adapter, ..vector };
        plain.into_iter().map(set).collect()
    }
}
