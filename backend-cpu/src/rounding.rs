//! Rounding to short types, to nearest and at random.

use half::{bf16, f16};
use lora_pro_core::Rounding;

/// How a number is rounded where it is stored.
#[derive(Clone, Copy)]
pub(crate) enum Round {
    /// To the nearest number.
    Nearest,
    /// Up or down at random, with the probabilities that make the mean exact.
    Stochastic(Seed),
}

impl Round {
    /// What a group's setting means for one tensor in one step.
    pub(crate) fn of(rounding: Rounding, seed: Seed) -> Self {
        match rounding {
            Rounding::Nearest | Rounding::MasterCopy => Round::Nearest,
            Rounding::Stochastic => Round::Stochastic(seed),
        }
    }
}

/// What random numbers apply_update_rule from: an adapter's name, a tensor, a step.
#[derive(Clone, Copy)]
pub(crate) struct Seed(u32);

impl Seed {
    /// FNV-1a over the name, mixed with the tensor's number and the step.
    pub(crate) fn new(name: &str, tensor: u32, step: u64) -> Self {
        let name = name.bytes().fold(0x811c_9dc5u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        let step = (step ^ (step >> 32)) as u32;
        Seed(mix(name ^ mix(tensor.wrapping_add(mix(step)))))
    }

    /// 32 random bits for an entry. No state: the order in which entries are visited is free.
    #[inline(always)]
    pub(crate) fn at(self, entry: usize) -> u32 {
        mix((entry as u32).wrapping_mul(0x9e37_79b9) ^ self.0 ^ ((entry as u64 >> 32) as u32))
    }
}

/// A bijection of 32 bits in which every bit of the input moves every bit of the output
/// (Wellons' `lowbias32`).
#[inline(always)]
fn mix(x: u32) -> u32 {
    let x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// `x` rounded to the nearest bf16 number, to even in a tie. Infinities stay; x is no NaN.
#[inline(always)]
pub(crate) fn nearest_bf16(x: f32) -> bf16 {
    let bits = x.to_bits();
    let even = bits >> 16 & 1;
    bf16::from_bits((bits.wrapping_add(0x7fff + even) >> 16) as u16)
}

/// `x` cut to a bf16 number after a random amount below its last place has been added to its
/// magnitude.
#[inline(always)]
pub(crate) fn stochastic_bf16(x: f32, random: u32) -> bf16 {
    bf16::from_bits((x.to_bits().wrapping_add(random >> 16) >> 16) as u16)
}

/// As [`stochastic_bf16`], for f16. Below 2^-14 its numbers are evenly spaced, so that more bits are cut.
#[inline(always)]
pub(crate) fn stochastic_f16(x: f32, random: u32) -> f16 {
    let exponent = (x.to_bits() >> 23 & 0xff) as i32 - 127;
    // Bits of x below the last place of f16 at x.
    let cut = (13 + (-14 - exponent).max(0)).min(24) as u32;
    if cut == 24 {
        // Less than the smallest f16 number: 0 or that, in proportion.
        let share = x.abs() * 16_777_216.0;
        let up = (random >> 8) as f32 / 16_777_216.0 < share;
        return f16::from_f32(if up {
            2f32.powi(-24).copysign(x)
        } else {
            0f32.copysign(x)
        });
    }
    let noisy = x.to_bits().wrapping_add(random >> (32 - cut));
    f16::from_f32(f32::from_bits(noisy >> cut << cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean over many seeds, in units of the last place of the type at x.
    fn bias(x: f32, place: f32, round: impl Fn(f32, u32) -> f32) -> f64 {
        let count = 1 << 16;
        let seed = Seed::new("x", 0, 1);
        let sum: f64 = (0..count)
            .map(|k| f64::from((round(x, seed.at(k)) - x) / place))
            .sum();
        sum / count as f64
    }

    #[test]
    fn the_mean_is_exact() {
        // Five standard deviations of a mean of 2^16 draws of at most one place.
        let limit = 5.0 * 0.5 / 256.0;
        for x in [1.001f32, -3.7e-5, 6e-8, 1.3e-8, -2.9e-8, 1e4] {
            let place = 2f32.powi((x.abs().log2().floor() as i32 - 10).max(-24));
            let off = bias(x, place, |x, random| stochastic_f16(x, random).to_f32());
            assert!(off.abs() < limit, "f16 {x}: {off}");
            let place = 2f32.powi(x.abs().log2().floor() as i32 - 7);
            let off = bias(x, place, |x, random| stochastic_bf16(x, random).to_f32());
            assert!(off.abs() < limit, "bf16 {x}: {off}");
        }
    }

    #[test]
    fn representable_numbers_are_kept() {
        for random in [0, 1, 0x8000_0000, u32::MAX] {
            for x in [0.0f32, -0.0, 1.0, -0.375, 6.103_515_6e-5, 5.960_464_5e-8] {
                assert_eq!(stochastic_f16(x, random).to_f32(), x);
                assert_eq!(
                    stochastic_bf16(x, random).to_f32(),
                    bf16::from_f32(x).to_f32()
                );
            }
        }
    }
}
