//! Attention of several heads. The softmax is not kept but computed anew in the backward pass, as in Dao et
//! al., "FlashAttention", <https://arxiv.org/abs/2205.14135>; what is kept is what is given.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::dropout::Kept;
use super::matrix::Matrix;
use super::{entries, read};
use crate::rotary::Angles;

/// Heads, and which positions they see.
#[derive(Clone, Debug)]
pub(crate) struct Heads {
    /// Heads of queries.
    pub(crate) count: usize,
    /// Heads of keys and values, a divisor of `count`: each is shared by as many heads of queries.
    pub(crate) groups: usize,
    /// Whether there is a token, for each of N x S keys; without, there is one everywhere.
    pub(crate) tokens: Option<Arc<[bool]>>,
    /// Whether a position sees no later one.
    pub(crate) causal: bool,
    /// The angles by which queries and keys are turned, for each of S positions.
    pub(crate) angles: Option<Arc<Angles>>,
}

impl Heads {
    /// Heads with keys and values of their own that see everything.
    pub(crate) fn alike(count: usize) -> Self {
        Heads {
            count,
            groups: count,
            tokens: None,
            causal: false,
            angles: None,
        }
    }
}

/// softmax(q k' / sqrt(d)) v for each head, where `dropped` drops entries, N x h x T x S, of the softmax.
/// q is N x T x h d, k and v are N x S x g d; the T positions are the last of the S. The result is
/// N x T x h d.
pub(crate) fn attention(
    [q, k, v]: [&Tensor; 3],
    heads: &Heads,
    dropped: Option<Kept>,
) -> Result<Tensor> {
    let [q, k, v] = [q, k, v].map(|x| x.contiguous());
    let attention = Attention {
        heads: heads.clone(),
        dropped,
    };
    q?.apply_op3(&k?, &v?, attention)
}

/// How far below the others the score of a position without a token is.
const HIDDEN: f32 = 1e4;

struct Attention {
    heads: Heads,
    dropped: Option<Kept>,
}

/// Sizes of one call.
#[derive(Clone, Copy)]
struct Sizes {
    rows: usize,
    queries: usize,
    keys: usize,
    width: usize,
}

/// The heads of one group in one row of the batch.
#[derive(Clone, Copy)]
struct Group {
    row: usize,
    index: usize,
}

/// Where vectors of some neighbouring heads are in a tensor N x P x (heads d).
struct Place {
    row: usize,
    positions: usize,
    /// Heads in the tensor.
    all: usize,
    first: usize,
    count: usize,
    width: usize,
    /// The first position's place among the angles.
    start: usize,
}

impl Place {
    /// Where the vector of each head and position begins, with its place among the angles.
    fn vectors(&self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.count).flat_map(move |head| {
            (0..self.positions).map(move |position| {
                let vector = self.row * self.positions + position;
                let begin = (vector * self.all + self.first + head) * self.width;
                (begin, self.start + position)
            })
        })
    }

    /// The vectors, one after another, turned.
    fn gather(&self, x: &[f32], angles: Option<&Angles>) -> Vec<f32> {
        let mut part = Vec::with_capacity(self.count * self.positions * self.width);
        for (begin, position) in self.vectors() {
            let end = part.len();
            part.extend_from_slice(&x[begin..begin + self.width]);
            if let Some(angles) = angles {
                angles.turn(&mut part[end..], position);
            }
        }
        part
    }

    /// Puts vectors back, turned back.
    fn scatter(&self, part: &[f32], x: &mut [f32], angles: Option<&Angles>) {
        let vectors = self.vectors().zip(part.chunks(self.width));
        for ((begin, position), from) in vectors {
            let to = &mut x[begin..begin + self.width];
            to.copy_from_slice(from);
            if let Some(angles) = angles {
                angles.turn_back(to, position);
            }
        }
    }
}

impl Attention {
    fn sizes(&self, q: &[usize], k: &[usize], v: &[usize]) -> Result<Sizes> {
        let Heads { count, groups, .. } = self.heads;
        if let (&[rows, queries, all], &[k_rows, keys, some]) = (q, k) {
            let width = all / count.max(1);
            let sizes = Sizes {
                rows,
                queries,
                keys,
                width,
            };
            let tokens = self.heads.tokens.as_ref();
            let fits = width > 0
                && groups > 0
                && count.is_multiple_of(groups)
                && (all, some) == (count * width, groups * width)
                && (k, k_rows) == (v, rows)
                && queries <= keys
                && tokens.is_none_or(|tokens| tokens.len() == rows * keys)
                && self
                    .heads
                    .angles
                    .as_ref()
                    .is_none_or(|angles| angles.fit(keys, width));
            if fits {
                return Ok(sizes);
            }
        }
        candle_core::bail!(
            "attention of {count} heads, {groups} of keys, takes no tensors {q:?}, {k:?}, {v:?}"
        )
    }

    fn shared(&self) -> usize {
        self.heads.count / self.heads.groups
    }

    fn of_queries(&self, sizes: Sizes, group: Group) -> Place {
        Place {
            row: group.row,
            positions: sizes.queries,
            all: self.heads.count,
            first: group.index * self.shared(),
            count: self.shared(),
            width: sizes.width,
            start: sizes.keys - sizes.queries,
        }
    }

    fn of_keys(&self, sizes: Sizes, group: Group) -> Place {
        Place {
            row: group.row,
            positions: sizes.keys,
            all: self.heads.groups,
            first: group.index,
            count: 1,
            width: sizes.width,
            start: 0,
        }
    }

    /// A result for each group of each row.
    fn for_groups<R: Send>(
        &self,
        sizes: Sizes,
        work: impl Fn(Group) -> Result<R> + Sync,
    ) -> Result<Vec<(Group, R)>> {
        let group = |k: usize| Group {
            row: k / self.heads.groups,
            index: k % self.heads.groups,
        };
        let all = (0..sizes.rows * self.heads.groups).into_par_iter();
        all.map(|k| Ok((group(k), work(group(k))?))).collect()
    }

    /// Queries, keys and values of a group: turned, and the queries divided by sqrt(d). Its heads are more
    /// rows for the same keys and values.
    fn gather(&self, sizes: Sizes, group: Group, [q, k, v]: [&[f32]; 3]) -> [Matrix; 3] {
        let (queries, keys) = (self.of_queries(sizes, group), self.of_keys(sizes, group));
        let angles = self.heads.angles.as_deref();
        let mut q = queries.gather(q, angles);
        let scale = (sizes.width as f32).sqrt().recip();
        q.iter_mut().for_each(|q| *q *= scale);
        let of_keys = |entries| Matrix::new(entries, [sizes.keys, sizes.width]);
        [
            Matrix::new(q, [self.shared() * sizes.queries, sizes.width]),
            of_keys(keys.gather(k, angles)),
            of_keys(keys.gather(v, None)),
        ]
    }

    /// The softmax of each row of scores, a row for each query of each head.
    fn softmax(&self, sizes: Sizes, row: usize, scores: &mut [f32]) {
        let Sizes { queries, keys, .. } = sizes;
        let tokens = self.heads.tokens.as_ref();
        let tokens = tokens.map(|tokens| &tokens[row * keys..(row + 1) * keys]);
        for (k, scores) in scores.chunks_mut(keys).enumerate() {
            let seen = match self.heads.causal {
                true => keys - queries + k % queries + 1,
                false => keys,
            };
            let (scores, future) = scores.split_at_mut(seen);
            future.fill(0.0);
            if let Some(tokens) = tokens {
                for (score, _) in scores.iter_mut().zip(tokens).filter(|(_, token)| !**token) {
                    *score -= HIDDEN;
                }
            }
            let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            scores.iter_mut().for_each(|x| *x = (*x - largest).exp());
            let factor = scores.iter().sum::<f32>().recip();
            scores.iter_mut().for_each(|x| *x *= factor);
        }
    }

    /// Drops what is dropped of a group's softmax, or of its gradient.
    fn drop(&self, sizes: Sizes, group: Group, entries: &mut [f32]) {
        if let Some(dropped) = &self.dropped {
            let head = group.row * self.heads.count + group.index * self.shared();
            dropped.apply(entries, head * sizes.queries * sizes.keys);
        }
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let sizes = self.sizes(q_layout.dims(), k_layout.dims(), v_layout.dims())?;
        let (q, k, v) = (
            entries(q, q_layout)?,
            entries(k, k_layout)?,
            entries(v, v_layout)?,
        );
        let mixed = self.for_groups(sizes, |group| {
            let [q, k, v] = self.gather(sizes, group, [q, k, v]);
            let mut weights = q.times_transposed(&k)?;
            self.softmax(sizes, group.row, &mut weights);
            self.drop(sizes, group, &mut weights);
            Matrix::new(weights, [self.shared() * sizes.queries, sizes.keys]).times(&v)
        })?;
        let mut y = vec![0.0; q.len()];
        for (group, mixed) in mixed {
            let place = self.of_queries(sizes, group);
            place.scatter(&mixed, &mut y, None);
        }
        Ok((CpuStorage::F32(y), q_layout.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _y: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let sizes = self.sizes(q.dims(), k.dims(), v.dims())?;
        let g = g.contiguous()?;
        let [qs, ks, vs, g] = [q, k, v, &g].map(read);
        let (qs, ks, vs, g) = (qs?, ks?, vs?, g?);
        let shape = [self.shared() * sizes.queries, sizes.keys];
        let parts = self.for_groups(sizes, |group| {
            let [q, k, v] = self.gather(sizes, group, [&qs, &ks, &vs]);
            let g = self.of_queries(sizes, group).gather(&g, None);
            let g = Matrix::new(g, [shape[0], sizes.width]);
            let mut weights = q.times_transposed(&k)?;
            self.softmax(sizes, group.row, &mut weights);
            // The gradient of the softmax, and of the scores before it.
            let mut slopes = g.times_transposed(&v)?;
            self.drop(sizes, group, &mut slopes);
            for (slopes, weights) in slopes
                .chunks_mut(sizes.keys)
                .zip(weights.chunks(sizes.keys))
            {
                let mean = super::sum_of(slopes, weights, |s, w| s * w);
                for (slope, weight) in slopes.iter_mut().zip(weights) {
                    *slope = weight * (*slope - mean);
                }
            }
            self.drop(sizes, group, &mut weights);
            let (slopes, weights) = (Matrix::new(slopes, shape), Matrix::new(weights, shape));
            let mut for_q = slopes.times(&k)?;
            let scale = (sizes.width as f32).sqrt().recip();
            for_q.iter_mut().for_each(|g| *g *= scale);
            let for_k = slopes.transposed_times(&q)?;
            Ok([for_q, for_k, weights.transposed_times(&g)?])
        })?;
        let [mut for_q, mut for_k, mut for_v] = [&qs, &ks, &vs].map(|x| vec![0.0; x.len()]);
        let angles = self.heads.angles.as_deref();
        for (group, [q, k, v]) in parts {
            let (queries, keys) = (self.of_queries(sizes, group), self.of_keys(sizes, group));
            queries.scatter(&q, &mut for_q, angles);
            keys.scatter(&k, &mut for_k, angles);
            keys.scatter(&v, &mut for_v, None);
        }
        let tensor = |all, like: &Tensor| Tensor::from_vec(all, like.shape(), like.device());
        Ok((
            Some(tensor(for_q, q)?),
            Some(tensor(for_k, k)?),
            Some(tensor(for_v, v)?),
        ))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{D, Device};
    use candle_nn::ops::softmax;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::super::tests::{check_slope, compare, difference, random, var};
    use super::*;
    use crate::rotary::{RopeParameters, Rotary};

    const ROWS: usize = 2;
    const POSITIONS: usize = 5;
    const WIDTH: usize = 6;

    fn heads(count: usize, groups: usize) -> Heads {
        Heads {
            groups,
            ..Heads::alike(count)
        }
    }

    /// N x P x (heads d) to N x heads x P x d, each key's head as often as queries share it.
    fn split(x: &Tensor, heads: usize, shared: usize) -> Tensor {
        let (rows, positions, _) = x.dims3().unwrap();
        let x = x.reshape((rows, positions, heads, 1, WIDTH)).unwrap();
        let x = x.broadcast_as((rows, positions, heads, shared, WIDTH));
        let x = x.unwrap().reshape((rows, positions, heads * shared, WIDTH));
        x.unwrap().transpose(1, 2).unwrap().contiguous().unwrap()
    }

    /// Attention by candle's operations; `hidden` is added to the scores, `factors` are dropout's.
    fn composed(
        [q, k, v]: [&Tensor; 3],
        heads: &Heads,
        hidden: &Tensor,
        factors: &Tensor,
    ) -> Tensor {
        let shared = heads.count / heads.groups;
        let q = split(q, heads.count, 1);
        let [k, v] = [k, v].map(|x| split(x, heads.groups, shared));
        let scores = (q.matmul(&k.t().unwrap()).unwrap() / (WIDTH as f64).sqrt()).unwrap();
        let weights = softmax(&scores.broadcast_add(hidden).unwrap(), D::Minus1).unwrap();
        let weights = weights.broadcast_mul(factors).unwrap();
        let mixed = weights.matmul(&v).unwrap().transpose(1, 2).unwrap();
        mixed.reshape((ROWS, (), heads.count * WIDTH)).unwrap()
    }

    fn zeros(dims: &[usize]) -> Tensor {
        Tensor::zeros(dims, candle_core::DType::F32, &Device::Cpu).unwrap()
    }

    #[test]
    fn heads_of_their_own_are_candles() {
        let heads = heads(3, 3);
        let [q, k, v] = [(); 3].map(|()| var(&[ROWS, POSITIONS, 3 * WIDTH]));
        let own = || attention([&q, &k, &v], &heads, None).unwrap();
        let one = zeros(&[1]).ones_like().unwrap();
        let composed = composed([&q, &k, &v], &heads, &zeros(&[1]), &one);
        compare(&[&q, &k, &v], &own(), &composed);
        check_slope(&q, own);
        check_slope(&k, own);
    }

    #[test]
    fn groups_hidden_positions_and_dropout_are_candles() {
        let tokens = [true, true, true, true, true, true, true, true, false, false];
        let heads = Heads {
            tokens: Some(Arc::new(tokens)),
            causal: true,
            ..heads(4, 2)
        };
        let q = var(&[ROWS, POSITIONS, 4 * WIDTH]);
        let [k, v] = [(); 2].map(|()| var(&[ROWS, POSITIONS, 2 * WIDTH]));
        let hidden = |row: usize, query: usize, key: usize| {
            (key > query || !tokens[row * POSITIONS + key]) as u8 as f32 * -1e4
        };
        let hidden = Tensor::from_iter(
            (0..ROWS * POSITIONS * POSITIONS).map(|k| {
                let (row, k) = (k / POSITIONS.pow(2), k % POSITIONS.pow(2));
                hidden(row, k / POSITIONS, k % POSITIONS)
            }),
            &Device::Cpu,
        );
        let hidden = hidden.unwrap().reshape((ROWS, 1, POSITIONS, POSITIONS));
        let kept = || {
            let mut random = ChaCha8Rng::seed_from_u64(1);
            Kept::draw(ROWS * 4 * POSITIONS.pow(2), 0.3, &mut random)
        };
        let factors = zeros(&[ROWS, 4, POSITIONS, POSITIONS]);
        let factors = super::super::dropout(&factors.ones_like().unwrap(), kept()).unwrap();
        let own = attention([&q, &k, &v], &heads, Some(kept())).unwrap();
        let composed = composed([&q, &k, &v], &heads, &hidden.unwrap(), &factors);
        compare(&[&q, &k, &v], &own, &composed);
    }

    #[test]
    fn turned_heads_are_candles_and_the_last_queries_are_those_of_all() {
        let rotary = Rotary::new(WIDTH, 100.0, &RopeParameters::default()).unwrap();
        let heads = Heads {
            causal: true,
            angles: Some(Arc::new(rotary.angles(POSITIONS))),
            ..heads(2, 1)
        };
        let q = var(&[ROWS, POSITIONS, 2 * WIDTH]);
        let [k, v] = [(); 2].map(|()| var(&[ROWS, POSITIONS, WIDTH]));
        let own = |q: &Tensor| attention([q, &k, &v], &heads, None).unwrap();
        // Each pair of entries is turned by its frequency times the position.
        let turned = |x: &Tensor, heads: usize| {
            let x = x.reshape((ROWS, POSITIONS, heads, WIDTH)).unwrap();
            let angle = |k: usize| {
                let (position, entry) = (k / WIDTH, k % (WIDTH / 2));
                position as f64 * 100f64.powf(-2.0 * entry as f64 / WIDTH as f64)
            };
            let table = |f: fn(f64) -> f64| {
                let all = (0..POSITIONS * WIDTH).map(|k| f(angle(k)) as f32);
                let table = Tensor::from_iter(all, &Device::Cpu).unwrap();
                table.reshape((POSITIONS, 1, WIDTH)).unwrap()
            };
            let half = |start| x.narrow(D::Minus1, start, WIDTH / 2).unwrap();
            let other = [half(WIDTH / 2).neg().unwrap(), half(0)];
            let other = Tensor::cat(&other, D::Minus1).unwrap();
            let sum = x.broadcast_mul(&table(f64::cos)).unwrap()
                + other.broadcast_mul(&table(f64::sin)).unwrap();
            sum.unwrap().flatten(2, 3).unwrap()
        };
        let future = Tensor::tril2(POSITIONS, candle_core::DType::F32, &Device::Cpu).unwrap();
        let future = ((future - 1.0).unwrap() * 1e4).unwrap();
        let one = zeros(&[1]).ones_like().unwrap();
        let plain = [&turned(&q, 2), &turned(&k, 1), &v];
        let composed = composed(plain, &heads, &future, &one);
        compare(&[&q, &k, &v], &own(&q), &composed);
        let last = |x: &Tensor| x.narrow(1, POSITIONS - 2, 2).unwrap();
        assert!(difference(&own(&last(&q)), &last(&own(&q))) < 1e-6);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let (q, k) = (random(&[1, 2, 12]), random(&[1, 2, 6]));
        let error = attention([&q, &k, &q], &heads(2, 1), None).unwrap_err();
        let expected =
            "attention of 2 heads, 1 of keys, takes no tensors [1, 2, 12], [1, 2, 6], [1, 2, 12]";
        assert!(error.to_string().contains(expected), "{error}");
    }
}
