//! 8-bit codes of moments: short floating-point numbers with three bits after the leading one.
//!
//! With OFFSET = 1023 - TOP, the code c > 0 stands for the f32 number with the bits
//! `(c + OFFSET) << 20`, times the scale of its block; 0 stands for 0. The largest entry of a block
//! has the code TOP, whose number is 1.875.
//!
//! | moment | code | smallest number over largest |
//! |---|---|---|
//! | first | sign and c up to 127 | 1.8e-5 |
//! | second (and its largest) | c up to 255 | 2.8e-10 |
//!
//! Rounding is stochastic: with beta2 = 0.999 a second moment changes by a thousandth in a step,
//! and rounding to the nearest of eight numbers in an octave would never let it move. What is
//! smaller than the smallest number becomes that or 0 in proportion; a second moment never becomes
//! 0, since N divides by its root.

/// Which of the two codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// For the first moment.
    Signed,
    /// For second moments.
    Positive,
}

/// The number of the largest code.
const LARGEST: f32 = 1.875;

/// Below this a block's largest entry counts as 0: its inverse would overflow.
const SMALLEST_LARGEST: f32 = 1e-37;

impl Code {
    #[inline(always)]
    fn top(self) -> i32 {
        match self {
            Code::Signed => 127,
            Code::Positive => 255,
        }
    }

    #[inline(always)]
    fn offset(self) -> i32 {
        1023 - self.top()
    }

    /// The scale of a block with this largest entry, and its inverse.
    #[inline(always)]
    pub(crate) fn scale(self, largest: f32) -> (f32, f32) {
        if largest < SMALLEST_LARGEST {
            return (0.0, 0.0);
        }
        (largest / LARGEST, LARGEST / largest)
    }

    /// The number of a code, before the scale.
    #[inline(always)]
    pub(crate) fn decode(self, code: u8) -> f32 {
        let code = i32::from(code);
        let size = code & self.top();
        let x = f32::from_bits(((size + self.offset()) << 20) as u32);
        let x = if size == 0 { 0.0 } else { x };
        if code > self.top() { -x } else { x }
    }

    /// The code of a number that was divided by the scale.
    #[inline(always)]
    pub(crate) fn encode(self, x: f32, random: u32) -> u8 {
        let size = x.abs();
        let cut = ((size.to_bits() + (random >> 12)) >> 20) as i32 - self.offset();
        let smallest = f32::from_bits(((1 + self.offset()) << 20) as u32);
        let up = match self {
            Code::Signed => ((random >> 8) as f32) * (smallest / 16_777_216.0) < size,
            Code::Positive => size > 0.0,
        };
        let code = if cut < 1 {
            i32::from(up)
        } else {
            cut.min(self.top())
        };
        let sign = self == Code::Signed && x < 0.0;
        (code | i32::from(sign) << 7) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rounding::Seed;

    #[test]
    fn codes_round_trip() {
        for code in [Code::Signed, Code::Positive] {
            for c in 0..=255u8 {
                let minus_zero = code == Code::Signed && c == 128;
                let random = [0, 0x8000_0000, u32::MAX][c as usize % 3];
                let back = code.encode(code.decode(c), random);
                assert!(back == c || minus_zero, "{code:?} {c} {back}");
            }
        }
    }

    #[test]
    fn the_mean_is_exact() {
        let seed = Seed::new("x", 0, 1);
        for x in [1.875f32, -1.3, 0.01, -3e-5, 1e-6] {
            let count = 1 << 16;
            let sum: f64 = (0..count)
                .map(|k| f64::from(Code::Signed.decode(Code::Signed.encode(x, seed.at(k)))))
                .sum();
            // Five standard deviations of draws from two numbers an eighth apart, or from 0 and
            // the smallest.
            let place = (x.abs() / 8.0).max(3.5e-5);
            let off = (sum / count as f64 - f64::from(x)).abs() / f64::from(place);
            assert!(off < 5.0 * 0.5 / 256.0, "{x}: {off}");
        }
    }

    #[test]
    fn a_second_moment_never_vanishes() {
        assert_eq!(Code::Positive.encode(1e-30, 0), 1);
        assert_eq!(Code::Positive.encode(0.0, u32::MAX), 0);
    }
}
