//! What checks have to know of a method. A method that is new in core does not compile here before it
//! is described.

use lora_pro_core::Method;

/// All methods.
pub const METHODS: [Method; 5] = [
    Method::Lora,
    Method::Sgd,
    Method::Efficient,
    Method::Factored,
    Method::Full,
];

/// Methods that follow the closed form.
pub const CLOSED_FORM: [Method; 4] = [
    Method::Sgd,
    Method::Efficient,
    Method::Factored,
    Method::Full,
];

/// Methods with first and second moments.
pub const WITH_MOMENTS: [Method; 4] = [
    Method::Lora,
    Method::Efficient,
    Method::Factored,
    Method::Full,
];

/// Whether (dA, dB) comes from the closed form.
pub const fn has_closed_form(method: Method) -> bool {
    match method {
        Method::Lora => false,
        Method::Sgd | Method::Efficient | Method::Factored | Method::Full => true,
    }
}

/// Whether it keeps first and second moments; else it may have momentum, and neither weight decay
/// nor AMSGrad.
pub const fn has_moments(method: Method) -> bool {
    match method {
        Method::Sgd => false,
        Method::Lora | Method::Efficient | Method::Factored | Method::Full => true,
    }
}

/// Whether its moments are those of E: then the closed form is applied to its own result, N.
pub const fn has_moments_of_e(method: Method) -> bool {
    match method {
        Method::Lora | Method::Sgd | Method::Efficient => false,
        Method::Factored | Method::Full => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_those_of_the_properties() {
        let with = |property: fn(Method) -> bool| {
            let methods = METHODS.into_iter();
            methods
                .filter(|method| property(*method))
                .collect::<Vec<_>>()
        };
        assert_eq!(CLOSED_FORM.to_vec(), with(has_closed_form));
        assert_eq!(WITH_MOMENTS.to_vec(), with(has_moments));
    }
}
