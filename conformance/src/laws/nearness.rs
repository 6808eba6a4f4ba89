//! Law 6: the Sylvester X minimises $`\lVert \mathrm{d}A - g_A \rVert^2 + \lVert \mathrm{d}B - g_B
//! \rVert^2`$; moving X raises it.
//!
//! Moving X by hD changes the sum by $`2h \langle G, D \rangle + h^2 (\lVert D A \rVert^2 +
//! \lVert B D \rVert^2)`$ with $`G = (\mathrm{d}A - g_A) A^\top - B^\top (\mathrm{d}B - g_B)`$, so
//! G must be 0. The sum is also evaluated on both sides. Cannot see a wrong E.

use lora_pro_core::{Error, Method, XChoice};
use lora_pro_reference::factors::FactorPair;

use super::{Answer, Applies, CLOSED_FORM, Law};
use crate::residual::{ratio, worst};
use crate::sample::{CaseSpec, uniform};
use crate::subject::Subject;

pub(super) const LAW: Law = Law {
    number: 6,
    name: "nearness",
    formula: "no X brings (dA, dB) nearer to (gA, gB)",
    cannot_see: "a wrong E",
    applies: Applies::FullRank,
    methods: &CLOSED_FORM,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let answer = Answer::of(subject, spec, method, XChoice::Sylvester)?;
    let [size_a, size_b] = answer.sizes(spec);
    let Answer {
        factors,
        gradients,
        adjusted,
        ..
    } = &answer;
    let (b, a) = (&factors.b, &factors.a);
    let far = FactorPair {
        a: &adjusted.a - &gradients.a,
        b: &adjusted.b - &gradients.b,
    };
    let slope = &far.a * a.transpose() - b.transpose() * &far.b;
    let size_a = size_a + gradients.a.norm();
    let size_b = size_b + gradients.b.norm();
    let size = size_a * a.norm() + b.norm() * size_b;

    let square = |pair: &FactorPair| pair.a.norm_squared() + pair.b.norm_squared();
    let direction = uniform(&mut spec.random(100), spec.r, spec.r);
    let (moved_a, moved_b) = (&direction * a, b * &direction);
    let length = (square(&far) / (moved_a.norm_squared() + moved_b.norm_squared())).sqrt();
    let gains = [-0.5, -0.01, 0.01, 0.5].map(|share| {
        let h = share * length;
        let moved = FactorPair {
            a: &far.a + &moved_a * h,
            b: &far.b - &moved_b * h,
        };
        let gain = (square(&far) - square(&moved)).max(0.0);
        // What a slope that is rounding amounts to along this way, and rounding of the squares.
        let bound = h.abs() * direction.norm() * size + square(&far);
        ratio(spec, gain, bound)
    });
    let slope = ratio(spec, slope.norm(), size);
    Ok(worst(gains.into_iter().chain([slope])))
}
