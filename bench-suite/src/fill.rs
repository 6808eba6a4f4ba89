//! Numbers to compute with. Cheap: a large model has hundreds of millions of them.

/// `len` numbers between -size and size; the same for the same seed.
pub fn numbers(len: usize, size: f32, seed: u64) -> Vec<f32> {
    let mut state = scrambled(seed);
    let step = size / 2f32.powi(31);
    let mut numbers = Vec::with_capacity(len);
    numbers.extend((0..len).map(|_| {
        // xorshift64 (Marsaglia 2003): three shifts a number; the low half is good enough here.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u32 as i32 as f32 * step
    }));
    numbers
}

/// The seed with all its bits at work (the finalizer of splitmix64), and not 0, where xorshift
/// would stay.
fn scrambled(seed: u64) -> u64 {
    let x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_size_and_no_direction() {
        let x = numbers(100_000, 2.0, 7);
        assert!(x.iter().all(|x| x.abs() <= 2.0));
        let mean = x.iter().sum::<f32>() / x.len() as f32;
        let square = x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32;
        // A uniform number has the mean square size²/3; ten standard errors.
        assert!(mean.abs() < 0.04, "{mean}");
        assert!((square - 4.0 / 3.0).abs() < 0.04, "{square}");
        assert_ne!(x[..9], numbers(9, 2.0, 8));
    }
}
